// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/nvml.h"

#include <stdatomic.h>

#include "shim/loader.h"

#define LIBRARY "libnvidia-ml.so.1"

// In the order of enum nvml_id.
static const char *const names[NVML_COUNT] = {
#define NVML_HOOK(name) #name,
#include "shim/hooks.def"
#define NVML_USE(name) #name,
#include "shim/used.def"
};

static int missing_library(void)
{
    return NVML_ERROR_LIBRARY_NOT_FOUND;
}

static int missing_function(void)
{
    return NVML_ERROR_FUNCTION_NOT_FOUND;
}

// Resolved on first use; if the library is missing, it is looked for again the next time. It stays pinned.
void *nvml_entry(enum nvml_id id)
{
    static _Atomic(void *) entries[NVML_COUNT];
    void *function = atomic_load_explicit(&entries[id], memory_order_acquire);
    if (function)
        return function;
    void *library = loader_library(LIBRARY);
    if (!library)
        return (void *)missing_library;
    function = loader_find(library, names[id]);
    if (!function)
        function = (void *)missing_function;
    atomic_store_explicit(&entries[id], function, memory_order_release);
    return function;
}

static void tell(const struct nvml_tenant *tenant, unsigned long long *total, unsigned long long *free,
                 unsigned long long *used)
{
    uint64_t spare;
    struct holdings_view view = nvml_tenant_memory(tenant, &spare);
    *total = view.total_bytes;
    *used = view.used_bytes;
    *free += spare;
    if (*free > view.free_bytes)
        *free = view.free_bytes;
}

int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory)
{
    struct nvml_tenant tenant;
    int result = NVML_REAL(nvmlDeviceGetMemoryInfo)(device, memory);
    if (result == NVML_SUCCESS && memory && nvml_tenant_open(&tenant, device)) {
        tell(&tenant, &memory->total, &memory->free, &memory->used);
        nvml_tenant_close(&tenant);
    }
    return result;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct nvml_memory_v2 *memory)
{
    struct nvml_tenant tenant;
    int result = NVML_REAL(nvmlDeviceGetMemoryInfo_v2)(device, memory);
    if (result == NVML_SUCCESS && memory && nvml_tenant_open(&tenant, device)) {
        tell(&tenant, &memory->total, &memory->free, &memory->used);
        memory->reserved = 0; // the driver's share is outside the quota
        nvml_tenant_close(&tenant);
    }
    return result;
}
