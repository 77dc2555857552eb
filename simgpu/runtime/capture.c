// Stream capture.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

static cudaError_t cudaStreamBeginCapture_any(const struct driver *table, cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    return DRIVER(table, cuStreamBeginCapture, stream, (CUstreamCaptureMode)mode);
}
TWIN(cudaStreamBeginCapture, _ptsz, (cudaStream_t stream, enum cudaStreamCaptureMode mode), stream, mode)

static cudaError_t cudaStreamEndCapture_any(const struct driver *table, cudaStream_t stream, cudaGraph_t *graph)
{
    return DRIVER(table, cuStreamEndCapture, stream, graph);
}
TWIN(cudaStreamEndCapture, _ptsz, (cudaStream_t stream, cudaGraph_t *graph), stream, graph)

static cudaError_t cudaStreamIsCapturing_any(const struct driver *table, cudaStream_t stream,
                                             enum cudaStreamCaptureStatus *status)
{
    return DRIVER(table, cuStreamIsCapturing, stream, (CUstreamCaptureStatus *)status);
}
TWIN(cudaStreamIsCapturing, _ptsz, (cudaStream_t stream, enum cudaStreamCaptureStatus *status), stream, status)

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    cudaError_t error = runtime_init();
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuThreadExchangeStreamCaptureMode((CUstreamCaptureMode *)mode));
}

#if CUDART_VERSION >= 13000
static cudaError_t cudaStreamBeginCaptureToGraph_any(const struct driver *table, cudaStream_t stream, cudaGraph_t graph,
                                                     const cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges, size_t count,
                                                     enum cudaStreamCaptureMode mode)
{
    return DRIVER(table, cuStreamBeginCaptureToGraph, stream, graph, nodes, (const CUgraphEdgeData *)edges, count,
                  (CUstreamCaptureMode)mode);
}
TWIN(cudaStreamBeginCaptureToGraph, _ptsz,
     (cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges, size_t count,
      enum cudaStreamCaptureMode mode),
     stream, graph, nodes, edges, count, mode)

static cudaError_t cudaStreamGetCaptureInfo_any(const struct driver *table, cudaStream_t stream,
                                                enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                                cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                                const cudaGraphEdgeData **edges, size_t *count)
{
    return DRIVER(table, cuStreamGetCaptureInfo, stream, (CUstreamCaptureStatus *)status, (cuuint64_t *)id, graph, nodes,
                  (const CUgraphEdgeData **)edges, count);
}
TWIN(cudaStreamGetCaptureInfo, _ptsz,
     (cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
      const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count),
     stream, status, id, graph, nodes, edges, count)

static cudaError_t cudaStreamUpdateCaptureDependencies_any(const struct driver *table, cudaStream_t stream,
                                                           cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges, size_t count,
                                                           unsigned flags)
{
    return DRIVER(table, cuStreamUpdateCaptureDependencies, stream, nodes, (const CUgraphEdgeData *)edges, count, flags);
}
TWIN(cudaStreamUpdateCaptureDependencies, _ptsz,
     (cudaStream_t stream, cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges, size_t count, unsigned flags), stream, nodes,
     edges, count, flags)
#endif
