// Streams.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

#include <stdlib.h>

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return DRIVER(LEGACY, cuStreamCreate, stream, CU_STREAM_DEFAULT);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return DRIVER(LEGACY, cuStreamCreate, stream, flags);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    return DRIVER(LEGACY, cuStreamCreateWithPriority, stream, flags, priority);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return DRIVER(LEGACY, cuStreamDestroy, stream);
}

static cudaError_t cudaStreamSynchronize_any(const struct driver *table, cudaStream_t stream)
{
    return DRIVER(table, cuStreamSynchronize, stream);
}
TWIN(cudaStreamSynchronize, _ptsz, (cudaStream_t stream), stream)

static cudaError_t cudaStreamQuery_any(const struct driver *table, cudaStream_t stream)
{
    return DRIVER(table, cuStreamQuery, stream);
}
TWIN(cudaStreamQuery, _ptsz, (cudaStream_t stream), stream)

static cudaError_t cudaStreamWaitEvent_any(const struct driver *table, cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    return DRIVER(table, cuStreamWaitEvent, stream, event, flags);
}
TWIN(cudaStreamWaitEvent, _ptsz, (cudaStream_t stream, cudaEvent_t event, unsigned flags), stream, event, flags)

static cudaError_t cudaStreamGetPriority_any(const struct driver *table, cudaStream_t stream, int *priority)
{
    return DRIVER(table, cuStreamGetPriority, stream, priority);
}
TWIN(cudaStreamGetPriority, _ptsz, (cudaStream_t stream, int *priority), stream, priority)

static cudaError_t cudaStreamGetFlags_any(const struct driver *table, cudaStream_t stream, unsigned *flags)
{
    return DRIVER(table, cuStreamGetFlags, stream, flags);
}
TWIN(cudaStreamGetFlags, _ptsz, (cudaStream_t stream, unsigned *flags), stream, flags)

static cudaError_t cudaStreamGetId_any(const struct driver *table, cudaStream_t stream, unsigned long long *id)
{
    return DRIVER(table, cuStreamGetId, stream, id);
}
TWIN(cudaStreamGetId, _ptsz, (cudaStream_t stream, unsigned long long *id), stream, id)

#if CUDART_VERSION >= 12080
static cudaError_t cudaStreamGetDevice_any(const struct driver *table, cudaStream_t stream, int *device)
{
    CUcontext context = NULL, current = NULL;
    CUdevice handle = 0;
    cudaError_t error = runtime_enter();

    if (!error && !device)
        error = cudaErrorInvalidValue;
    if (!error)
        error = (cudaError_t)table->cuStreamGetCtx(stream, &context);
    if (!error)
        error = (cudaError_t)table->cuCtxGetCurrent(&current);
    // The interface that asks about a context by handle is younger than the drivers supported here.
    if (!error)
        error = (cudaError_t)table->cuCtxSetCurrent(context);
    if (error)
        return runtime_leave(error);
    error = (cudaError_t)table->cuCtxGetDevice(&handle);
    *device = handle;
    table->cuCtxSetCurrent(current);
    return runtime_leave(error);
}
TWIN(cudaStreamGetDevice, _ptsz, (cudaStream_t stream, int *device), stream, device)
#endif

struct callback {
    cudaStreamCallback_t function;
    void *data;
};

static void call_back(CUstream stream, CUresult status, void *argument)
{
    struct callback callback = *(struct callback *)argument;
    free(argument);
    callback.function(stream, (cudaError_t)status, callback.data);
}

static cudaError_t cudaStreamAddCallback_any(const struct driver *table, cudaStream_t stream, cudaStreamCallback_t function,
                                             void *data, unsigned flags)
{
    struct callback *callback = malloc(sizeof *callback);
    if (!function || !callback) {
        free(callback);
        return runtime_leave(cudaErrorInvalidValue);
    }
    *callback = (struct callback){function, data};
    cudaError_t error = DRIVER(table, cuStreamAddCallback, stream, call_back, callback, flags);
    if (error)
        free(callback);
    return error;
}
TWIN(cudaStreamAddCallback, _ptsz, (cudaStream_t stream, cudaStreamCallback_t function, void *data, unsigned flags), stream,
     function, data, flags)

static cudaError_t cudaLaunchHostFunc_any(const struct driver *table, cudaStream_t stream, cudaHostFn_t function, void *data)
{
    return DRIVER(table, cuLaunchHostFunc, stream, function, data);
}
TWIN(cudaLaunchHostFunc, _ptsz, (cudaStream_t stream, cudaHostFn_t function, void *data), stream, function, data)

static cudaError_t cudaStreamAttachMemAsync_any(const struct driver *table, cudaStream_t stream, void *pointer, size_t bytes,
                                                unsigned flags)
{
    return DRIVER(table, cuStreamAttachMemAsync, stream, (CUdeviceptr)pointer, bytes, flags);
}
TWIN(cudaStreamAttachMemAsync, _ptsz, (cudaStream_t stream, void *pointer, size_t bytes, unsigned flags), stream, pointer,
     bytes, flags)

static cudaError_t cudaStreamCopyAttributes_any(const struct driver *table, cudaStream_t dst, cudaStream_t src)
{
    return DRIVER(table, cuStreamCopyAttributes, dst, src);
}
TWIN(cudaStreamCopyAttributes, _ptsz, (cudaStream_t dst, cudaStream_t src), dst, src)

_Static_assert(sizeof(cudaStreamAttrValue) == sizeof(CUstreamAttrValue), "the driver takes the runtime's value as it is");

static cudaError_t cudaStreamGetAttribute_any(const struct driver *table, cudaStream_t stream, cudaStreamAttrID attribute,
                                              cudaStreamAttrValue *value)
{
    return DRIVER(table, cuStreamGetAttribute, stream, (CUstreamAttrID)attribute, (CUstreamAttrValue *)value);
}
TWIN(cudaStreamGetAttribute, _ptsz, (cudaStream_t stream, cudaStreamAttrID attribute, cudaStreamAttrValue *value), stream,
     attribute, value)

static cudaError_t cudaStreamSetAttribute_any(const struct driver *table, cudaStream_t stream, cudaStreamAttrID attribute,
                                              const cudaStreamAttrValue *value)
{
    return DRIVER(table, cuStreamSetAttribute, stream, (CUstreamAttrID)attribute, (const CUstreamAttrValue *)value);
}
TWIN(cudaStreamSetAttribute, _ptsz, (cudaStream_t stream, cudaStreamAttrID attribute, const cudaStreamAttrValue *value), stream,
     attribute, value)
