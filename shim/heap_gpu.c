// SPDX-License-Identifier: AGPL-3.0-or-later
// What a heap needs from the GPU, through the driver's virtual memory management. Calls are made in the relaxed capture mode,
// since another thread may begin a capture at any time.
#include <errno.h>

#include "shim/context_table.h"
#include "shim/gpu_ops.h"
#include "shim/heap_memory.h"
#include "shim/memory_pools.h"
#include "shim/stream_table.h"

static int error_of(CUresult result)
{
    return result == CUDA_SUCCESS ? 0 : result == CUDA_ERROR_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

static int range_reserve(void *gpu, uint64_t bytes, uint64_t *address)
{
    (void)gpu;
    CUdeviceptr pointer = 0;
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemAddressReserve)(&pointer, bytes, HEAP_BLOCK_BYTES, 0, 0);
    capture_restore(mode);
    *address = pointer;
    return error_of(rc);
}

static void range_release(void *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    CUstreamCaptureMode mode = capture_relax();
    REAL(cuMemAddressFree)(address, bytes);
    capture_restore(mode);
}

// A heap's own unused memory is its own business: it must not be called from here.
static bool memory_fits(void *gpu, uint64_t bytes)
{
    struct device *device = ((struct heap_place *)gpu)->device;
    const struct holdings *holdings = &device->holdings;
    return holdings_may_fit(holdings, bytes) ||
           ((pools_reclaim(device) || holdings_reap(holdings)) && holdings_may_fit(holdings, bytes));
}

static int memory_create(void *gpu, uint64_t bytes, uint64_t *handle)
{
    struct device *device = ((struct heap_place *)gpu)->device;
    CUmemGenericAllocationHandle made;
    uint64_t deadline = 0;
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->ordinal}};
    int rc = holdings_take(&device->holdings, bytes);
    if (rc == -ENOMEM && pools_reclaim(device))
        rc = holdings_take(&device->holdings, bytes);
    if (rc)
        return rc;
    CUstreamCaptureMode mode = capture_relax();
    CUresult result;
    do
        result = REAL(cuMemCreate)(&made, bytes, &properties, 0);
    while (device_retry(device, result, &deadline));
    capture_restore(mode);
    if (result != CUDA_SUCCESS)
        holdings_give(&device->holdings, bytes);
    else
        *handle = made;
    return error_of(result);
}

static void memory_release(void *gpu, uint64_t handle, uint64_t bytes)
{
    struct device *device = ((struct heap_place *)gpu)->device;
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemRelease)(handle);
    capture_restore(mode);
    if (rc == CUDA_SUCCESS) // else it is still there
        holdings_give(&device->holdings, bytes);
}

static int map(void *gpu, uint64_t address, uint64_t bytes, uint64_t handle)
{
    (void)gpu;
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemMap)(address, bytes, 0, handle, 0);
    capture_restore(mode);
    return error_of(rc);
}

static int map_open(void *gpu, uint64_t address, uint64_t bytes)
{
    const struct device *device = ((struct heap_place *)gpu)->device;
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->ordinal},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemSetAccess)(address, bytes, &access, 1);
    capture_restore(mode);
    return error_of(rc);
}

static int unmap(void *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemUnmap)(address, bytes);
    capture_restore(mode);
    return error_of(rc);
}

// Heaps here always allocate and free for all streams.
static void *mark_put(void *gpu, void *stream)
{
    (void)stream;
    return gpu_ops_mark_context(((struct heap_place *)gpu)->context);
}

static bool mark_done(void *gpu, void *mark)
{
    return gpu_ops_cuda.mark_done(gpu, mark);
}

static void drop_mark(void *gpu, void *mark)
{
    (void)gpu;
    mark_drop(mark);
}

const struct heap_gpu heap_gpu_cuda = {
    .range_reserve = range_reserve,
    .range_release = range_release,
    .memory_fits = memory_fits,
    .memory_create = memory_create,
    .memory_release = memory_release,
    .map = map,
    .map_open = map_open,
    .unmap = unmap,
    .mark_put = mark_put,
    .mark_done = mark_done,
    .mark_drop = drop_mark,
};
