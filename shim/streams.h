// SPDX-License-Identifier: AGPL-3.0-or-later
// The streams that the program has, and its captures.
//
// While any stream of a context is being captured, the driver refuses to record an event behind the whole context, and the attempt
// invalidates the capture (H100, driver 580: also in the relaxed thread mode). Events on other streams do no harm. So whoever wants to
// mark the whole context first makes sure, under the mutex here, that nothing is being captured, and else marks stream by stream.
//
// Invariants
//  - `captures` is never less than the number of captures under way: it is raised before the driver begins one.
//  - A stream is in the table from its creation until just before its destruction. Not in it: the default streams, and streams made
//    by functions that have no hook.
// Lock order: streams, then contexts. The mutex may be held while an event is recorded, which can wait for room in a stream's queue.
#ifndef VGPU_SHIM_STREAMS_H
#define VGPU_SHIM_STREAMS_H

#include "shim/hooks.h"

void stream_add(CUstream stream);
void stream_remove(CUstream stream);
void streams_drop_context(CUcontext context);

// Around the driver's call that begins a capture. begin also marks what was given to the GPU until now, since during the capture the
// stream can't be marked.
void capture_begin(CUstream stream);
void capture_begun(CUstream stream, CUresult result);
// After the driver's call that ended one.
void capture_ended(CUstream stream);
// Whether the stream is being captured; an error counts as yes, since it means a capture that forbids the question.
static inline bool capture_under_way(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return REAL(cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

// Holds off captures and changes of the table.
void streams_lock(void);
void streams_unlock(void);
// Under the lock.
bool streams_capturing(void);
// Under the lock, with the context current: calls `visit` for the legacy stream and for every known stream of the context that is not
// being captured, until it returns false. Returns the last answer.
bool streams_visit(CUcontext context, bool (*visit)(void *argument, CUstream stream), void *argument);

// What a per-thread-default-stream form of a function means by `stream`.
static inline CUstream own_stream(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

// Lets this thread make calls that would otherwise be forbidden, and harm captures, while another thread captures. Returns what to
// give to capture_restore.
static inline CUstreamCaptureMode capture_relax(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    REAL(cuThreadExchangeStreamCaptureMode)(&mode);
    return mode;
}

static inline void capture_restore(CUstreamCaptureMode mode)
{
    REAL(cuThreadExchangeStreamCaptureMode)(&mode);
}

void streams_reset(void);

#endif
