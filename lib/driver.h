// SPDX-License-Identifier: AGPL-3.0-or-later
// The driver, as the library reaches it: REAL() of shim/hooks.h, past the preload library if that is loaded too.
//
// Invariants
//  - libcuda.so.1 is loaded by driver_open and not before; this library has no NEEDED entry for it. It stays loaded.
//  - This library is not alone in attaching the process to CUDA: it requests cuInit and the primary context as the program
//    itself would, through the hooks if there are hooks. So both libraries know the context, and it is charged once.
// Thread safe once driver_open has succeeded.
#ifndef VGPU_LIB_DRIVER_H
#define VGPU_LIB_DRIVER_H

#include "base/error.h"
#include "shim/api_door.h"
#include "shim/hooks.h"

struct driver {
    const struct api_door *door; // NULL: the preload library is not there
    __typeof__(cuInit) *init;
    __typeof__(cuDevicePrimaryCtxRetain) *primary_retain;
    __typeof__(cuDevicePrimaryCtxRelease_v2) *primary_release;
};

extern struct driver driver __attribute__((visibility("hidden")));

// Loads the driver and finds its functions. One call at a time. Returns 0 or -ENODEV.
int driver_open(struct error *error);

// Says whether this thread's launches by other means pass the gate of one of our virtual GPUs.
static inline void driver_exempt(bool exempt)
{
    if (driver.door)
        driver.door->exempt(exempt);
}

#endif
