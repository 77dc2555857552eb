// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/spin.h"

#include <stdatomic.h>

#include "base/clock.h"

#define RELAXES 8
// What takes less than a microsecond took longer than this: somebody else ran, who had work for a good part of a time slice. With a tenth of
// it an idle virtual machine of 16 processors was taken for a busy one: hand-overs took 28 us instead of 5, and queues ran dry.
#define HELD_UP_NS (200 * NS_PER_US)
// To be held up once may be the machine's own hiccup. On busy processors the next follows.
#define TWICE_NS (20 * NS_PER_MS)
// For so long nobody of this process tries again.
#define SCARCE_NS (500 * NS_PER_MS)

static _Atomic uint64_t scarce_until_ns, held_up_ns;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Without sched_yield: with it, threads that spun on a machine with nothing else to do came back 1 to 3 ms later several times a second (Linux
// 6.18), without it at most half a millisecond, and hardly ever.
bool spin_briefly(void)
{
    uint64_t start = clock_now_ns();
    if (start < atomic_load_explicit(&scarce_until_ns, memory_order_relaxed))
        return false;
    for (int i = 0; i < RELAXES; i++)
        relax();
    uint64_t now = clock_now_ns();
    if (now < start + HELD_UP_NS || now - atomic_exchange(&held_up_ns, now) > TWICE_NS)
        return true;
    atomic_store_explicit(&scarce_until_ns, now + SCARCE_NS, memory_order_relaxed);
    return false;
}
