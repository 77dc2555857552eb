// The entry points for memory pools and stream-ordered allocation.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <string.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool_internal.h"
#include "simgpu/driver/stream.h"

static bool is_pool(CUmemoryPool pool)
{
    return handle_is(pool, HANDLE_POOL) && !pool->destroyed;
}

static CUresult cuMemAllocFromPoolAsync_any(bool per_thread, CUdeviceptr *out, size_t bytes, CUmemoryPool pool, CUstream handle)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && (!out || !is_pool(pool)))
        rc = CUDA_ERROR_INVALID_VALUE;
    // Memory nodes of graphs are not part of the simulator.
    if (!rc && stream->capture)
        rc = CUDA_ERROR_NOT_SUPPORTED;
    return api_leave(rc ? rc : pool_alloc(pool, stream, bytes, out));
}

static CUresult cuMemAllocAsync_any(bool per_thread, CUdeviceptr *out, size_t bytes, CUstream handle)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    // The pool is that of the stream's device, which need not be the current one.
    rc = stream_resolve(per_thread, handle, &stream);
    CUmemoryPool pool = rc ? NULL : stream->ctx->device->current_pool;
    rc = api_leave(rc);
    return rc ? rc : cuMemAllocFromPoolAsync_any(per_thread, out, bytes, pool, handle);
}

static CUresult cuMemFreeAsync_any(bool per_thread, CUdeviceptr ptr, CUstream handle)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (rc || !ptr)
        return api_leave(rc ? rc : CUDA_ERROR_INVALID_VALUE);
    struct allocation *allocation = range_find(ptr);
    if (!allocation || allocation->base != ptr ||
        (allocation->kind != ALLOCATION_POOL && allocation->kind != ALLOCATION_DEVICE))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (stream->capture)
        return api_leave(CUDA_ERROR_NOT_SUPPORTED);
    if (allocation->kind == ALLOCATION_POOL)
        return api_leave(pool_free_async(allocation, stream));
    // Memory of the synchronous kind may be freed here too; its blocks go back when the stream has got there.
    uint64_t id = allocation->id;
    stream_wait_idle(stream);
    allocation = range_find(ptr);
    if (!allocation || allocation->id != id)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    memory_free(allocation);
    return api_leave(CUDA_SUCCESS);
}

TWIN_API(cuMemAllocAsync, _ptsz, (CUdeviceptr * ptr, size_t bytes, CUstream stream), ptr, bytes, stream)
TWIN_API(cuMemAllocFromPoolAsync, _ptsz, (CUdeviceptr * ptr, size_t bytes, CUmemoryPool pool, CUstream stream), ptr, bytes,
         pool, stream)
TWIN_API(cuMemFreeAsync, _ptsz, (CUdeviceptr ptr, CUstream stream), ptr, stream)

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *properties)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !properties || properties->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE || properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return api_leave(CUDA_ERROR_NOT_SUPPORTED);
    struct device *device = device_get(properties->location.id);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUmemPoolHandle_st *pool = pool_new(device);
    if (!pool)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    pool->max_bytes = properties->maxSize;
    *out = pool;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_pool(pool) || pool == pool->device->default_pool)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (pool->device->current_pool == pool)
        pool->device->current_pool = pool->device->default_pool;
    pool->destroyed = true;
    pool_release(pool);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_pool(pool))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    pool_trim(pool, keep);
    return api_leave(CUDA_SUCCESS);
}

// The place of a 64-bit attribute in the pool, NULL if it is not one.
static uint64_t *attribute_of(struct CUmemPoolHandle_st *pool, CUmemPool_attribute attribute)
{
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        return &pool->release_threshold;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        return &pool->reserved;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return &pool->reserved_high;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        return &pool->used;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return &pool->used_high;
    default:
        return NULL;
    }
}

static int *policy_of(struct CUmemPoolHandle_st *pool, CUmemPool_attribute attribute)
{
    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        return &pool->reuse[0];
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        return &pool->reuse[1];
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        return &pool->reuse[2];
    default:
        return NULL;
    }
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_pool(pool) || !value)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (policy_of(pool, attribute))
        memcpy(value, policy_of(pool, attribute), sizeof(int));
    else if (attribute_of(pool, attribute))
        memcpy(value, attribute_of(pool, attribute), sizeof(uint64_t));
    else
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc);
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    uint64_t wanted;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_pool(pool) || !value)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (policy_of(pool, attribute)) {
        memcpy(policy_of(pool, attribute), value, sizeof(int));
        return api_leave(CUDA_SUCCESS);
    }
    memcpy(&wanted, value, sizeof wanted);
    if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
        pool->release_threshold = wanted;
    // The high-water marks can only be reset, to what they mark.
    else if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH && wanted == 0)
        pool->reserved_high = pool->reserved;
    else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH && wanted == 0)
        pool->used_high = pool->used;
    else
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc);
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *map, size_t count)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_pool(pool) || (count && !map))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // Every device reaches every pool here; only taking the owner's own access away is refused.
    for (size_t i = 0; i < count && !rc; i++)
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || !device_get(map[i].location.id) ||
            (map[i].location.id == pool->device->ordinal && map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE))
            rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc);
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool, CUmemLocation *location)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!flags || !location || !is_pool(pool) || location->type != CU_MEM_LOCATION_TYPE_DEVICE || !device_get(location->id))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return api_leave(CUDA_SUCCESS);
}

static CUresult get_pool(CUmemoryPool *out, CUdevice dev, bool current)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!out || !device)
        return api_leave(out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE);
    *out = current ? device->current_pool : device->default_pool;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice dev)
{
    return get_pool(out, dev, false);
}

CUresult cuDeviceGetMemPool(CUmemoryPool *out, CUdevice dev)
{
    return get_pool(out, dev, true);
}

CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    if (!is_pool(pool) || pool->device != device)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    device->current_pool = pool;
    return api_leave(CUDA_SUCCESS);
}

static CUresult check_location(const CUmemLocation *location, CUmemAllocationType type)
{
    if (!location || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    return type == CU_MEM_ALLOCATION_TYPE_PINNED ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool *out, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult rc = check_location(location, type);
    return rc ? rc : get_pool(out, location->id, false);
}

CUresult cuMemGetMemPool(CUmemoryPool *out, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult rc = check_location(location, type);
    return rc ? rc : get_pool(out, location->id, true);
}

CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    CUresult rc = check_location(location, type);
    return rc ? rc : cuDeviceSetMemPool(location->id, pool);
}
