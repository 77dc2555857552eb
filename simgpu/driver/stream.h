// SPDX-License-Identifier: AGPL-3.0-or-later
// Streams, the operations queued in them, and the records that events and waits share. Everything here needs the API lock.
//
// An operation belongs to the queue from stream_submit until the executor has completed it. Sequence numbers grow over all
// streams of a device, which is what the implicit order of the legacy stream is derived from: an operation of the legacy stream
// waits for everything older in the context's blocking streams, and theirs for everything older in the legacy stream.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_STREAM_H
#define SIMGPU_DRIVER_STREAM_H

#include "simgpu/driver/api.h"

struct capture;
struct launch;
struct CUctx_st;
struct CUmemPoolHandle_st;
struct graph_memory;

// As deep as the real launch queue; a launch into a full one blocks.
#define STREAM_DEPTH 1024

// One recording of an event, or of several streams at once. Reference-counted: the event, the queue and the waits hold it.
struct record {
    unsigned references;
    unsigned pending; // streams that have not reached it
    bool awaited;     // by a thread of the program
    uint64_t time_ns; // when the last one did
};

struct copy {
    void *dst;
    const void *src;
    size_t dst_pitch, src_pitch, width, height; // height rows of width bytes
    size_t dst_slice, src_slice, depth;         // depth slices of height rows
    void *staging;                              // freed with the operation
};

struct fill {
    void *dst;
    size_t pitch, width, height; // height rows of width elements
    unsigned element_bytes;
    uint32_t value;
};

enum op_kind {
    OP_NOTHING,
    OP_KERNEL,
    OP_COPY,
    OP_FILL,
    OP_HOST,
    OP_RECORD,
    OP_WAIT_RECORD,
    OP_POOL_FREE,
    OP_GRAPH_ALLOC, // done when the graph is launched
    OP_GRAPH_FREE,
    OP_WRITE_VALUE,
    OP_WAIT_VALUE,
    OP_EVENT_RECORD, // in graphs only: becomes OP_RECORD when the graph is launched
    OP_EVENT_WAIT,   // in graphs only: becomes OP_WAIT_RECORD
};

struct op {
    struct op *next;
    uint64_t sequence;
    enum op_kind kind;
    int priority; // of a kernel; kept and told, but kernels run by that of their stream
    union {
        struct launch *launch;
        struct copy copy;
        struct fill fill;
        struct {
            CUhostFn function;
            CUstreamCallback callback; // instead of the function
            CUstream stream;           // for the callback
            void *data;
        } host;
        struct record *record;
        struct CUevent_st *event;
        struct CUmemPoolHandle_st *pool;
        struct graph_memory *graph_memory;
        struct {
            void *address;
            uint64_t value;
            unsigned bytes, flags;
        } memory;
    };
};

struct CUstream_st {
    struct CUctx_st *ctx;
    struct CUctx_st *green;   // what the program knows it to belong to, where that is a green context
    struct CUstream_st *next; // in ctx->streams
    unsigned flags;
    int priority;
    uint64_t id;
    bool legacy;
    bool destroyed; // freed when its queue is empty and nobody waits for it
    unsigned waiters;
    bool running;       // the head is being executed, outside the lock
    uint64_t thread_id; // of a per-thread stream, else 0
    struct op *head, *tail;
    unsigned depth;
    bool full;        // somebody waits for room in the queue
    uint64_t awaited; // the lowest sequence number that somebody waits for, UINT64_MAX if nobody does
    // Capture: what the stream takes part in, and the nodes that the next one will depend on.
    struct capture *capture;
    CUgraphNode *capture_deps;
    size_t capture_dep_count;
};

// A priority within the device's range.
int stream_clamp_priority(int priority);

// Makes a stream of the context. NULL when memory is short.
struct CUstream_st *stream_new(struct CUctx_st *ctx, unsigned flags, int priority);

// Frees a stream whose queue is empty.
void stream_free(struct CUstream_st *stream);

// Resolves a stream argument in the current context: NULL and the special handles stand for the default streams.
// CUDA_ERROR_INVALID_HANDLE for anything unknown, CUDA_ERROR_CONTEXT_IS_DESTROYED if its context is gone.
CUresult stream_resolve(bool per_thread, CUstream handle, struct CUstream_st **stream);

// Queues a copy of *op, or adds it to the stream's capture as a node. Takes over what the operation refers to, also on failure.
CUresult stream_submit(struct CUstream_st *stream, const struct op *op);

// Waits while the queue is full. CUDA_ERROR_INVALID_HANDLE if the stream was destroyed meanwhile; then it must not be touched.
CUresult stream_wait_room(struct CUstream_st *stream);

// Both of it.
CUresult stream_submit_bounded(struct CUstream_st *stream, const struct op *op);

// Blocks until the work submitted so far is done: of a stream (with what the legacy stream implies), of a context, of the
// process. The lock is given up meanwhile, so whatever was looked up before must be looked up again.
void stream_wait_idle(struct CUstream_st *stream);
void stream_wait_context_idle(struct CUctx_st *ctx);
void stream_wait_all_idle(void);

// Blocks until a recording is complete. The caller holds a reference.
void stream_wait_record(struct record *record);

// True if nothing is queued that stream_wait_idle would wait for.
bool stream_is_idle(struct CUstream_st *stream);

// True if the operation, the head of its stream, may run now.
bool stream_head_ready(const struct CUstream_st *stream);

// Takes the finished head off the queue and tells whoever waits.
void stream_complete_head(struct CUstream_st *stream);

// Copies what an operation refers to, or lets go of it.
void op_retain(const struct op *op);
void op_release(const struct op *op);

struct record *record_new(unsigned pending);
void record_release(struct record *record);

#endif
