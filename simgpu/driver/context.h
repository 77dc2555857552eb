// SPDX-License-Identifier: AGPL-3.0-or-later
// Contexts: primary ones, created ones, and each thread's stack of current ones.
//
// A context object is never freed, since threads may still have it on their stacks; a destroyed one answers
// CUDA_ERROR_CONTEXT_IS_DESTROYED there and is unknown as a handle. A primary context keeps its handle over release and retain.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_CONTEXT_H
#define SIMGPU_DRIVER_CONTEXT_H

#include "simgpu/device/kernel.h"
#include "simgpu/driver/api.h"
#include "simgpu/driver/device.h"

struct CUstream_st;
struct allocation;
struct small_block;
struct CUmod_st;

// What a context takes beyond what it took when it was made: with its first module; for the frames of all threads that can be resident,
// where they or the stack limit are larger than by default; and for the heap, at the first launch of a kernel that uses it.
enum context_growth { GROWTH_MODULES, GROWTH_LOCAL, GROWTH_HEAP, GROWTHS };

struct CUctx_st {
    struct device *device;
    struct CUctx_st *next;  // in device->contexts
    struct CUctx_st *older; // in the list of all contexts that ever were
    unsigned flags, api_version;
    uint64_t id;
    struct CUctx_st *base; // of a green context: the primary one, which does everything for it
    bool primary, live;
    bool dying;                  // its queues are being drained: waits no longer hold anything up
    unsigned retained;           // of a primary context
    struct CUstream_st *streams; // all of them, the legacy and the per-thread ones included
    struct CUstream_st *legacy;
    struct allocation *allocations; // what is freed with the context
    struct small_block *small_blocks, *small_array_blocks;
    struct CUmod_st *modules;
    size_t limits[CU_LIMIT_MAX];
    uint64_t grown_bytes[GROWTHS];
    uint32_t frame_bytes; // the largest frame that GROWTH_LOCAL is for, 0 where that is for the stack limit
    unsigned attached;    // cuCtxAttach, and the creation
    CUfunc_cache cache_config;
    CUsharedconfig shared_config;
};

// The calling thread's current context: CUDA_ERROR_INVALID_CONTEXT if none, CUDA_ERROR_CONTEXT_IS_DESTROYED if it is gone.
CUresult context_current(struct CUctx_st **ctx);

// The context of a handle; NULL stands for the current one.
CUresult context_from_handle(CUcontext handle, struct CUctx_st **ctx);

// Makes the primary context of a device live without a retain, as the first stream-ordered use of a device does not need one.
CUresult context_activate(struct CUctx_st *ctx, unsigned flags);

// What a limit is when a context is made.
size_t context_default_limit(CUlimit limit);

// What a context grows by: to `bytes` in all. CUDA_ERROR_OUT_OF_MEMORY leaves it as it is.
CUresult context_grow(struct CUctx_st *ctx, enum context_growth growth, uint64_t bytes);
// The first module of a context, and the launch of a kernel.
CUresult context_grow_for_module(struct CUctx_st *ctx);
CUresult context_grow_for_launch(struct CUctx_st *ctx, const struct simgpu_kernel *kernel);
// Frames, or a stack limit, of so many bytes per thread.
CUresult context_grow_local(struct CUctx_st *ctx, size_t bytes_per_thread);

// Waits for everything, then frees what belongs to the context.
void context_shut_down(struct CUctx_st *ctx);

// Makes an object for a context that is not live yet. NULL when memory is short.
struct CUctx_st *context_new(struct device *device, bool primary);

// The calling thread's stack of contexts.
void context_push(struct CUctx_st *ctx);
struct CUctx_st *context_pop(void);
struct CUctx_st *context_top(void);
void context_set_top(struct CUctx_st *ctx);

#endif
