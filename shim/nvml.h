// SPDX-License-Identifier: AGPL-3.0-or-later
// NVML tells a tenant the same about its virtual GPU as the driver API: the quota as the total, the virtual GPU's use as used,
// its share of the GPU's time as the utilization, its processes and no others. Answers about other GPUs are unchanged.
//
// Invariants
//  - The real function is asked first, and its errors are passed on. NVML is never loaded here: a program that calls these
//    wrappers has loaded it.
//  - A device is recognised by its UUID, so it makes no difference how the program obtained its handle, and a MIG instance is a
//    device like any other.
//  - A process that has not initialised CUDA, above all nvidia-smi, is told of the virtual GPU that its options name, or else
//    of the quota that they set, with no use. It reserves nothing, joins nothing and writes nothing.
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

// The real function, or a stand-in that returns NVML's error for a missing function.
void *nvml_entry(enum nvml_id id);
#define NVML_REAL(name) ((__typeof__(name) *)nvml_entry(NVML_##name))

// This process's virtual GPU, or quota, on one device.
struct nvml_tenant {
    struct device *device; // if it is attached, else NULL
    struct pool *pool;     // of its virtual GPU; NULL: it has none, only a quota
    uint32_t gpu, vgpu;    // in the pool
    uint64_t quota_bytes;  // if it has no virtual GPU
    struct nvml_onlooker *onlooker;
};

// false: the device is not one of this process's virtual GPUs. Otherwise the tenant must be closed. Preserves errno.
bool nvml_tenant_open(struct nvml_tenant *tenant, void *nvml_device);
void nvml_tenant_close(struct nvml_tenant *tenant);

// The memory of the tenant's virtual GPU; *spare_bytes of what the driver reports in use is free to the tenant
// (shim/heap_memory.h).
struct holdings_view nvml_tenant_memory(const struct nvml_tenant *tenant, uint64_t *spare_bytes);

// A live process of the tenant.
struct nvml_member {
    unsigned int pid; // as its own PID namespace numbers it
    uint64_t used_bytes;
};

// The processes of the tenant, in a list to be freed. Returns how many, or -ENOMEM.
int nvml_tenant_members(const struct nvml_tenant *tenant, struct nvml_member **members);

// Among `count` entries of `bytes` each, moves those of the tenant's processes to the front, and returns how many they are.
// pid_at: the offset of the process id in an entry.
unsigned int nvml_keep_members(const struct nvml_tenant *tenant, void *entries, unsigned int count, size_t bytes,
                               size_t pid_at);

// Forgets earlier shares of the GPU's time, for a forked child. shim/nvml_usage.c.
void nvml_reset(void);

#endif
