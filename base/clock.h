// SPDX-License-Identifier: AGPL-3.0-or-later
// Time in every module of the library: nanoseconds of CLOCK_MONOTONIC, which all processes of a node share.
#ifndef VGPU_BASE_CLOCK_H
#define VGPU_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

static inline uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

// Sleeps, for less if a signal comes: its callers look again anyway. May change errno, and is a cancellation point.
static inline void clock_sleep_ns(uint64_t ns)
{
    struct timespec pause = clock_timespec(ns);
    nanosleep(&pause, NULL);
}

#endif
