// The entry points that allocate and free device memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"
#include "simgpu/state/state.h"

#define PITCH_ALIGN 512u

static CUresult alloc_checked(enum allocation_kind kind, size_t bytes, unsigned flags, CUdeviceptr *out)
{
    struct CUctx_st *ctx;
    struct allocation *allocation;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = capture_check_unsafe();
    if (!rc)
        rc = memory_alloc(ctx, kind, bytes, &allocation);
    if (!rc) {
        allocation->flags = flags;
        *out = allocation->base;
    }
    return api_leave(rc);
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    if (!out)
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    return alloc_checked(ALLOCATION_DEVICE, bytes, 0, out);
}

CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned flags)
{
    if (!out || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    return alloc_checked(ALLOCATION_MANAGED, bytes, flags, out);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height, unsigned element_bytes)
{
    size_t row, bytes;

    if (!out || !pitch || !width || !height || (element_bytes != 4 && element_bytes != 8 && element_bytes != 16))
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    if (__builtin_add_overflow(width, PITCH_ALIGN - 1, &row))
        return CUDA_ERROR_INVALID_VALUE;
    row &= ~(size_t)(PITCH_ALIGN - 1);
    if (__builtin_mul_overflow(row, height, &bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = alloc_checked(ALLOCATION_DEVICE, bytes, 0, out);
    if (!rc)
        *pitch = row;
    return rc;
}

CUresult cuMemFree_v2(CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!ptr)
        return api_leave(CUDA_SUCCESS);
    struct allocation *allocation = range_find(ptr);
    if (!allocation || allocation->base != ptr ||
        (allocation->kind != ALLOCATION_DEVICE && allocation->kind != ALLOCATION_MANAGED &&
         allocation->kind != ALLOCATION_POOL && allocation->kind != ALLOCATION_GRAPH &&
         allocation->kind != ALLOCATION_IMPORTED))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    // Work that may still use the memory ends first, as it does on a real GPU.
    uint64_t id = allocation->id;
    stream_wait_all_idle();
    allocation = range_find(ptr);
    if (!allocation || allocation->id != id)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (allocation->kind == ALLOCATION_POOL)
        pool_free_now(allocation);
    else if (allocation->kind == ALLOCATION_GRAPH)
        rc = graph_memory_free(allocation, NULL);
    else if (allocation->kind == ALLOCATION_IMPORTED)
        rc = imported_free(allocation);
    else
        memory_free(allocation);
    return api_leave(rc);
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    state_sweep();
    uint64_t capacity = state_file()->capacity_bytes, used = state_used(ctx->device->index);
    if (free)
        *free = used < capacity ? capacity - used : 0;
    if (total)
        *total = capacity;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    struct allocation *allocation = range_find(ptr);
    if (!allocation || allocation->kind == ALLOCATION_REGISTERED)
        return api_leave(CUDA_ERROR_NOT_FOUND);
    if (base)
        *base = allocation->base;
    if (bytes)
        *bytes = allocation->bytes;
    return api_leave(CUDA_SUCCESS);
}
