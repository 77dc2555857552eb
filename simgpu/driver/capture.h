// SPDX-License-Identifier: AGPL-3.0-or-later
// Stream capture: which streams record into a graph instead of running, and which calls that forbids. Needs the API lock.
//
// A capture lives from cuStreamBeginCapture until cuStreamEndCapture on its origin stream, invalidated or not. Streams join it
// by waiting for an event that was recorded in it. Events remember captures by id, since they may outlive them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_CAPTURE_H
#define SIMGPU_DRIVER_CAPTURE_H

#include "simgpu/driver/api.h"

struct CUctx_st;
struct CUstream_st;
struct op;

struct capture {
    struct capture *next;
    uint64_t id;
    CUstreamCaptureMode mode;
    bool invalidated;
    bool borrowed; // the graph was given by the program and is not ours to destroy
    uint64_t thread_id;
    struct CUgraph_st *graph;
    struct CUstream_st *origin;
};

// A number of the calling thread, never used again by another.
uint64_t capture_thread_id(void);

// Fails with CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, and invalidates what stands in the way, if the calling thread may not make
// a potentially unsafe call now: one that might synchronise with, or depend on, work that a capture only records.
CUresult capture_check_unsafe(void);

// The same for calls that conflict with capture in any mode: on a capturing stream, in a context with one, or on the legacy
// stream of a context with a capturing stream that synchronises with it.
CUresult capture_forbid_stream(struct CUstream_st *stream);
CUresult capture_forbid_context(struct CUctx_st *ctx);
CUresult capture_forbid_legacy(struct CUctx_st *ctx);

// Whether a stream that synchronises with the context's legacy stream captures. Asking is allowed.
bool capture_holds_legacy(const struct CUctx_st *ctx);

// A running capture by id, NULL if it is over.
struct capture *capture_find(uint64_t id);

// Adds an operation to the stream's capture. Takes over what it refers to, also on failure.
CUresult capture_add(struct CUstream_st *stream, const struct op *op);

// Adds a node that was made elsewhere behind what the stream has captured so far.
CUresult capture_append(struct CUstream_st *stream, CUgraphNode node);

// Makes the stream's next nodes depend on more nodes; joins the capture if the stream is in none.
CUresult capture_join(struct CUstream_st *stream, struct capture *capture, const CUgraphNode *nodes, size_t count);

// A stream goes away: its capture cannot be completed any more.
void capture_drop_stream(struct CUstream_st *stream);

void capture_invalidate(struct capture *capture);

#endif
