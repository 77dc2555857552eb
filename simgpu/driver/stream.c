// Queues of operations, their order, and waiting for them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/stream.h"

#include <stdlib.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/event.h"
#include "simgpu/driver/executor.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/launch.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/value.h"

static pthread_key_t thread_exit_key;
static pthread_once_t thread_exit_once = PTHREAD_ONCE_INIT;

int stream_clamp_priority(int priority)
{
    return priority > 0 ? 0 : priority < DEVICE_GREATEST_PRIORITY ? DEVICE_GREATEST_PRIORITY : priority;
}

struct CUstream_st *stream_new(struct CUctx_st *ctx, unsigned flags, int priority)
{
    static uint64_t last_id;
    struct CUstream_st *stream = calloc(1, sizeof *stream);

    if (!stream || !handle_add(stream, HANDLE_STREAM)) {
        free(stream);
        return NULL;
    }
    stream->ctx = ctx;
    stream->awaited = UINT64_MAX;
    stream->flags = flags;
    stream->priority = stream_clamp_priority(priority);
    stream->id = ++last_id;
    stream->next = ctx->streams;
    ctx->streams = stream;
    return stream;
}

void stream_free(struct CUstream_st *stream)
{
    struct CUstream_st **link = &stream->ctx->streams;

    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
    handle_remove(stream);
    free(stream->capture_deps);
    free(stream);
}

static void free_if_unused(struct CUstream_st *stream)
{
    if (stream->destroyed && !stream->head && !stream->waiters)
        stream_free(stream);
}

// The default streams of a thread end with it.
static void thread_exits(void *arg)
{
    uint64_t thread_id = (uint64_t)(uintptr_t)arg;
    struct device *device;

    if (!api_ready())
        return;
    api_lock();
    for (int i = 0; (device = device_get(i)); i++) {
        for (struct CUctx_st *ctx = device->contexts; ctx; ctx = ctx->next) {
            for (struct CUstream_st *stream = ctx->streams, *next; stream; stream = next) {
                next = stream->next;
                if (stream->thread_id == thread_id) {
                    capture_drop_stream(stream);
                    stream->destroyed = true;
                    free_if_unused(stream);
                }
            }
        }
    }
    api_unlock();
}

static void make_thread_exit_key(void)
{
    pthread_key_create(&thread_exit_key, thread_exits);
}

static struct CUstream_st *per_thread_stream(struct CUctx_st *ctx)
{
    uint64_t thread_id = capture_thread_id();

    for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next)
        if (stream->thread_id == thread_id)
            return stream;
    struct CUstream_st *stream = stream_new(ctx, CU_STREAM_DEFAULT, 0);
    if (stream) {
        stream->thread_id = thread_id;
        pthread_once(&thread_exit_once, make_thread_exit_key);
        pthread_setspecific(thread_exit_key, (void *)(uintptr_t)thread_id);
    }
    return stream;
}

