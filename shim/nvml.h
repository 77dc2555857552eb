// SPDX-License-Identifier: AGPL-3.0-or-later
// NVML tells a tenant about its virtual GPU what the driver API tells it: the quota as the total, what the virtual GPU uses as used, its
// share of the GPU's time as the utilization, its processes and no others. What concerns other GPUs stays as it is.
//
// Invariants
//  - The real function is asked first, and its errors are passed on. NVML is never loaded here: who calls these wrappers has loaded it.
//  - A device is recognised by its UUID, so it makes no difference how the program came by its handle, and a MIG instance is a device
//    like any other.
//  - A process that has not initialised CUDA, nvidia-smi above all, is told of the virtual GPU that its options name, or of the quota that
//    they set and no use. It reserves nothing, joins nothing and writes nothing.
// Thread safe.
#ifndef VGPU_SHIM_NVML_H
#define VGPU_SHIM_NVML_H

#include "shim/nvml_abi.h"

#include "shim/device.h"

enum nvml_id {
#define NVML_HOOK(name) NVML_##name,
#include "shim/hooks.def"
    NVML_HOOK_COUNT,
    NVML_BEFORE_USED = NVML_HOOK_COUNT - 1,
#define NVML_USE(name) NVML_##name,
#include "shim/used.def"
    NVML_COUNT
};

// The real function, or a stand-in that returns NVML's error for one that is missing.
void *nvml_entry(enum nvml_id id);
#define NVML_REAL(name) ((__typeof__(name) *)nvml_entry(NVML_##name))

// What this process is on one device.
struct nvml_tenant {
    struct device *device; // where it is attached, else NULL
    struct pool *pool;     // of its virtual GPU; NULL: it has none, only a quota
    uint32_t gpu, vgpu;    // in the pool
    uint64_t quota_bytes;  // where it has no virtual GPU
    struct nvml_onlooker *onlooker;
};

// false: the device is none of this process's virtual GPUs. Else to be closed. Keeps errno.
bool nvml_tenant_open(struct nvml_tenant *tenant, void *nvml_device);
void nvml_tenant_close(struct nvml_tenant *tenant);

// The memory of the tenant's virtual GPU; *spare_bytes of what the driver has in use is free to the tenant (shim/heap_memory.h).
struct holdings_view nvml_tenant_memory(const struct nvml_tenant *tenant, uint64_t *spare_bytes);

// A process of the tenant, alive.
struct nvml_member {
    unsigned int pid; // as its own PID namespace numbers it
    uint64_t used_bytes;
};

// The processes of the tenant, in a list to be freed. Returns how many, or -ENOMEM.
int nvml_tenant_members(const struct nvml_tenant *tenant, struct nvml_member **members);

// Moves those of `count` entries of `bytes` each to the front that belong to processes of the tenant, and returns how many they are.
// pid_at: where an entry has the process's number.
unsigned int nvml_keep_members(const struct nvml_tenant *tenant, void *entries, unsigned int count, size_t bytes,
                               size_t pid_at);

// Forgets past shares of the GPU's time, for a forked child. shim/nvml_usage.c.
void nvml_reset(void);

#endif
