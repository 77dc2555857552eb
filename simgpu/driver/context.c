// Lifetime of contexts and the per-thread stack.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/context.h"

#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/executor.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/module.h"
#include "simgpu/driver/pool.h"
#include "simgpu/driver/stream.h"
#include "simgpu/state/state.h"

// Deeper stacks are refused, as the depth of a real program's is one or two.
#define STACK_DEPTH 64

static _Thread_local struct CUctx_st *stack[STACK_DEPTH];
static _Thread_local unsigned depth;

void context_push(struct CUctx_st *ctx)
{
    if (depth < STACK_DEPTH)
        stack[depth++] = ctx;
}

struct CUctx_st *context_pop(void)
{
    return depth ? stack[--depth] : NULL;
}

struct CUctx_st *context_top(void)
{
    return depth ? stack[depth - 1] : NULL;
}

void context_set_top(struct CUctx_st *ctx)
{
    if (depth)
        depth--;
    if (ctx)
        context_push(ctx);
}

CUresult context_current(struct CUctx_st **ctx)
{
    *ctx = context_top();
    if (!*ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if ((*ctx)->base)
        *ctx = (*ctx)->live ? (*ctx)->base : *ctx;
    return (*ctx)->live && !(*ctx)->dying ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

CUresult context_from_handle(CUcontext handle, struct CUctx_st **ctx)
{
    if (!handle)
        return context_current(ctx);
    if (!handle_is(handle, HANDLE_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    *ctx = handle->base ? handle->base : handle;
    return CUDA_SUCCESS;
}

struct CUctx_st *context_new(struct device *device, bool primary)
{
    static uint64_t last_id;
    static struct CUctx_st *all; // keeps dead contexts reachable for leak checkers
    struct CUctx_st *ctx = getenv("SIMGPU_REUSE") ? all : NULL;

    // With SIMGPU_REUSE a context gets the handle of one that was destroyed, as drivers may do. By default mistakes with dead ones show.
    while (ctx && (ctx->live || ctx->primary || ctx->base))
        ctx = ctx->older;
    if (!ctx) {
        ctx = calloc(1, sizeof *ctx);
        if (!ctx)
            return NULL;
        ctx->older = all;
        all = ctx;
    }
    *ctx = (struct CUctx_st){
        .older = ctx->older, .device = device, .primary = primary, .id = ++last_id, .api_version = DRIVER_VERSION};
    return ctx;
}

size_t context_default_limit(CUlimit limit)
{
    static const size_t defaults[CU_LIMIT_MAX] = {
        [CU_LIMIT_STACK_SIZE] = 1024,
        [CU_LIMIT_PRINTF_FIFO_SIZE] = 7 << 20,
        [CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20,
        [CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2,
        [CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048,
        [CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64,
    };
    return defaults[limit];
}

static uint64_t heap_bytes(size_t limit)
{
    return blocks_round(limit) + STATE_BLOCK_BYTES;
}

static uint64_t first_module_bytes(void)
{
    return blocks_round(state_file()->context_bytes / 4);
}

// The setting says what a context in use costs.
static uint64_t creation_bytes(void)
{
    return state_file()->context_bytes - first_module_bytes() - heap_bytes(context_default_limit(CU_LIMIT_MALLOC_HEAP_SIZE));
}

CUresult context_grow(struct CUctx_st *ctx, enum context_growth growth, uint64_t bytes)
{
    uint64_t *grown = &ctx->grown_bytes[growth];
    if (bytes > *grown && state_reserve(ctx->device->index, bytes - *grown))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (bytes < *grown)
        state_release(ctx->device->index, *grown - bytes);
    *grown = bytes;
    return CUDA_SUCCESS;
}

CUresult context_grow_local(struct CUctx_st *ctx, size_t bytes_per_thread)
{
    const size_t least = context_default_limit(CU_LIMIT_STACK_SIZE), threads = (size_t)DEVICE_SM_COUNT * DEVICE_THREADS_PER_SM;
    if (bytes_per_thread > state_file()->capacity_bytes / threads)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return context_grow(ctx, GROWTH_LOCAL, bytes_per_thread > least ? blocks_round((bytes_per_thread - least) * threads) : 0);
}

CUresult context_grow_for_module(struct CUctx_st *ctx)
{
    return context_grow(ctx, GROWTH_MODULES, first_module_bytes());
}

CUresult context_grow_for_launch(struct CUctx_st *ctx, const struct simgpu_kernel *kernel)
{
    CUresult rc = CUDA_SUCCESS;
    if (kernel->frame_bytes > ctx->limits[CU_LIMIT_STACK_SIZE] && kernel->frame_bytes > ctx->frame_bytes) {
        rc = context_grow_local(ctx, kernel->frame_bytes);
        ctx->frame_bytes = rc ? ctx->frame_bytes : kernel->frame_bytes;
    }
    if (!rc && kernel->uses_heap && !ctx->grown_bytes[GROWTH_HEAP])
        rc = context_grow(ctx, GROWTH_HEAP, heap_bytes(ctx->limits[CU_LIMIT_MALLOC_HEAP_SIZE]));
    return rc;
}

CUresult context_activate(struct CUctx_st *ctx, unsigned flags)
{
    struct device *device = ctx->device;

    if (ctx->live)
        return CUDA_SUCCESS;
    CUresult rc = executor_start(device);
    if (rc)
        return rc;
    if (state_reserve(device->index, creation_bytes()))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!handle_add(ctx, HANDLE_CONTEXT))
        goto no_memory;
    ctx->legacy = stream_new(ctx, CU_STREAM_DEFAULT, 0);
    if (!ctx->legacy) {
        handle_remove(ctx);
        goto no_memory;
    }
    ctx->legacy->legacy = true;
    ctx->flags = flags;
    ctx->attached = 1;
    for (int i = 0; i < CU_LIMIT_MAX; i++)
        ctx->limits[i] = context_default_limit((CUlimit)i);
    ctx->live = true;
    ctx->next = device->contexts;
    device->contexts = ctx;
    atomic_fetch_add(&state_file()->slot[state_slot_index()].device[device->index].contexts, 1);
    return CUDA_SUCCESS;
no_memory:
    state_release(device->index, creation_bytes());
    return CUDA_ERROR_OUT_OF_MEMORY;
}

void context_shut_down(struct CUctx_st *ctx)
{
    struct device *device = ctx->device;

    if (!ctx->live || ctx->dying)
        return;
    ctx->dying = true;
    handle_remove(ctx);
    executor_wake(device);
    for (struct CUstream_st *stream = ctx->streams, *next; stream; stream = next) {
        next = stream->next;
        capture_drop_stream(stream);
    }
    stream_wait_context_idle(ctx);
    for (struct CUstream_st *stream = ctx->streams, *next; stream; stream = next) {
        next = stream->next;
        handle_remove(stream);
        stream->destroyed = true;
        // A thread that still waits frees the stream when it notices.
        if (!stream->waiters)
            stream_free(stream);
    }
    while (ctx->modules)
        module_free(ctx->modules);
    while (ctx->allocations)
        memory_free(ctx->allocations);
    for (int i = 0; i < GROWTHS; i++)
        context_grow(ctx, (enum context_growth)i, 0);
    ctx->frame_bytes = 0;
    struct CUctx_st **link = &device->contexts;
    while (*link != ctx)
        link = &(*link)->next;
    *link = ctx->next;
    if (!device->contexts) {
        pool_reset_device(device);
        graph_memory_reset_device(device);
    }
    ctx->legacy = NULL;
    ctx->live = ctx->dying = false;
    state_release(device->index, creation_bytes());
    atomic_fetch_sub(&state_file()->slot[state_slot_index()].device[device->index].contexts, 1);
    api_progress();
}
