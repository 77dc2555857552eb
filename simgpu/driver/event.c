// Events: recording, asking, waiting, and what they carry between captured streams.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/event.h"

#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"

#define EVENT_FLAGS (CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS)

CUresult cuEventCreate(CUevent *out, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || flags & ~(unsigned)EVENT_FLAGS || (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING)))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUevent_st *event = calloc(1, sizeof *event);
    if (!event || !handle_add(event, HANDLE_EVENT)) {
        free(event);
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    event->ctx = ctx;
    event->references = 1;
    event->flags = flags;
    *out = event;
    return api_leave(CUDA_SUCCESS);
}

void event_release(struct CUevent_st *event)
{
    if (--event->references)
        return;
    if (event->last)
        record_release(event->last);
    if (event->page)
        event_page_release(event);
    free(event->capture_deps);
    free(event);
}

CUresult cuEventDestroy_v2(CUevent event)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(event, HANDLE_EVENT))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    handle_remove(event);
    event_release(event);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuEventDestroy(CUevent event)
{
    return cuEventDestroy_v2(event);
}

static void set_last(struct CUevent_st *event, struct record *record)
{
    if (event->last)
        record_release(event->last);
    event->last = record;
    event->captured = false;
}

CUresult event_record(struct CUevent_st *event, struct CUstream_st *stream)
{
    if (event->imported)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct record *record = record_new(1);
    if (!record)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct op op = {.kind = OP_RECORD, .record = record};
    op_retain(&op);
    CUresult rc = stream_submit(stream, &op);
    if (rc)
        record_release(record);
    else
        set_last(event, record);
    if (!rc && event->page)
        rc = event_page_record(event, stream);
    return rc;
}

static CUresult record_into_capture(struct CUevent_st *event, struct CUstream_st *stream)
{
    if (stream->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    size_t count = stream->capture_dep_count;
    CUgraphNode *deps = malloc((count ? count : 1) * sizeof *deps);
    if (!deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(deps, stream->capture_deps, count * sizeof *deps);
    free(event->capture_deps);
    event->capture_deps = deps;
    event->capture_dep_count = count;
    event->capture_id = stream->capture->id;
    event->captured = true;
    return CUDA_SUCCESS;
}

static CUresult submit_external(struct CUevent_st *event, struct CUstream_st *stream, enum op_kind kind)
{
    struct op op = {.kind = kind, .event = event};
    op_retain(&op);
    return stream_submit(stream, &op);
}

static CUresult cuEventRecordWithFlags_any(bool per_thread, CUevent event, CUstream handle, unsigned flags)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(event, HANDLE_EVENT))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = flags & ~CU_EVENT_RECORD_EXTERNAL ? CUDA_ERROR_INVALID_VALUE : stream_resolve(per_thread, handle, &stream);
    if (!rc && stream->ctx != event->ctx)
        rc = CUDA_ERROR_INVALID_HANDLE;
    if (rc)
        return api_leave(rc);
    if (!stream->capture)
        return api_leave(event_record(event, stream));
    if (flags & CU_EVENT_RECORD_EXTERNAL)
        return api_leave(submit_external(event, stream, OP_EVENT_RECORD));
    return api_leave(record_into_capture(event, stream));
}

static CUresult cuEventRecord_any(bool per_thread, CUevent event, CUstream stream)
{
    return cuEventRecordWithFlags_any(per_thread, event, stream, CU_EVENT_RECORD_DEFAULT);
}

TWIN_API(cuEventRecord, _ptsz, (CUevent event, CUstream stream), event, stream)
TWIN_API(cuEventRecordWithFlags, _ptsz, (CUevent event, CUstream stream, unsigned flags), event, stream, flags)

CUresult event_wait(struct CUevent_st *event, struct CUstream_st *stream)
{
    if (event->imported)
        return event_page_wait(event, stream);
    if (!event->last || !event->last->pending)
        return CUDA_SUCCESS;
    struct op op = {.kind = OP_WAIT_RECORD, .record = event->last};
    op_retain(&op);
    return stream_submit(stream, &op);
}

