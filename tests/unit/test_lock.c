// SPDX-License-Identifier: AGPL-3.0-or-later
// The mutex of one word: one at a time, and whoever sleeps is woken.
#include "base/lock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "tests/unit/tap.h"

#define THREADS 8
#define TURNS 20000u

static struct lock lock;
static unsigned turns; // by lock

static void *take_turns(void *argument)
{
    for (unsigned i = 0; i < TURNS; i++) {
        lock_take(&lock);
        unsigned before = turns;
        if (i % 64 == 0)
            sched_yield(); // so that others find it taken, also on one processor
        turns = before + 1;
        lock_drop(&lock);
    }
    return argument;
}

static void test_turns(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, take_turns, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int(turns, THREADS * TURNS, "no two threads have it at once");
    is_int(atomic_load(&lock.word), 0, "and in the end it is free");
}

static void *take_once(void *saved)
{
    errno = ENOTTY;
    lock_take(&lock);
    lock_drop(&lock);
    *(int *)saved = errno;
    return NULL;
}

static void test_sleepers(void)
{
    pthread_t threads[THREADS];
    int saved[THREADS], kept = 0;
    lock_take(&lock);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, take_once, &saved[i]);
    while (atomic_load(&lock.word) != 2)
        sched_yield();
    ok(true, "who finds it taken says so");
    errno = EXDEV;
    lock_drop(&lock);
    is_int(errno, EXDEV, "to wake somebody leaves errno as it is");
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        kept += saved[i] == ENOTTY;
    }
    is_int(kept, THREADS, "all who slept had it, and have their errno");
}

int main(void)
{
    test_turns();
    test_sleepers();
    return done_testing();
}
