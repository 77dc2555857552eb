// The entry points for contexts.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"
#include "simgpu/state/state.h"

#define CONTEXT_FLAGS ((unsigned)CU_CTX_FLAGS_MASK)

static CUresult create(CUcontext *out, unsigned flags, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!out || flags & ~CONTEXT_FLAGS)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    struct CUctx_st *ctx = context_new(device, false);
    if (!ctx)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    rc = context_activate(ctx, flags);
    if (!rc) {
        context_push(ctx);
        *out = ctx;
    }
    // A context that never lived is on no stack; it stays allocated like any other dead one.
    return api_leave(rc);
}

CUresult cuCtxCreate(CUcontext *ctx, unsigned flags, CUdevice dev)
{
    return create(ctx, flags, dev);
}

CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned flags, CUdevice dev)
{
    return create(ctx, flags, dev);
}

CUresult cuCtxCreate_v3(CUcontext *ctx, CUexecAffinityParam *params, int count, unsigned flags, CUdevice dev)
{
    // Execution affinity exists under MPS only.
    if (params && count)
        return api_ready() ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : CUDA_ERROR_NOT_INITIALIZED;
    return create(ctx, flags, dev);
}

CUresult cuCtxCreate_v4(CUcontext *ctx, CUctxCreateParams *params, unsigned flags, CUdevice dev)
{
    if (params && (params->numExecAffinityParams || params->cigParams))
        return api_ready() ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_NOT_INITIALIZED;
    return create(ctx, flags, dev);
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(ctx, HANDLE_CONTEXT))
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (ctx->primary || ctx->base)
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (context_top() == ctx)
        context_pop();
    context_shut_down(ctx);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxAttach(CUcontext *out, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || flags)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (ctx->primary)
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    ctx->attached++;
    *out = ctx;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxDetach(CUcontext ctx)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(ctx, HANDLE_CONTEXT) || ctx->primary || ctx->base)
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (--ctx->attached)
        return api_leave(CUDA_SUCCESS);
    if (context_top() == ctx)
        context_pop();
    context_shut_down(ctx);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxDestroy(CUcontext ctx)
{
    return cuCtxDestroy_v2(ctx);
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(ctx, HANDLE_CONTEXT))
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    context_push(ctx);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent(CUcontext ctx)
{
    return cuCtxPushCurrent_v2(ctx);
}

CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct CUctx_st *ctx = context_pop();
    if (ctx && out)
        *out = ctx;
    return api_leave(ctx ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT);
}

CUresult cuCtxPopCurrent(CUcontext *out)
{
    return cuCtxPopCurrent_v2(out);
}

CUresult cuCtxSetCurrent(CUcontext ctx)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (ctx && !handle_is(ctx, HANDLE_CONTEXT))
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    context_set_top(ctx);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *out)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = context_top();
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetDevice_v2(CUdevice *out, CUcontext handle)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = out ? context_from_handle(handle, &ctx) : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *out = ctx->device->ordinal;
    return api_leave(rc);
}

CUresult cuCtxGetDevice(CUdevice *out)
{
    return cuCtxGetDevice_v2(out, NULL);
}

CUresult cuCtxSynchronize_v2(CUcontext handle)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = context_from_handle(handle, &ctx);
    if (!rc)
        rc = capture_forbid_context(ctx);
    if (!rc)
        rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    stream_wait_context_idle(ctx);
    pool_trim_device(ctx->device);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void)
{
    return cuCtxSynchronize_v2(NULL);
}

CUresult cuCtxGetFlags(unsigned *flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!flags)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = ctx->flags;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxSetFlags(unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (flags & ~CONTEXT_FLAGS)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    ctx->flags = flags;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long *id)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = id ? context_from_handle(handle, &ctx) : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *id = ctx->id;
    return api_leave(rc);
}

CUresult cuCtxGetApiVersion(CUcontext handle, unsigned *version)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = version ? context_from_handle(handle, &ctx) : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *version = ctx->api_version;
    return api_leave(rc);
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if ((unsigned)limit >= CU_LIMIT_MAX)
        return api_leave(CUDA_ERROR_UNSUPPORTED_LIMIT);
    // The heap is taken with the limit that is set when a kernel first uses it.
    if (limit == CU_LIMIT_MALLOC_HEAP_SIZE && ctx->grown_bytes[GROWTH_HEAP])
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (limit == CU_LIMIT_MALLOC_HEAP_SIZE && value > state_file()->capacity_bytes)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    if (limit == CU_LIMIT_STACK_SIZE) {
        rc = context_grow_local(ctx, value);
        if (rc)
            return api_leave(rc);
        ctx->frame_bytes = 0;
    }
    ctx->limits[limit] = value;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!value)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if ((unsigned)limit >= CU_LIMIT_MAX)
        return api_leave(CUDA_ERROR_UNSUPPORTED_LIMIT);
    *value = ctx->limits[limit];
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCacheConfig(CUfunc_cache *config)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!config)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *config = ctx->cache_config;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    ctx->cache_config = config;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!config)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *config = ctx->shared_config;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    ctx->shared_config = config;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = DEVICE_GREATEST_PRIORITY;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuCtxResetPersistingL2Cache(void)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);
    return rc ? rc : api_leave(CUDA_SUCCESS);
}
