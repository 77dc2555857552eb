// SPDX-License-Identifier: AGPL-3.0-or-later
// The two futex calls the library uses, on words in memory that several processes share.
#ifndef VGPU_BASE_FUTEX_H
#define VGPU_BASE_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

#define FUTEX_EVERYONE FUTEX_BITSET_MATCH_ANY

// Sleeps while *word == expected, until woken with a bit of `bits` or until the absolute monotonic time deadline_ns.
// Returns 0 when woken, -EAGAIN when *word already differed, -ETIMEDOUT, or -EINTR. Changes errno.
static inline int futex_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t bits, uint64_t deadline_ns)
{
    struct timespec deadline = clock_timespec(deadline_ns);
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &deadline, NULL, bits);
    return rc == 0 ? 0 : -errno;
}

// Wakes every waiter whose bits meet `bits`. Changes errno.
static inline void futex_wake(_Atomic uint32_t *word, uint32_t bits)
{
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, bits);
}

#endif
