// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/quiet.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

void quiet_begin(struct quiet *quiet)
{
    sigset_t raised;
    sigemptyset(&raised);
    sigaddset(&raised, SIGPIPE);
    sigaddset(&raised, SIGXFSZ);
    sigpending(&quiet->pending);
    pthread_sigmask(SIG_BLOCK, &raised, &quiet->mask);
}

void quiet_end(const struct quiet *quiet, int reason)
{
    int saved = errno, signal = reason == EPIPE ? SIGPIPE : reason == EFBIG ? SIGXFSZ : 0;
    if (signal && !sigismember(&quiet->pending, signal)) {
        sigset_t raised;
        sigemptyset(&raised);
        sigaddset(&raised, signal);
        sigtimedwait(&raised, NULL, &(struct timespec){0});
    }
    pthread_sigmask(SIG_SETMASK, &quiet->mask, NULL);
    errno = saved;
}
