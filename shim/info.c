// SPDX-License-Identifier: AGPL-3.0-or-later
// What the program is told about its GPU's memory: as total the quota, as free what is left of it or, if less, what the driver
// has left. Without a quota, the same of what nobody has reserved.
#include <limits.h>
#include <stddef.h>

#include "shim/device.h"
#include "shim/heap_memory.h"
#include "shim/memory_pools.h"

// Replaces the driver's figures for the whole GPU with the tenant's.
static void tell(struct device *device, size_t *free_bytes, size_t *total_bytes)
{
    pools_settle();
    uint64_t spare;
    struct holdings_view view = heap_memory_view(device, &spare);
    if (free_bytes)
        *free_bytes += spare;
    if (free_bytes && view.free_bytes < *free_bytes)
        *free_bytes = view.free_bytes;
    if (total_bytes && view.total_bytes < *total_bytes)
        *total_bytes = view.total_bytes;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    struct device *device = device_current();
    CUresult rc = REAL(cuMemGetInfo_v2)(free_bytes, total_bytes);
    if (rc == CUDA_SUCCESS && device)
        tell(device, free_bytes, total_bytes);
    return rc;
}

// The first version of the interface counts in 32 bits; what does not fit is reported as the largest number that does.
static unsigned int narrow(size_t bytes)
{
    return bytes > UINT_MAX ? UINT_MAX : (unsigned int)bytes;
}

CUresult cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
    size_t wide_free, wide_total;
    CUresult rc = REAL(cuMemGetInfo)(free_bytes, total_bytes);
    if (rc != CUDA_SUCCESS || !free_bytes || !total_bytes || !device_current() ||
        cuMemGetInfo_v2(&wide_free, &wide_total) != CUDA_SUCCESS)
        return rc;
    *free_bytes = narrow(wide_free);
    *total_bytes = narrow(wide_total);
    return rc;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice ordinal)
{
    CUresult rc = REAL(cuDeviceTotalMem_v2)(bytes, ordinal);
    struct device *device = device_of(ordinal);
    if (rc == CUDA_SUCCESS && device) {
        uint64_t total = device_view(device).total_bytes;
        if (total < *bytes)
            *bytes = total;
    }
    return rc;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice ordinal)
{
    size_t wide;
    CUresult rc = REAL(cuDeviceTotalMem)(bytes, ordinal);
    if (rc == CUDA_SUCCESS && cuDeviceTotalMem_v2(&wide, ordinal) == CUDA_SUCCESS)
        *bytes = narrow(wide);
    return rc;
}
