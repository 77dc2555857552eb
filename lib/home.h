// SPDX-License-Identifier: AGPL-3.0-or-later
// What the process has once, however many virtual GPUs it makes: the pool, a slot whose doorbell the agent sleeps at, and for
// each GPU the primary context that they share.
//
// Invariants
//  - Nothing happens before the first vgpu_create or vgpu_open: no driver, no pool, no thread.
//  - The home slot and its mapping stay until the process ends. The agent sleeps there, unless the preload library's agent
//    serves this library's gates. They are the process's own and belong to no virtual GPU of the API.
//  - A primary context in use is charged once: if the preload library is loaded, by it to the process's virtual GPU; otherwise
//    to one without a quota that the home slot joins, named after the process. It reduces no instance's quota.
//  - A forked child starts anew: `generation` identifies handles of the parent.
// Thread safe. Lock order: the mutex here, then the pool lock.
#ifndef VGPU_LIB_HOME_H
#define VGPU_LIB_HOME_H

#include "allocator/holdings.h"
#include "include/vgpu.h"
#include "lib/driver.h"

struct home_gpu {
    CUdevice ordinal;
    uint8_t uuid[POOL_UUID_BYTES];
    char name[POOL_NAME_BYTES];
    uint64_t bytes;
    bool mps;       // contexts made here are clients of MPS
    uint32_t users; // instances on it: the primary context is retained while there are any
    CUcontext context;
    uint64_t charged_bytes;
    struct holdings holdings; // of the home slot; pool NULL: not joined
};

extern _Atomic uint64_t home_generation __attribute__((visibility("hidden")));

// The GPU that a configuration names, with its primary context retained. Attaches the process if that has not happened. 0 or
// -errno, with the line for vgpu_detail.
int home_gpu_acquire(const char *uuid, int32_t ordinal, struct home_gpu **gpu);
void home_gpu_release(struct home_gpu *gpu);

// Opens the pool once more, for a slot of its own whose bell is the home slot's. On success the pool is locked: *lock is for
// pool_unlock.
int home_pool_claim(struct pool *pool, uint32_t *slot, int *lock);

// The name of the pool file.
int home_pool_path(char path[PATH_MAX]);

// The index of a GPU in the pool, which is locked. A new GPU is entered and its context measured.
int home_gpu_enter(struct pool *pool, const struct home_gpu *gpu);

#endif
