// SPDX-License-Identifier: AGPL-3.0-or-later
// Waiting without sleeping, for the last moments before an event: timers and wake-ups come late by more than that.
//
// Invariant: while other threads want the processors, nothing spins. A thread that spins then loses the time in which it will
// have work to them, and is scheduled later than one that slept. Thread safe.
#ifndef VGPU_BASE_SPIN_H
#define VGPU_BASE_SPIN_H

#include <stdbool.h>

// Passes about a microsecond. false: processors are scarce, so the caller should sleep instead.
bool spin_briefly(void);

#endif
