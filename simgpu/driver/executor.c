// Choosing, running and completing operations.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include "simgpu/driver/executor.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/engine.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/launch.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"

// A wait on a memory value is looked at this often; nobody tells when the value changes.
#define VALUE_POLL_NS 20000ull

struct executor {
    struct device *device;
    struct engine engine;
    pthread_cond_t work, host_work;
    struct CUstream_st *host_stream; // whose head is a host function that waits for its thread
};

// The ready head to run next. *polling tells whether a wait on a memory value is among those that are not ready.
static struct CUstream_st *choose(struct device *device, bool *polling)
{
    struct CUstream_st *best = NULL;

    *polling = false;
    for (struct CUctx_st *ctx = device->contexts; ctx; ctx = ctx->next) {
        for (struct CUstream_st *stream = ctx->streams; stream; stream = stream->next) {
            if (!stream->head || stream->running)
                continue;
            if (stream->head->kind == OP_HOST && device->executor->host_stream)
                continue;
            if (!stream_head_ready(stream)) {
                *polling |= stream->head->kind == OP_WAIT_VALUE;
                continue;
            }
            if (!best || stream->priority < best->priority ||
                (stream->priority == best->priority && stream->head->sequence < best->head->sequence))
                best = stream;
        }
    }
    return best;
}

static void run_copy(const struct copy *copy)
{
    for (size_t z = 0; z < copy->depth; z++)
        for (size_t y = 0; y < copy->height; y++)
            memmove((char *)copy->dst + z * copy->dst_slice + y * copy->dst_pitch,
                    (const char *)copy->src + z * copy->src_slice + y * copy->src_pitch, copy->width);
}

static void run_fill(const struct fill *fill)
{
    for (size_t y = 0; y < fill->height; y++) {
        char *row = (char *)fill->dst + y * fill->pitch;
        if (fill->element_bytes == 1) {
            memset(row, (int)(fill->value & 0xff), fill->width);
            continue;
        }
        for (size_t x = 0; x < fill->width; x++)
            memcpy(row + x * fill->element_bytes, &fill->value, fill->element_bytes);
    }
}

static void run_write_value(const struct op *op)
{
    if (op->memory.bytes == 4)
        __atomic_store_n((uint32_t *)op->memory.address, (uint32_t)op->memory.value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint64_t *)op->memory.address, op->memory.value, __ATOMIC_RELEASE);
}

static void run_unlocked(struct executor *executor, const struct op *op)
{
    switch (op->kind) {
    case OP_KERNEL:
        launch_run(op->launch, &executor->engine);
        break;
    case OP_COPY:
        run_copy(&op->copy);
        break;
    case OP_FILL:
        run_fill(&op->fill);
        break;
    case OP_WRITE_VALUE:
        run_write_value(op);
        break;
    default:
        break;
    }
}

// Executes the head of a stream and takes it off. Host functions are only handed over here.
static void run_head(struct executor *executor, struct CUstream_st *stream)
{
    struct op *op = stream->head;

    switch (op->kind) {
    case OP_HOST:
        stream->running = true;
        executor->host_stream = stream;
        pthread_cond_signal(&executor->host_work);
        return;
    case OP_RECORD:
        op->record->time_ns = now_ns();
        op->record->pending--;
        break;
    case OP_POOL_FREE:
        pool_free_reached(op->pool, stream, op->sequence);
        break;
    case OP_GRAPH_FREE:
        graph_memory_freed(op->graph_memory);
        break;
    case OP_NOTHING:
    case OP_WAIT_RECORD:
    case OP_WAIT_VALUE:
        break;
    default:
        stream->running = true;
        api_unlock();
        run_unlocked(executor, op);
        api_lock();
        stream->running = false;
    }
    stream_complete_head(stream);
}

static void *executor_main(void *arg)
{
    struct executor *executor = arg;
    bool polling;

    // Sleeping kernels want to wake up when they asked for it, not up to 50 us later.
    prctl(PR_SET_TIMERSLACK, 1);
    api_lock();
    for (;;) {
        struct CUstream_st *stream = choose(executor->device, &polling);
        if (stream) {
            run_head(executor, stream);
            continue;
        }
        engine_release(&executor->engine);
        api_wait(&executor->work, polling ? now_ns() + VALUE_POLL_NS : 0);
    }
    return NULL;
}

static void *host_main(void *arg)
{
    struct executor *executor = arg;

    api_set_in_host_function(true);
    api_lock();
    for (;;) {
        while (!executor->host_stream)
            api_wait(&executor->host_work, 0);
        struct CUstream_st *stream = executor->host_stream;
        const struct op *op = stream->head;
        api_unlock();
        if (op->host.callback)
            op->host.callback(op->host.stream, CUDA_SUCCESS, op->host.data);
        else
            op->host.function(op->host.data);
        api_lock();
        executor->host_stream = NULL;
        stream->running = false;
        stream_complete_head(stream);
        executor_wake(executor->device);
    }
    return NULL;
}

static bool start_thread(void *(*main)(void *), struct executor *executor, const char *name)
{
    sigset_t all, old;
    pthread_t thread;

    // The program's signals are for the program's threads.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&thread, NULL, main, executor);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return false;
    pthread_setname_np(thread, name);
    pthread_detach(thread);
    return true;
}

CUresult executor_start(struct device *device)
{
    if (device->executor)
        return CUDA_SUCCESS;
    struct executor *executor = calloc(1, sizeof *executor);
    if (!executor)
        return CUDA_ERROR_OUT_OF_MEMORY;
    executor->device = device;
    const char *mps = getenv("SIMGPU_MPS");
    executor->engine = (struct engine){.device = device->index, .beside = mps && strcmp(mps, "1") == 0};
    pthread_cond_init(&executor->work, NULL);
    pthread_cond_init(&executor->host_work, NULL);
    device->executor = executor;
    if (!start_thread(executor_main, executor, "simgpu-executor") || !start_thread(host_main, executor, "simgpu-host"))
        return CUDA_ERROR_OPERATING_SYSTEM;
    return CUDA_SUCCESS;
}

void executor_wake(struct device *device)
{
    if (device->executor)
        pthread_cond_signal(&device->executor->work);
}
