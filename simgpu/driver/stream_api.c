// The entry points for streams, except capture and memory operations.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"

CUresult cuStreamCreateWithPriority(CUstream *out, unsigned flags, int priority)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = stream_new(ctx, flags, priority);
    if (*out)
        (*out)->green = context_top()->base ? context_top() : NULL;
    return api_leave(*out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuStreamCreate(CUstream *out, unsigned flags)
{
    return cuStreamCreateWithPriority(out, flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    // The default streams are not the program's to destroy.
    if (!handle_is(stream, HANDLE_STREAM) || stream->destroyed || stream->legacy || stream->thread_id)
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    capture_drop_stream(stream);
    handle_remove(stream);
    stream->destroyed = true;
    if (!stream->head && !stream->waiters)
        stream_free(stream);
    else
        api_progress();
    return api_leave(CUDA_SUCCESS);
}

CUresult cuStreamDestroy(CUstream stream)
{
    return cuStreamDestroy_v2(stream);
}

static CUresult cuStreamSynchronize_any(bool per_thread, CUstream handle)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc)
        rc = capture_forbid_stream(stream);
    if (!rc)
        rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    struct device *device = stream->ctx->device;
    stream_wait_idle(stream);
    pool_trim_device(device);
    return api_leave(CUDA_SUCCESS);
}

static CUresult cuStreamQuery_any(bool per_thread, CUstream handle)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc)
        rc = capture_forbid_stream(stream);
    if (!rc)
        rc = capture_check_unsafe();
    if (!rc && !stream_is_idle(stream))
        rc = CUDA_ERROR_NOT_READY;
    return api_leave(rc);
}

TWIN_API(cuStreamSynchronize, _ptsz, (CUstream stream), stream)
TWIN_API(cuStreamQuery, _ptsz, (CUstream stream), stream)

// The getters differ only in the value they hand out.
#define GETTER(name, type, expression)                                                                                         \
    static CUresult name##_any(bool per_thread, CUstream handle, type *out)                                                    \
    {                                                                                                                          \
        struct CUstream_st *stream;                                                                                            \
        CUresult rc = api_enter();                                                                                             \
        if (rc)                                                                                                                \
            return rc;                                                                                                         \
        rc = out ? stream_resolve(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;                                     \
        if (!rc)                                                                                                               \
            *out = (expression);                                                                                               \
        return api_leave(rc);                                                                                                  \
    }                                                                                                                          \
    TWIN_API(name, _ptsz, (CUstream stream, type * out), stream, out)

GETTER(cuStreamGetPriority, int, stream->priority)
GETTER(cuStreamGetFlags, unsigned, stream->flags)
GETTER(cuStreamGetId, unsigned long long, stream->id)
GETTER(cuStreamGetCtx, CUcontext, stream->green ? stream->green : stream->ctx)
GETTER(cuStreamGetDevice, CUdevice, stream->ctx->device->ordinal)

static CUresult cuStreamGetCtx_v2_any(bool per_thread, CUstream stream, CUcontext *ctx, CUgreenCtx *green)
{
    CUresult rc = cuStreamGetCtx_any(per_thread, stream, ctx);
    if (!rc && green)
        *green = NULL;
    return rc;
}

TWIN_API(cuStreamGetCtx_v2, _ptsz, (CUstream stream, CUcontext *ctx, CUgreenCtx *green), stream, ctx, green)

static CUresult submit_host(bool per_thread, CUstream handle, struct op *op)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    // Callbacks of the old kind cannot be part of a graph.
    if (!rc && op->host.callback)
        rc = capture_forbid_stream(stream);
    op->host.stream = handle;
    return api_leave(rc ? rc : stream_submit_bounded(stream, op));
}

static CUresult cuLaunchHostFunc_any(bool per_thread, CUstream stream, CUhostFn function, void *data)
{
    struct op op = {.kind = OP_HOST, .host = {.function = function, .data = data}};
    return function ? submit_host(per_thread, stream, &op) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult cuStreamAddCallback_any(bool per_thread, CUstream stream, CUstreamCallback callback, void *data, unsigned flags)
{
    struct op op = {.kind = OP_HOST, .host = {.callback = callback, .data = data}};
    return callback && !flags ? submit_host(per_thread, stream, &op) : CUDA_ERROR_INVALID_VALUE;
}

TWIN_API(cuLaunchHostFunc, _ptsz, (CUstream stream, CUhostFn function, void *data), stream, function, data)
TWIN_API(cuStreamAddCallback, _ptsz, (CUstream stream, CUstreamCallback callback, void *data, unsigned flags), stream, callback,
         data, flags)

static CUresult cuStreamGetAttribute_any(bool per_thread, CUstream handle, CUstreamAttrID attribute, CUstreamAttrValue *value)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = value ? stream_resolve(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    if (rc)
        return api_leave(rc);
    *value = (CUstreamAttrValue){0};
    if (attribute == CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY)
        value->syncPolicy = CU_SYNC_POLICY_AUTO;
    else if (attribute == CU_STREAM_ATTRIBUTE_PRIORITY)
        value->priority = stream->priority;
    else if (attribute != CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW)
        rc = CUDA_ERROR_NOT_SUPPORTED;
    return api_leave(rc);
}

static CUresult cuStreamSetAttribute_any(bool per_thread, CUstream handle, CUstreamAttrID attribute,
                                         const CUstreamAttrValue *value)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = value ? stream_resolve(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    if (!rc && attribute == CU_STREAM_ATTRIBUTE_PRIORITY)
        stream->priority = stream_clamp_priority(value->priority);
    // Caching and the way of waiting make no difference that the simulator shows.
    else if (!rc && attribute != CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW &&
             attribute != CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY)
        rc = CUDA_ERROR_NOT_SUPPORTED;
    return api_leave(rc);
}

static CUresult cuStreamCopyAttributes_any(bool per_thread, CUstream dst, CUstream src)
{
    struct CUstream_st *to, *from;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, dst, &to);
    if (!rc)
        rc = stream_resolve(per_thread, src, &from);
    if (!rc)
        to->priority = from->priority;
    return api_leave(rc);
}

static CUresult cuStreamAttachMemAsync_any(bool per_thread, CUstream handle, CUdeviceptr ptr, size_t length, unsigned flags)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    (void)length;
    if (rc)
        return rc;
    rc = ptr && flags ? stream_resolve(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc);
}

TWIN_API(cuStreamGetAttribute, _ptsz, (CUstream stream, CUstreamAttrID attribute, CUstreamAttrValue *value), stream, attribute,
         value)
TWIN_API(cuStreamSetAttribute, _ptsz, (CUstream stream, CUstreamAttrID attribute, const CUstreamAttrValue *value), stream,
         attribute, value)
TWIN_API(cuStreamCopyAttributes, _ptsz, (CUstream dst, CUstream src), dst, src)
TWIN_API(cuStreamAttachMemAsync, _ptsz, (CUstream stream, CUdeviceptr ptr, size_t length, unsigned flags), stream, ptr, length,
         flags)
