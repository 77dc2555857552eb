// SPDX-License-Identifier: AGPL-3.0-or-later
// Thread cancellation. The driver's functions are not cancellation points, so those of the library must not become any: a
// thread cancelled in a sleep or an open(2) of ours would leave locks held, descriptors open and counts too high. Code that can
// reach a cancellation point while it holds something runs between cancel_disable and cancel_restore.
#ifndef VGPU_BASE_CANCEL_H
#define VGPU_BASE_CANCEL_H

#include <pthread.h>

// Returns the argument for cancel_restore. Calls nest.
static inline int cancel_disable(void)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

static inline void cancel_restore(int before)
{
    pthread_setcancelstate(before, NULL);
}

#endif
