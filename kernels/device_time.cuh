// Time as device code sees it.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// DEVICE_TIMER_NS() is defined by whoever compiles device code for something that has no %globaltimer.
#ifndef KERNELS_DEVICE_TIME_CUH
#define KERNELS_DEVICE_TIME_CUH

#include <cuda_runtime.h>
#include <stdint.h>

// Nanoseconds from an unspecified origin, the same for all blocks of a device.
__device__ inline uint64_t device_time_ns()
{
#ifdef DEVICE_TIMER_NS
    return DEVICE_TIMER_NS();
#else
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
#endif
}

// A sleep may last twice as long as asked for, so half of what is left is slept, and the last microseconds are spent looking.
__device__ inline void device_wait_until_ns(uint64_t end_ns)
{
    const uint64_t longest_ns = 100000, shortest_ns = 2000;

    for (uint64_t now = device_time_ns(); now < end_ns; now = device_time_ns()) {
        uint64_t left = end_ns - now;
        if (left >= shortest_ns)
            __nanosleep((unsigned)(left / 2 < longest_ns ? left / 2 : longest_ns));
    }
}

#endif