static CUresult wait_in_capture(struct CUevent_st *event, struct CUstream_st *stream, unsigned flags)
{
    if (event->captured) {
        struct capture *capture = capture_find(event->capture_id);
        if (!capture)
            return CUDA_ERROR_CAPTURED_EVENT;
        return capture_join(stream, capture, event->capture_deps, event->capture_dep_count);
    }
    if (flags & CU_EVENT_WAIT_EXTERNAL)
        return submit_external(event, stream, OP_EVENT_WAIT);
    if (!event->last)
        return CUDA_SUCCESS;
    // The graph would depend on work outside of it.
    capture_invalidate(stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
}

static CUresult cuStreamWaitEvent_any(bool per_thread, CUstream handle, CUevent event, unsigned flags)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL ? CUDA_ERROR_INVALID_VALUE : stream_resolve(per_thread, handle, &stream);
    if (!rc && !handle_is(event, HANDLE_EVENT))
        rc = CUDA_ERROR_INVALID_HANDLE;
    if (!rc && stream->capture && stream->capture->invalidated)
        rc = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (rc)
        return api_leave(rc);
    if (stream->capture || event->captured)
        return api_leave(wait_in_capture(event, stream, flags));
    return api_leave(event_wait(event, stream));
}

TWIN_API(cuStreamWaitEvent, _ptsz, (CUstream stream, CUevent event, unsigned flags), stream, event, flags)

// What asking about an event and waiting for it have in common.
static CUresult check_host_use(CUevent event)
{
    if (!handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult rc = capture_check_unsafe();
    if (rc || !event->captured)
        return rc;
    struct capture *capture = capture_find(event->capture_id);
    if (capture)
        capture_invalidate(capture);
    return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult cuEventQuery(CUevent event)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = check_host_use(event);
    if (!rc && event->last && event->last->pending)
        rc = CUDA_ERROR_NOT_READY;
    return api_leave(rc);
}

CUresult cuEventSynchronize(CUevent event)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = check_host_use(event);
    if (rc || !event->last)
        return api_leave(rc);
    struct record *record = event->last;
    struct device *device = event->ctx->device;
    record->references++;
    stream_wait_record(record);
    record_release(record);
    pool_trim_device(device);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!ms)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(start, HANDLE_EVENT) || !handle_is(end, HANDLE_EVENT) || start->ctx != end->ctx || !start->last ||
        !end->last || start->captured || end->captured || (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    if (start->last->pending || end->last->pending)
        return api_leave(CUDA_ERROR_NOT_READY);
    *ms = (float)((double)(int64_t)(end->last->time_ns - start->last->time_ns) / 1e6);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime(ms, start, end);
}

CUresult cuCtxRecordEvent(CUcontext handle, CUevent event)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = handle ? context_from_handle(handle, &ctx) : CUDA_ERROR_INVALID_CONTEXT;
    if (!rc && (!handle_is(event, HANDLE_EVENT) || event->ctx != ctx))
        rc = CUDA_ERROR_INVALID_HANDLE;
    if (!rc)
        rc = capture_forbid_context(ctx);
    struct record *record = rc ? NULL : record_new(0);
    if (!record)
        return api_leave(rc ? rc : CUDA_ERROR_OUT_OF_MEMORY);
    for (struct CUstream_st *stream = ctx->streams; stream && !rc; stream = stream->next) {
        if (!stream->head)
            continue;
        struct op op = {.kind = OP_RECORD, .record = record};
        op_retain(&op);
        record->pending++;
        rc = stream_submit(stream, &op);
        if (rc)
            record->pending--;
    }
    set_last(event, record);
    return api_leave(rc);
}

CUresult cuCtxWaitEvent(CUcontext handle, CUevent event)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = handle ? context_from_handle(handle, &ctx) : CUDA_ERROR_INVALID_CONTEXT;
    if (!rc && !handle_is(event, HANDLE_EVENT))
        rc = CUDA_ERROR_INVALID_HANDLE;
    if (!rc)
        rc = event->captured ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : capture_forbid_context(ctx);
    for (struct CUstream_st *stream = rc ? NULL : ctx->streams; stream && !rc; stream = stream->next)
        rc = event_wait(event, stream);
    return api_leave(rc);
}