CUresult stream_resolve(bool per_thread, CUstream handle, struct CUstream_st **stream)
{
    struct CUctx_st *ctx;

    if (handle != NULL && handle != CU_STREAM_LEGACY && handle != CU_STREAM_PER_THREAD) {
        if (!handle_is(handle, HANDLE_STREAM) || handle->destroyed)
            return CUDA_ERROR_INVALID_HANDLE;
        *stream = handle;
        return CUDA_SUCCESS;
    }
    CUresult rc = context_current(&ctx);
    if (rc)
        return rc;
    if (handle == CU_STREAM_PER_THREAD || (handle == NULL && per_thread))
        *stream = per_thread_stream(ctx);
    else
        *stream = ctx->legacy;
    return *stream ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static bool is_blocking(const struct CUstream_st *stream)
{
    return !stream->legacy && !(stream->flags & CU_STREAM_NON_BLOCKING);
}

CUresult stream_submit(struct CUstream_st *stream, const struct op *op)
{
    struct CUctx_st *ctx = stream->ctx;
    CUresult rc = CUDA_SUCCESS;

    if (stream->capture)
        return capture_add(stream, op);
    if (!ctx->live || ctx->dying)
        rc = CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (!rc && stream->legacy)
        rc = capture_forbid_legacy(ctx);
    struct op *queued = rc ? NULL : malloc(sizeof *queued);
    if (!queued) {
        op_release(op);
        return rc ? rc : CUDA_ERROR_OUT_OF_MEMORY;
    }
    *queued = *op;
    queued->next = NULL;
    queued->sequence = ++ctx->device->sequence;
    if (stream->head)
        stream->tail->next = queued;
    else
        stream->head = queued;
    stream->tail = queued;
    stream->depth++;
    executor_wake(ctx->device);
    return CUDA_SUCCESS;
}

CUresult stream_wait_room(struct CUstream_st *stream)
{
    stream->waiters++;
    while (stream->depth >= STREAM_DEPTH && !stream->destroyed && !stream->capture) {
        stream->full = true;
        api_wait_progress();
    }
    stream->waiters--;
    if (!stream->destroyed)
        return CUDA_SUCCESS;
    free_if_unused(stream);
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult stream_submit_bounded(struct CUstream_st *stream, const struct op *op)
{
    CUresult rc = stream_wait_room(stream);

    if (!rc)
        return stream_submit(stream, op);
    op_release(op);
    return rc;
}

static bool has_older(const struct CUstream_st *stream, uint64_t sequence)
{
    return stream->head && stream->head->sequence <= sequence;
}

// Whether anything up to `sequence` is left in a stream. If so and `wait`, its completion will wake the waiting threads.
static bool has_older_to_await(struct CUstream_st *stream, uint64_t sequence, bool wait)
{
    if (!has_older(stream, sequence))
        return false;
    if (wait && stream->awaited > sequence)
        stream->awaited = sequence;
    return true;
}

// The same for everything that a wait for the stream includes.
static bool busy(struct CUstream_st *stream, uint64_t sequence, bool wait)
{
    bool found = has_older_to_await(stream, sequence, wait);

    if (stream->legacy)
        for (struct CUstream_st *other = stream->ctx->streams; other; other = other->next)
            if (is_blocking(other))
                found |= has_older_to_await(other, sequence, wait);
    return found;
}

bool stream_is_idle(struct CUstream_st *stream)
{
    return !busy(stream, UINT64_MAX, false);
}

void stream_wait_idle(struct CUstream_st *stream)
{
    uint64_t sequence = stream->ctx->device->sequence;

    stream->waiters++;
    while (busy(stream, sequence, true))
        api_wait_progress();
    stream->waiters--;
    free_if_unused(stream);
}

void stream_wait_record(struct record *record)
{
    while (record->pending) {
        record->awaited = true;
        api_wait_progress();
    }
}

void stream_wait_context_idle(struct CUctx_st *ctx)
{
    uint64_t sequence = ctx->device->sequence;

    for (;;) {
        bool found = false;
        for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next)
            found |= has_older_to_await(stream, sequence, true);
        if (!found)
            return;
        api_wait_progress();
    }
}

void stream_wait_all_idle(void)
{
    struct device *device;

    // A context that is destroyed meanwhile is not freed, so its link can still be followed.
    for (int i = 0; (device = device_get(i)); i++)
        for (struct CUctx_st *ctx = device->contexts; ctx; ctx = ctx->next)
            stream_wait_context_idle(ctx);
}

bool stream_head_ready(const struct CUstream_st *stream)
{
    const struct op *op = stream->head;
    const struct CUctx_st *ctx = stream->ctx;

    if (stream->legacy) {
        for (struct CUstream_st *other = ctx->streams; other; other = other->next)
            if (is_blocking(other) && has_older(other, op->sequence))
                return false;
    } else if (is_blocking(stream) && has_older(ctx->legacy, op->sequence)) {
        return false;
    }
    if (ctx->dying)
        return true;
    if (op->kind == OP_WAIT_RECORD)
        return op->record->pending == 0;
    if (op->kind == OP_WAIT_VALUE)
        return value_reached(op);
    return true;
}

void stream_complete_head(struct CUstream_st *stream)
{
    struct op *op = stream->head;

    stream->head = op->next;
    if (!stream->head)
        stream->tail = NULL;
    stream->depth--;
    if (op->kind == OP_RECORD && !op->record->pending && op->record->awaited)
        api_progress();
    op_release(op);
    free(op);
    // Threads are woken when what they wait for is there, not after every operation: a launching thread that is woken for one
    // free place in the queue would be back at once.
    if (stream->full && stream->depth <= STREAM_DEPTH * 3 / 4) {
        stream->full = false;
        api_progress();
    }
    if (stream->awaited != UINT64_MAX && !has_older(stream, stream->awaited)) {
        stream->awaited = UINT64_MAX;
        api_progress();
    }
    free_if_unused(stream);
}

void op_retain(const struct op *op)
{
    switch (op->kind) {
    case OP_KERNEL:
        op->launch->references++;
        break;
    case OP_RECORD:
    case OP_WAIT_RECORD:
        op->record->references++;
        break;
    case OP_EVENT_RECORD:
    case OP_EVENT_WAIT:
        op->event->references++;
        break;
    case OP_POOL_FREE:
        pool_retain(op->pool);
        break;
    case OP_GRAPH_ALLOC:
    case OP_GRAPH_FREE:
        graph_memory_retain(op->graph_memory);
        break;
    default:
        break;
    }
}

void op_release(const struct op *op)
{
    switch (op->kind) {
    case OP_KERNEL:
        launch_release(op->launch);
        break;
    case OP_COPY:
        free(op->copy.staging);
        break;
    case OP_RECORD:
    case OP_WAIT_RECORD:
        record_release(op->record);
        break;
    case OP_EVENT_RECORD:
    case OP_EVENT_WAIT:
        event_release(op->event);
        break;
    case OP_POOL_FREE:
        pool_release(op->pool);
        break;
    case OP_GRAPH_ALLOC:
    case OP_GRAPH_FREE:
        graph_memory_release(op->graph_memory);
        break;
    default:
        break;
    }
}

struct record *record_new(unsigned pending)
{
    struct record *record = calloc(1, sizeof *record);
    if (record) {
        record->references = 1;
        record->pending = pending;
        record->time_ns = now_ns();
    }
    return record;
}

void record_release(struct record *record)
{
    if (--record->references == 0)
        free(record);
}
