// SPDX-License-Identifier: AGPL-3.0-or-later
// Streams, their captures, and the calls that wait for the GPU. None is gated: they give the GPU nothing to do.
//
// At a synchronisation the driver takes back what its memory pools do not use, so then the pools' charges are brought up to
// date.
#include <stddef.h>

#include "shim/captures.h"
#include "shim/device.h"
#include "shim/memory_pools.h"
#include "shim/priorities.h"

static CUresult created(CUresult result, const CUstream *stream)
{
    if (result == CUDA_SUCCESS && device_attached())
        stream_add(*stream);
    return result;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return created(REAL(cuStreamCreate)(stream, flags), stream);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    priority = priority_allowed(device_current(), priority);
    return created(REAL(cuStreamCreateWithPriority)(stream, flags, priority), stream);
}

// The stream leaves the table first: another thread may get its handle as soon as it is destroyed.
CUresult cuStreamDestroy(CUstream stream)
{
    stream_remove(stream);
    return REAL(cuStreamDestroy)(stream);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    stream_remove(stream);
    return REAL(cuStreamDestroy_v2)(stream);
}

static CUresult settled(CUresult result)
{
    pools_settle();
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    return settled(REAL(cuStreamSynchronize)(stream));
}

CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    return settled(REAL(cuStreamSynchronize_ptsz)(stream));
}

CUresult cuEventSynchronize(CUevent event)
{
    return settled(REAL(cuEventSynchronize)(event));
}

CUresult cuCtxSynchronize(void)
{
    return settled(REAL(cuCtxSynchronize)());
}

CUresult cuCtxSynchronize_v2(CUcontext context)
{
    return settled(REAL(cuCtxSynchronize_v2)(context));
}

static CUresult begun(CUstream stream, CUresult result)
{
    capture_begun(stream, result);
    return result;
}

CUresult cuStreamBeginCapture(CUstream stream)
{
    capture_begin(stream);
    return begun(stream, REAL(cuStreamBeginCapture)(stream));
}

CUresult cuStreamBeginCapture_ptsz(CUstream stream)
{
    capture_begin(own_stream(stream));
    return begun(own_stream(stream), REAL(cuStreamBeginCapture_ptsz)(stream));
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    capture_begin(stream);
    return begun(stream, REAL(cuStreamBeginCapture_v2)(stream, mode));
}

CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode)
{
    capture_begin(own_stream(stream));
    return begun(own_stream(stream), REAL(cuStreamBeginCapture_v2_ptsz)(stream, mode));
}

CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependency_data, size_t count, CUstreamCaptureMode mode)
{
    capture_begin(stream);
    return begun(stream, REAL(cuStreamBeginCaptureToGraph)(stream, graph, dependencies, dependency_data, count, mode));
}

CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph, const CUgraphNode *dependencies,
                                          const CUgraphEdgeData *dependency_data, size_t count, CUstreamCaptureMode mode)
{
    capture_begin(own_stream(stream));
    return begun(own_stream(stream),
                 REAL(cuStreamBeginCaptureToGraph_ptsz)(stream, graph, dependencies, dependency_data, count, mode));
}

// A capture can end with an error (it was invalidated, or left streams unjoined), and does not end on a stream other than the
// one it began on. The stream's state before and after tells.
static CUresult ended(CUstream stream, bool was_capturing, CUresult result)
{
    if (was_capturing && !capture_under_way(stream))
        capture_ended(stream);
    return result;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    bool capturing = capture_under_way(stream);
    return ended(stream, capturing, REAL(cuStreamEndCapture)(stream, graph));
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph)
{
    bool capturing = capture_under_way(own_stream(stream));
    return ended(own_stream(stream), capturing, REAL(cuStreamEndCapture_ptsz)(stream, graph));
}
