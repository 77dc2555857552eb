// SPDX-License-Identifier: AGPL-3.0-or-later
// NVML tells the tenant about memory what the driver API tells it: total is the quota, used is what the virtual GPU uses. What
// concerns GPUs on which this process has no virtual GPU, or a process that has not initialised CUDA, stays as it is.
//
// NVML is never loaded here: who calls these wrappers has loaded it.
#include "shim/nvml_abi.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "shim/device.h"
#include "shim/heap_memory.h"
#include "shim/pools.h"
#include "shim/loader.h"

#define LIBRARY "libnvidia-ml.so.1"

enum nvml_entry { ENTRY_MEMORY_INFO, ENTRY_MEMORY_INFO_V2, ENTRY_UUID, ENTRY_COUNT };

static const char *const names[ENTRY_COUNT] = {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID"};

static int missing_library(void)
{
    return NVML_ERROR_LIBRARY_NOT_FOUND;
}

static int missing_function(void)
{
    return NVML_ERROR_FUNCTION_NOT_FOUND;
}

// Resolved on first use; without the library it is looked for again the next time. The library stays pinned.
static void *real(enum nvml_entry entry)
{
    static _Atomic(void *) entries[ENTRY_COUNT];
    void *function = atomic_load_explicit(&entries[entry], memory_order_acquire);
    if (function)
        return function;
    void *library = loader_library(LIBRARY);
    if (!library)
        return (void *)missing_library;
    function = loader_find(library, names[entry]);
    if (!function)
        function = (void *)missing_function;
    atomic_store_explicit(&entries[entry], function, memory_order_release);
    return function;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// NVML writes "GPU-" and the 16 bytes in the usual groups of hexadecimal digits.
static bool same_uuid(const char *text, const uint8_t uuid[POOL_UUID_BYTES])
{
    size_t digits = 0;
    if (strncmp(text, "GPU-", 4) != 0)
        return false;
    for (text += 4; *text; text++) {
        if (*text == '-')
            continue;
        if (digits == 2 * POOL_UUID_BYTES || hex_digit(*text) != (digits % 2 ? uuid[digits / 2] & 0xf : uuid[digits / 2] >> 4))
            return false;
        digits++;
    }
    return digits == 2 * POOL_UUID_BYTES;
}

// The virtual GPU's device that an NVML device is, or NULL.
static struct device *device_named_by(void *nvml_device)
{
    char uuid[NVML_UUID_BYTES] = "";
    struct device *device;
    if (!device_attached() || ((nvml_device_get_uuid *)real(ENTRY_UUID))(nvml_device, uuid, sizeof uuid) != NVML_SUCCESS)
        return NULL;
    for (int ordinal = 0; (device = device_of(ordinal)); ordinal++)
        if (same_uuid(uuid, device->uuid))
            return device;
    return NULL;
}

static void tell(struct device *device, unsigned long long *total, unsigned long long *free, unsigned long long *used)
{
    pools_settle(); // as cuMemGetInfo does: both must say the same
    uint64_t spare;
    struct holdings_view view = heap_memory_view(device, &spare);
    *total = view.total_bytes;
    *used = view.used_bytes;
    *free += spare;
    if (*free > view.free_bytes)
        *free = view.free_bytes;
}

int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory)
{
    int result = ((__typeof__(nvmlDeviceGetMemoryInfo) *)real(ENTRY_MEMORY_INFO))(device, memory);
    int saved = errno;
    struct device *ours = result == NVML_SUCCESS && memory ? device_named_by(device) : NULL;
    if (ours)
        tell(ours, &memory->total, &memory->free, &memory->used);
    errno = saved;
    return result;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct nvml_memory_v2 *memory)
{
    int result = ((__typeof__(nvmlDeviceGetMemoryInfo_v2) *)real(ENTRY_MEMORY_INFO_V2))(device, memory);
    int saved = errno;
    struct device *ours = result == NVML_SUCCESS && memory ? device_named_by(device) : NULL;
    if (ours) {
        tell(ours, &memory->total, &memory->free, &memory->used);
        memory->reserved = 0; // the driver's share is outside the quota
    }
    errno = saved;
    return result;
}
