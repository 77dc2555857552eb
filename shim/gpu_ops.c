// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/gpu_ops.h"

#include <errno.h>
#include <stddef.h>

#include "shim/context_table.h"
#include "shim/stream_table.h"

// The agent's thread stays in the relaxed capture mode for good.
static __thread bool relaxed;

static bool is_capturing(void *gpu, void *stream)
{
    (void)gpu;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult rc = REAL(cuStreamIsCapturing)(stream, &status);
    return rc == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || (rc == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE);
}

// The context of a stream, in use and current. It need not be the one that was: a graph can be launched into a stream of
// another context, and with a stream no current context is needed. NULL: unknown.
static struct context *enter_context_of(CUstream stream)
{
    CUcontext handle = NULL;
    if (REAL(cuStreamGetCtx)(stream, &handle) != CUDA_SUCCESS)
        return NULL;
    struct context *context = context_use(handle);
    if (context && REAL(cuCtxPushCurrent_v2)(handle) != CUDA_SUCCESS) {
        context_release(context);
        return NULL;
    }
    return context;
}

static void leave_context(struct context *context)
{
    CUcontext popped;
    REAL(cuCtxPopCurrent_v2)(&popped);
    context_release(context);
}

// Takes a mark of the context, which is current, and records it behind the stream or the whole context.
static struct mark *record(struct context *context, CUstream stream, bool whole)
{
    struct mark *mark = mark_take(context);
    if (!mark)
        return NULL;
    CUresult rc =
        whole ? REAL(cuCtxRecordEvent)(context_whole(context), mark->event) : REAL(cuEventRecord)(mark->event, stream);
    if (rc == CUDA_SUCCESS)
        return mark;
    mark_drop(mark);
    return NULL;
}

static void *mark_put(void *gpu, void *stream)
{
    int saved = errno;
    struct mark *mark = NULL;
    CUstreamCaptureMode mode = capture_relax();
    struct context *context = is_capturing(gpu, stream) ? NULL : enter_context_of(stream);
    if (context) {
        mark = record(context, stream, false);
        leave_context(context);
    }
    capture_restore(mode);
    errno = saved;
    return mark;
}

static bool mark_done(void *gpu, void *mark)
{
    (void)gpu;
    if (relaxed)
        return mark_complete(mark);
    CUstreamCaptureMode mode = capture_relax();
    bool done = mark_complete(mark);
    capture_restore(mode);
    return done;
}

static void drop_mark(void *gpu, void *mark)
{
    (void)gpu;
    mark_drop(mark);
}

static void fence_push(struct device *device, struct mark *mark)
{
    mark->next = device->fence;
    device->fence = mark;
}

static void fence_clear(struct device *device)
{
    while (device->fence) {
        struct mark *mark = device->fence;
        device->fence = mark->next;
        mark_drop(mark);
    }
}

struct visit {
    struct device *device;
    struct context *context;
};

static bool fence_stream(void *argument, CUstream stream)
{
    const struct visit *visit = argument;
    struct mark *mark = record(visit->context, stream, false);
    if (mark)
        fence_push(visit->device, mark);
    return mark != NULL;
}

static bool fence_context(struct device *device, struct context *context, bool whole)
{
    struct visit visit = {device, context};
    CUcontext handle = context_handle(context);
    if (REAL(cuCtxPushCurrent_v2)(handle) != CUDA_SUCCESS)
        return false;
    bool fenced;
    if (whole) {
        struct mark *mark = record(context, NULL, true);
        if (mark)
            fence_push(device, mark);
        fenced = mark != NULL;
    } else {
        fenced = streams_visit(handle, fence_stream, &visit);
    }
    REAL(cuCtxPopCurrent_v2)(&handle);
    return fenced;
}

static bool fence_renew(void *gpu)
{
    struct device *device = gpu;
    bool fenced = true;
    fence_clear(device);
    streams_lock();
    bool whole = !streams_capturing() && REAL_EXISTS(cuCtxRecordEvent);
    struct context *context = context_use_next(device, NULL);
    while (context) {
        // What is behind the whole primary context is also behind its green ones.
        if (!whole || !context_is_green(context))
            fenced = fence_context(device, context, whole) && fenced;
        context = context_use_next(device, context);
    }
    streams_unlock();
    return fenced;
}

static bool fence_done(void *gpu)
{
    struct device *device = gpu;
    while (device->fence && mark_complete(device->fence)) {
        struct mark *mark = device->fence;
        device->fence = mark->next;
        mark_drop(mark);
    }
    return !device->fence && contexts_earlier_done(device);
}

static void agent_begin(void)
{
    capture_relax();
    relaxed = true;
}

const struct gpu_ops gpu_ops_cuda = {
    .mark_put = mark_put,
    .mark_done = mark_done,
    .mark_drop = drop_mark,
    .fence_renew = fence_renew,
    .fence_done = fence_done,
    .is_capturing = is_capturing,
    .agent_begin = agent_begin,
};

void gpu_ops_keep_mark(CUstream stream, bool whole, const void *owner)
{
    struct context *context = is_capturing(NULL, stream) ? NULL : enter_context_of(stream);
    if (!context)
        return;
    CUstreamCaptureMode mode = capture_relax();
    struct mark *mark = record(context, stream, whole);
    if (mark)
        context_keep_earlier(context, mark, whole, owner);
    capture_restore(mode);
    leave_context(context);
}

struct mark *gpu_ops_mark_context(CUcontext handle)
{
    CUcontext current = NULL;
    struct mark *mark = NULL;
    streams_lock();
    bool may = !streams_capturing() && REAL_EXISTS(cuCtxRecordEvent);
    struct context *context = may ? context_use(handle) : NULL;
    if (context) {
        REAL(cuCtxGetCurrent)(&current);
        bool there = current == handle || REAL(cuCtxPushCurrent_v2)(handle) == CUDA_SUCCESS;
        mark = there ? record(context, NULL, true) : NULL;
        if (there && current != handle)
            REAL(cuCtxPopCurrent_v2)(&current);
        context_release(context);
    }
    streams_unlock();
    return mark;
}
