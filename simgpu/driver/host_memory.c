// Page-locked host memory. Nothing is really locked: what counts is that copies from and to it are asynchronous.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdlib.h>
#include <sys/mman.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/stream.h"

#define ALLOC_FLAGS (CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED)
#define REGISTER_FLAGS                                                                                                         \
    (CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)

static CUresult add(struct CUctx_st *ctx, enum allocation_kind kind, void *base, size_t bytes, unsigned flags)
{
    struct allocation *allocation = calloc(1, sizeof *allocation);

    if (!allocation)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *allocation = (struct allocation){
        .base = (uintptr_t)base, .bytes = bytes, .kind = kind, .flags = flags, .device = ctx->device, .ctx = ctx};
    CUresult rc = range_insert(allocation);
    if (rc) {
        free(allocation);
        return rc;
    }
    allocation->next = ctx->allocations;
    ctx->allocations = allocation;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || !bytes || flags & ~(unsigned)ALLOC_FLAGS)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = add(ctx, ALLOCATION_HOST, base, bytes, flags | CU_MEMHOSTALLOC_DEVICEMAP);
    if (rc)
        munmap(base, bytes);
    else
        *out = base;
    return api_leave(rc);
}

CUresult cuMemAllocHost_v2(void **out, size_t bytes)
{
    return cuMemHostAlloc(out, bytes, 0);
}

static CUresult release(void *ptr, enum allocation_kind kind, CUresult unknown)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *allocation = range_find((uintptr_t)ptr);
    if (!ptr || !allocation || allocation->kind != kind || allocation->base != (uintptr_t)ptr)
        return api_leave(!ptr && kind == ALLOCATION_HOST ? CUDA_SUCCESS : unknown);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    uint64_t id = allocation->id;
    stream_wait_context_idle(allocation->ctx);
    allocation = range_find((uintptr_t)ptr);
    if (!allocation || allocation->id != id)
        return api_leave(unknown);
    memory_free(allocation);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemFreeHost(void *ptr)
{
    return release(ptr, ALLOCATION_HOST, CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemHostRegister_v2(void *ptr, size_t bytes, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!ptr || !bytes || (uintptr_t)ptr + bytes < (uintptr_t)ptr || flags & ~(unsigned)REGISTER_FLAGS)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = capture_check_unsafe();
    if (!rc)
        rc = add(ctx, ALLOCATION_REGISTERED, ptr, bytes, flags | CU_MEMHOSTREGISTER_DEVICEMAP);
    return api_leave(rc == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED : rc);
}

CUresult cuMemHostRegister(void *ptr, size_t bytes, unsigned flags)
{
    return cuMemHostRegister_v2(ptr, bytes, flags);
}

CUresult cuMemHostUnregister(void *ptr)
{
    return release(ptr, ALLOCATION_REGISTERED, ptr ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED : CUDA_ERROR_INVALID_VALUE);
}

static struct allocation *find_host(const void *ptr)
{
    struct allocation *allocation = range_find((uintptr_t)ptr);
    return allocation && (allocation->kind == ALLOCATION_HOST || allocation->kind == ALLOCATION_REGISTERED) ? allocation : NULL;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *ptr, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || flags || !find_host(ptr))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = (CUdeviceptr)(uintptr_t)ptr;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemHostGetFlags(unsigned *flags, void *ptr)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    struct allocation *allocation = find_host(ptr);
    if (!flags || !allocation)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = allocation->flags;
    return api_leave(CUDA_SUCCESS);
}
