// SPDX-License-Identifier: AGPL-3.0-or-later
// Waiting without sleeping, for the last moments before something happens: timers and wake-ups come late by more than that.
#ifndef VGPU_BASE_SPIN_H
#define VGPU_BASE_SPIN_H

#include <sched.h>
#include <stdbool.h>

#include "base/clock.h"

#define SPIN_RELAXES 32
// A yield that took longer has run somebody else: processors are few.
#define SPIN_YIELD_NS (20 * NS_PER_US)

// Passes about a microsecond. false: another thread wanted this processor, so whoever waits should sleep instead.
static inline bool spin_briefly(void)
{
    for (int i = 0; i < SPIN_RELAXES; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
    uint64_t before = clock_now_ns();
    sched_yield();
    return clock_now_ns() < before + SPIN_YIELD_NS;
}

#endif
