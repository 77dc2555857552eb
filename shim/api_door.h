// SPDX-License-Identifier: AGPL-3.0-or-later
// What libvgpu.so asks of this library where both are in one process. A virtual GPU of the API has its own gate and its own quota: what it
// launches and allocates must not be gated and charged a second time, as the process's.
//
// The one name that is exported beside the hooks. Its number changes when the structure does, so that two versions do not meet.
#ifndef VGPU_SHIM_API_DOOR_H
#define VGPU_SHIM_API_DOOR_H

#include <stdbool.h>
#include <stdint.h>

#define API_DOOR_NAME "vgpu_shim_door_1"

struct agent_service;
struct pool;

struct api_door {
    // The C library's dlsym: the real function where dlsym would find a hook.
    void *(*find)(void *handle, const char *name);
    // Whether the calling thread's launches are gated elsewhere.
    void (*exempt)(bool exempt);
    // The agent of this library, which serves the other's gates too: one thread for a process. *bell is the slot of the pool at whose
    // doorbell it sleeps. NULL: it cannot, since that pool is another one, or the other library another version.
    const struct agent_service *(*agent)(const char *version, const struct pool *pool, uint32_t *bell);
};

__attribute__((visibility("default"))) const struct api_door *vgpu_shim_door_1(void);

#endif
