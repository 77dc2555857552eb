// SPDX-License-Identifier: AGPL-3.0-or-later
// The driver, as the library reaches it: REAL() of shim/hooks.h, past the preload library where that is loaded too.
//
// Invariants
//  - libcuda.so.1 is loaded by driver_open and not before; this library has no NEEDED entry for it. It stays loaded.
//  - Whether and how the process is attached to CUDA is not this library's business alone: cuInit and the primary context are asked for
//    as the program itself would, through the hooks where there are hooks. So the context is known to both and charged once.
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

// Whether this thread's launches by other means pass the gate of one of our virtual GPUs.
static inline void driver_exempt(bool exempt)
{
    if (driver.door)
        driver.door->exempt(exempt);
}

#endif
