// The rules of stream capture.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/capture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/stream.h"

static struct capture *captures;
static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

uint64_t capture_thread_id(void)
{
    static _Atomic uint64_t last;
    static _Thread_local uint64_t id;

    if (!id)
        id = atomic_fetch_add(&last, 1) + 1;
    return id;
}

void capture_invalidate(struct capture *capture)
{
    capture->invalidated = true;
}

CUresult capture_check_unsafe(void)
{
    CUresult rc = CUDA_SUCCESS;

    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    for (struct capture *capture = captures; capture; capture = capture->next) {
        bool own = capture->thread_id == capture_thread_id();
        bool global = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED || (!own && !global))
            continue;
        capture_invalidate(capture);
        rc = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return rc;
}

CUresult capture_forbid_stream(struct CUstream_st *stream)
{
    if (!stream->capture)
        return stream->legacy ? capture_forbid_legacy(stream->ctx) : CUDA_SUCCESS;
    if (stream->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    capture_invalidate(stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult capture_forbid_context(struct CUctx_st *ctx)
{
    CUresult rc = CUDA_SUCCESS;

    if (!captures)
        return CUDA_SUCCESS;
    for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next) {
        if (stream->capture) {
            capture_invalidate(stream->capture);
            rc = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return rc;
}

bool capture_holds_legacy(const struct CUctx_st *ctx)
{
    for (struct CUstream_st *stream = captures ? ctx->streams : NULL; stream; stream = stream->next)
        if (stream->capture && !(stream->flags & CU_STREAM_NON_BLOCKING))
            return true;
    return false;
}

CUresult capture_forbid_legacy(struct CUctx_st *ctx)
{
    CUresult rc = CUDA_SUCCESS;

    if (!captures)
        return CUDA_SUCCESS;
    for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next) {
        if (stream->capture && !(stream->flags & CU_STREAM_NON_BLOCKING)) {
            capture_invalidate(stream->capture);
            rc = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    }
    return rc;
}

struct capture *capture_find(uint64_t id)
{
    struct capture *capture = captures;
    while (capture && capture->id != id)
        capture = capture->next;
    return capture;
}

static CUresult set_deps(struct CUstream_st *stream, const CUgraphNode *nodes, size_t count)
{
    CUgraphNode *deps = malloc((count ? count : 1) * sizeof *deps);
    if (!deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (count)
        memcpy(deps, nodes, count * sizeof *deps);
    free(stream->capture_deps);
    stream->capture_deps = deps;
    stream->capture_dep_count = count;
    return CUDA_SUCCESS;
}

CUresult capture_append(struct CUstream_st *stream, CUgraphNode node)
{
    return set_deps(stream, &node, 1);
}

CUresult capture_add(struct CUstream_st *stream, const struct op *op)
{
    CUgraphNode node;

    if (stream->capture->invalidated) {
        op_release(op);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    CUresult rc = graph_add(stream->capture->graph, op, stream->capture_deps, stream->capture_dep_count, &node);
    return rc ? rc : capture_append(stream, node);
}

CUresult capture_join(struct CUstream_st *stream, struct capture *capture, const CUgraphNode *nodes, size_t count)
{
    if (capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->legacy) {
        capture_invalidate(capture);
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    if (stream->capture && stream->capture != capture) {
        capture_invalidate(capture);
        capture_invalidate(stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (!stream->capture) {
        stream->capture = capture;
        return set_deps(stream, nodes, count);
    }
    CUgraphNode *all = malloc((stream->capture_dep_count + count + 1) * sizeof *all);
    if (!all)
        return CUDA_ERROR_OUT_OF_MEMORY;
    size_t total = stream->capture_dep_count;
    memcpy(all, stream->capture_deps, total * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        size_t j = 0;
        while (j < total && all[j] != nodes[i])
            j++;
        if (j == total)
            all[total++] = nodes[i];
    }
    free(stream->capture_deps);
    stream->capture_deps = all;
    stream->capture_dep_count = total;
    return CUDA_SUCCESS;
}

// Takes all streams out of a capture and forgets it. With `unjoined` set, only tells whether some stream has work that does not
// lead to the origin's last nodes.
static void leave(struct capture *capture, bool *unjoined)
{
    struct CUctx_st *ctx;
    struct device *device;

    *unjoined = false;
    for (int i = 0; (device = device_get(i)); i++) {
        for (ctx = device->contexts; ctx; ctx = ctx->next) {
            for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next) {
                if (stream->capture != capture)
                    continue;
                if (!capture->invalidated && stream != capture->origin)
                    *unjoined |= !graph_leads_to(stream->capture_deps, stream->capture_dep_count, capture->origin->capture_deps,
                                                 capture->origin->capture_dep_count);
            }
        }
    }
    for (int i = 0; (device = device_get(i)); i++)
        for (ctx = device->contexts; ctx; ctx = ctx->next)
            for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next)
                if (stream->capture == capture)
                    stream->capture = NULL;
    struct capture **link = &captures;
    while (*link != capture)
        link = &(*link)->next;
    *link = capture->next;
}

void capture_drop_stream(struct CUstream_st *stream)
{
    struct capture *capture = stream->capture;
    bool unjoined;

    if (!capture)
        return;
    capture_invalidate(capture);
    if (stream != capture->origin) {
        stream->capture = NULL;
        return;
    }
    leave(capture, &unjoined);
    if (!capture->borrowed)
        graph_free(capture->graph);
    free(capture);
}

static CUresult begin(struct CUstream_st *stream, CUstreamCaptureMode mode, struct CUgraph_st *graph, const CUgraphNode *deps,
                      size_t dep_count)
{
    static uint64_t last_id;

    if (stream->legacy)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture)
        return CUDA_ERROR_OUT_OF_MEMORY;
    capture->borrowed = graph != NULL;
    capture->graph = graph ? graph : graph_new();
    CUresult rc = capture->graph ? set_deps(stream, deps, dep_count) : CUDA_ERROR_OUT_OF_MEMORY;
    if (rc) {
        if (!graph && capture->graph)
            graph_free(capture->graph);
        free(capture);
        return rc;
    }
    capture->id = ++last_id;
    capture->mode = mode;
    capture->thread_id = capture_thread_id();
    capture->origin = stream;
    capture->next = captures;
    captures = capture;
    stream->capture = capture;
    return CUDA_SUCCESS;
}

static CUresult cuStreamBeginCapture_v2_any(bool per_thread, CUstream handle, CUstreamCaptureMode mode)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    return api_leave(rc ? rc : begin(stream, mode, NULL, NULL, 0));
}

static CUresult cuStreamBeginCapture_any(bool per_thread, CUstream handle)
{
    return cuStreamBeginCapture_v2_any(per_thread, handle, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

static CUresult cuStreamBeginCaptureToGraph_any(bool per_thread, CUstream handle, CUgraph graph, const CUgraphNode *deps,
                                                size_t count, CUstreamCaptureMode mode)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && (!handle_is(graph, HANDLE_GRAPH) || !graph_has_nodes(graph, deps, count)))
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc ? rc : begin(stream, mode, graph, deps, count));
}

static CUresult end(struct CUstream_st *stream, CUgraph *graph)
{
    struct capture *capture = stream->capture;
    CUresult rc = CUDA_SUCCESS;
    bool unjoined;

    *graph = NULL;
    if (!capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->origin != stream) {
        capture_invalidate(capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread_id != capture_thread_id())
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    leave(capture, &unjoined);
    if (capture->invalidated)
        rc = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (unjoined)
        rc = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    else
        *graph = capture->graph;
    if (rc && !capture->borrowed)
        graph_free(capture->graph);
    free(capture);
    return rc;
}

static CUresult cuStreamEndCapture_any(bool per_thread, CUstream handle, CUgraph *graph)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = graph ? stream_resolve(per_thread, handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc ? rc : end(stream, graph));
}

TWIN_API(cuStreamBeginCapture_v2, _ptsz, (CUstream stream, CUstreamCaptureMode mode), stream, mode)
TWIN_API(cuStreamBeginCapture, _ptsz, (CUstream stream), stream)
TWIN_API(cuStreamBeginCaptureToGraph, _ptsz,
         (CUstream stream, CUgraph graph, const CUgraphNode *deps, const CUgraphEdgeData *edges __attribute__((unused)),
          size_t count, CUstreamCaptureMode mode),
         stream, graph, deps, count, mode)
TWIN_API(cuStreamEndCapture, _ptsz, (CUstream stream, CUgraph *graph), stream, graph)

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    CUstreamCaptureMode old = thread_mode;
    thread_mode = *mode;
    *mode = old;
    return api_leave(CUDA_SUCCESS);
}
