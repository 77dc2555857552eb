// SPDX-License-Identifier: AGPL-3.0-or-later
// Waiting without sleeping, for the last moments before something happens: timers and wake-ups come late by more than that.
//
// Invariant: where other threads want the processors, nobody spins. A thread that spins there loses to them the time in which it will
// have work, and is scheduled later than one that slept. Thread safe.
#ifndef VGPU_BASE_SPIN_H
#define VGPU_BASE_SPIN_H

#include <stdbool.h>

// Passes about a microsecond. false: processors are few, so whoever waits should sleep instead.
bool spin_briefly(void);

#endif
