// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: streams, captures, synchronisation, reset. None of it needs a turn on the GPU; creating a stream is one more
// call that reveals a runtime that does not pass the driver layer. An unseen runtime's streams and captures are noted here, so
// that a drain finds the streams and leaves the captures alone.
#include "shim/captures.h"
#include "shim/priorities.h"
#include "shim/runtime_api.h"

static cudaError_t created(struct runtime *runtime, cudaError_t result, unsigned calls, const cudaStream_t *stream)
{
    if (runtime_decide(runtime, result, calls) && device_attached())
        stream_add(*stream);
    return result;
}

static bool is_unseen(struct runtime *runtime)
{
    return runtime_sight(runtime) == RUNTIME_UNSEEN && device_attached();
}

cudaError_t cudaStreamCreate(cudaStream_t *pStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreate)(pStream), calls, pStream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreateWithFlags)(pStream, flags), calls, pStream);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *pStream, unsigned int flags, int priority)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    priority = priority_allowed(device_current(), priority);
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreateWithPriority)(pStream, flags, priority), calls, pStream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    if (is_unseen(runtime))
        stream_remove(stream);
    return RUNTIME_REAL(runtime, cudaStreamDestroy)(stream);
}

// The value of `call`, which begins a capture on `stream`.
#define CAPTURE(runtime, stream, call)                                                                                         \
    __extension__({                                                                                                            \
        bool unseen = is_unseen(runtime);                                                                                      \
        if (unseen)                                                                                                            \
            capture_begin(stream);                                                                                             \
        cudaError_t begun = (call);                                                                                            \
        if (unseen)                                                                                                            \
            capture_begun((stream), (CUresult)begun);                                                                          \
        begun;                                                                                                                 \
    })

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return CAPTURE(runtime, stream, RUNTIME_REAL(runtime, cudaStreamBeginCapture)(stream, mode));
}

cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return CAPTURE(runtime, own_stream(stream), RUNTIME_REAL(runtime, cudaStreamBeginCapture_ptsz)(stream, mode));
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                          const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return CAPTURE(runtime, stream,
                   RUNTIME_REAL(runtime, cudaStreamBeginCaptureToGraph)(stream, graph, dependencies, edges, count, mode));
}

cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                               const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return CAPTURE(runtime, own_stream(stream),
                   RUNTIME_REAL(runtime, cudaStreamBeginCaptureToGraph_ptsz)(stream, graph, dependencies, edges, count, mode));
}

static cudaError_t end_capture(struct runtime *runtime, __typeof__(cudaStreamEndCapture) *real, cudaStream_t stream,
                               cudaStream_t named, cudaGraph_t *graph)
{
    bool capturing = is_unseen(runtime) && capture_under_way(named);
    cudaError_t result = real(stream, graph);
    if (capturing && !capture_under_way(named))
        capture_ended(named);
    return result;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return end_capture(runtime, RUNTIME_REAL(runtime, cudaStreamEndCapture), stream, stream, graph);
}

cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t stream, cudaGraph_t *graph)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return end_capture(runtime, RUNTIME_REAL(runtime, cudaStreamEndCapture_ptsz), stream, own_stream(stream), graph);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaStreamSynchronize)(stream);
}

cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t stream)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaStreamSynchronize_ptsz)(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaDeviceSynchronize)();
}

cudaError_t cudaDeviceReset(void)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    if (runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_end_context();
    return RUNTIME_REAL(runtime, cudaDeviceReset)();
}
