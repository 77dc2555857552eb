// SPDX-License-Identifier: AGPL-3.0-or-later
// What libvgpu.so needs from this library when both are in one process. A virtual GPU of the API has its own gate and its own
// quota: what it launches and allocates must not be gated and charged a second time as the process's.
//
// This is the only exported name besides the hooks. Its number changes with the structure, so that different versions do not
// meet.
#ifndef VGPU_SHIM_API_DOOR_H
#define VGPU_SHIM_API_DOOR_H

#include <stdbool.h>
#include <stdint.h>

#define API_DOOR_NAME "vgpu_shim_door_1"

struct agent_service;
struct pool;

struct api_door {
    // The C library's dlsym: finds the real function where dlsym would find a hook.
    void *(*find)(void *handle, const char *name);
    // Says whether the calling thread's launches are gated elsewhere.
    void (*exempt)(bool exempt);
    // The agent of this library, which serves the other library's gates too: one thread per process. *bell is the pool slot at
    // whose doorbell it sleeps. NULL: it cannot, since the pool or the version of the other library differs.
    const struct agent_service *(*agent)(const char *version, const struct pool *pool, uint32_t *bell);
};

__attribute__((visibility("default"))) const struct api_door *vgpu_shim_door_1(void);

#endif
