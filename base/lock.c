// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void lock_wait(struct lock *lock)
{
    int saved = errno;
    // Whoever has slept leaves 2 behind: others may still be asleep.
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire))
        syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    errno = saved;
}

void lock_wake(struct lock *lock)
{
    int saved = errno;
    syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved;
}
