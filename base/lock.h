// SPDX-License-Identifier: AGPL-3.0-or-later
// A mutex of one word, for what is held for less time than pthread_mutex_lock takes: taken and dropped in place, by one atomic
// operation each. Who finds it taken sleeps on a futex. Not recursive, between the threads of one process; leaves errno as it is, and is no
// cancellation point. Zeroed, it is free.
#ifndef VGPU_BASE_LOCK_H
#define VGPU_BASE_LOCK_H

#include <stdatomic.h>
#include <stdint.h>

struct lock {
    _Atomic uint32_t word; // 0: free; 1: taken; 2: taken, and somebody may sleep
};

// base/lock.c: the rest of the way, where it was taken, and where somebody may sleep.
void lock_wait(struct lock *lock);
void lock_wake(struct lock *lock);

static inline void lock_take(struct lock *lock)
{
    uint32_t expected = 0;
    // Pairs with lock_drop, as does the exchange in lock_wait.
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &expected, 1, memory_order_acquire, memory_order_relaxed))
        lock_wait(lock);
}

static inline void lock_drop(struct lock *lock)
{
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
        lock_wake(lock);
}

#endif
