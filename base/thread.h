// SPDX-License-Identifier: AGPL-3.0-or-later
// The library's own threads, in other people's processes.
#ifndef VGPU_BASE_THREAD_H
#define VGPU_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>

// As pthread_create, with all signals blocked: the thread never handles a signal of the program. Returns 0 or an errno value.
static inline int thread_create_quiet(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // the thread inherits it
    int rc = pthread_create(thread, attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

#endif
