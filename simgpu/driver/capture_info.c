// Asking about captures, and steering what a capturing stream depends on.
// SPDX-License-Identifier: AGPL-3.0-or-later

#include "simgpu/driver/capture.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/stream.h"

static CUstreamCaptureStatus status_of(const struct CUstream_st *stream)
{
    if (!stream->capture)
        return CU_STREAM_CAPTURE_STATUS_NONE;
    return stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

// Asking about the legacy stream while a stream that synchronises with it captures is an error, since the answer would be
// neither; it does the capture no harm.
static CUresult resolve_for_query(bool per_thread, CUstream handle, struct CUstream_st **stream)
{
    CUresult rc = stream_resolve(per_thread, handle, stream);
    if (!rc && (*stream)->legacy && capture_holds_legacy((*stream)->ctx))
        rc = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    return rc;
}

static CUresult cuStreamIsCapturing_any(bool per_thread, CUstream handle, CUstreamCaptureStatus *status)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = status ? resolve_for_query(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *status = status_of(stream);
    return api_leave(rc);
}

static CUresult cuStreamGetCaptureInfo_v2_any(bool per_thread, CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                              CUgraph *graph, const CUgraphNode **deps, size_t *count)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = status ? resolve_for_query(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    if (rc)
        return api_leave(rc);
    *status = status_of(stream);
    if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        if (id)
            *id = stream->capture->id;
        if (graph)
            *graph = stream->capture->graph;
        if (deps)
            *deps = stream->capture_deps;
        if (count)
            *count = stream->capture_dep_count;
    }
    return api_leave(CUDA_SUCCESS);
}

static CUresult cuStreamGetCaptureInfo_v3_any(bool per_thread, CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                              CUgraph *graph, const CUgraphNode **deps, const CUgraphEdgeData **edges,
                                              size_t *count)
{
    // All edges are plain full dependencies, which the interface expresses by no edge data.
    if (edges)
        *edges = NULL;
    return cuStreamGetCaptureInfo_v2_any(per_thread, handle, status, id, graph, deps, count);
}

static CUresult cuStreamGetCaptureInfo_any(bool per_thread, CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id)
{
    return cuStreamGetCaptureInfo_v2_any(per_thread, handle, status, id, NULL, NULL, NULL);
}

static CUresult cuStreamUpdateCaptureDependencies_any(bool per_thread, CUstream handle, CUgraphNode *nodes, size_t count,
                                                      unsigned flags)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && !stream->capture)
        rc = CUDA_ERROR_ILLEGAL_STATE;
    if (!rc && stream->capture->invalidated)
        rc = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!rc && (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || !graph_has_nodes(stream->capture->graph, nodes, count)))
        rc = CUDA_ERROR_INVALID_VALUE;
    if (rc)
        return api_leave(rc);
    if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
        stream->capture_dep_count = 0;
    return api_leave(capture_join(stream, stream->capture, nodes, count));
}

TWIN_API(cuStreamIsCapturing, _ptsz, (CUstream stream, CUstreamCaptureStatus *status), stream, status)
TWIN_API(cuStreamGetCaptureInfo, _ptsz, (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id), stream, status, id)
TWIN_API(cuStreamGetCaptureInfo_v2, _ptsz,
         (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph, const CUgraphNode **deps,
          size_t *count),
         stream, status, id, graph, deps, count)
TWIN_API(cuStreamGetCaptureInfo_v3, _ptsz,
         (CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph, const CUgraphNode **deps,
          const CUgraphEdgeData **edges, size_t *count),
         stream, status, id, graph, deps, edges, count)
TWIN_API(cuStreamUpdateCaptureDependencies, _ptsz, (CUstream stream, CUgraphNode *nodes, size_t count, unsigned flags), stream,
         nodes, count, flags)
static CUresult cuStreamUpdateCaptureDependencies_v2_any(bool per_thread, CUstream handle, CUgraphNode *nodes, size_t count,
                                                         unsigned flags)
{
    return cuStreamUpdateCaptureDependencies_any(per_thread, handle, nodes, count, flags);
}

TWIN_API(cuStreamUpdateCaptureDependencies_v2, _ptsz,
         (CUstream stream, CUgraphNode *nodes, const CUgraphEdgeData *edges __attribute__((unused)), size_t count,
          unsigned flags),
         stream, nodes, count, flags)
