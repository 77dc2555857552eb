// SPDX-License-Identifier: AGPL-3.0-or-later
// The program's streams, and how many of them are being captured.
//
// While any stream of a context is being captured, the driver refuses to record an event behind the whole context, and the
// attempt invalidates the capture (H100, driver 580: also in the relaxed thread mode). Events on other streams do no harm. So a
// thread that wants to mark the whole context first makes sure, under the mutex here, that nothing is being captured; otherwise
// it marks stream by stream.
//
// Invariants
//  - `streams_count` is never less than the number of captures under way: it is raised before the driver begins one. It changes
//    under the mutex; without the mutex, it may be read to find out that nothing is being captured.
//  - A capture that is never ended counts until its stream or context is destroyed. What began on the default stream of a thread
//    that has ended counts until somebody finds the context's legacy stream free again, which it is not during such a capture:
//    the agent when it marks, or the heap of VGPU_ALLOCATOR=chunk.
//  - A stream's context is what the driver says: for a green context's stream the green one, whichever was current.
//  - A stream is in the table from its creation until just before its destruction. Not in it: the default streams, and streams
//    made by functions that have no hook.
// Lock order: streams, then contexts. The mutex may be held while an event is recorded, which can wait for room in a stream's
// queue, and while the driver begins a capture.
#ifndef VGPU_SHIM_STREAM_TABLE_H
#define VGPU_SHIM_STREAM_TABLE_H

#include "shim/hooks.h"

#include <stdatomic.h>

void stream_add(CUstream stream);
void stream_remove(CUstream stream);
void streams_drop_context(CUcontext context);

// Read by every launch, so nothing else is on its cache line.
extern struct streams_count {
    _Alignas(64) _Atomic uint32_t captures;
} streams_count;

// Whether anything may be being captured. One load of a line that is written twice in a capture.
static inline bool streams_capturing(void)
{
    return __builtin_expect(atomic_load_explicit(&streams_count.captures, memory_order_relaxed) != 0, 0);
}

// The same after a look at whether threads' default streams of the current context are still being captured.
bool streams_still_capturing(void);

// Under the lock, from shim/captures.c: a capture begins; it has begun on `stream`, and would end with it; one ended or did not
// begin.
void streams_capture_begins(void);
void streams_capture_began(CUstream stream);
void streams_capture_over(CUstream stream);

// Whether the stream is being captured; an error counts as yes, since it means a capture that forbids the question.
static inline bool capture_under_way(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return REAL(cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

// Holds off the beginning of captures and changes of the table.
void streams_lock(void);
void streams_unlock(void);
// Under the lock, with the context current: calls `visit` for the legacy stream and for every known stream of the context that
// is not being captured, until `visit` returns false. Returns its last result.
bool streams_visit(CUcontext context, bool (*visit)(void *argument, CUstream stream), void *argument);

// The stream that a per-thread-default-stream form of a function means by `stream`.
static inline CUstream own_stream(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

// Lets this thread make calls that would otherwise be forbidden, and would harm captures, while another thread captures.
// Returns the mode for capture_restore.
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
