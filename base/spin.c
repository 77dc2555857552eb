// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/spin.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"

#define RELAXES 8
// A yield that took longer has run somebody else, with work for a good part of a time slice. With a tenth of this, an idle
// virtual machine of 16 processors was taken for a busy one: hand-overs took 28 us instead of 5, and queues ran dry.
#define SLOW_YIELD_NS (200 * NS_PER_US)
// One slow yield may be a hiccup of the machine. On busy processors the next follows.
#define TWICE_NS (20 * NS_PER_MS)
// For this long nobody in this process tries again.
#define SCARCE_NS (500 * NS_PER_MS)

static _Atomic uint64_t scarce_until_ns, slow_yield_ns;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

bool spin_briefly(void)
{
    uint64_t start = clock_now_ns();
    if (start < atomic_load_explicit(&scarce_until_ns, memory_order_relaxed))
        return false;
    for (int i = 0; i < RELAXES; i++)
        relax();
    uint64_t before = clock_now_ns();
    sched_yield();
    uint64_t after = clock_now_ns();
    if (after < before + SLOW_YIELD_NS || after - atomic_exchange(&slow_yield_ns, after) > TWICE_NS)
        return true;
    atomic_store_explicit(&scarce_until_ns, after + SCARCE_NS, memory_order_relaxed);
    return false;
}
