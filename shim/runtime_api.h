// SPDX-License-Identifier: AGPL-3.0-or-later
// The CUDA runtime's prototypes as its implementer sees them, and the common parts of the wrappers of the runtime layer.
//
// A runtime's driver calls normally pass the hooks, and the driver layer does everything. The functions here notice when they
// do not, because the runtime's dlsym is bound past this library (RTLD_DEEPBIND): each brackets one call that must reach the
// driver. From the first such call on, the runtime is "unseen": one warning says so, the process attaches if it has not yet,
// and what the runtime allocates and launches is charged and gated here. While the process is not attached, the runtime gets
// nothing.
#ifndef VGPU_SHIM_RUNTIME_API_H
#define VGPU_SHIM_RUNTIME_API_H

#include "shim/runtime.h"

#pragma GCC visibility push(default)
#include <cuda_runtime_api.h>

// Only in the runtimes of CUDA 12.
cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *prop, int device);

// Only in those of CUDA 11 and 12.
#if CUDART_VERSION >= 13000
struct cudaLaunchParams {
    void *func;
    dim3 gridDim, blockDim;
    void **args;
    size_t sharedMem;
    cudaStream_t stream;
};
cudaError_t cudaLaunchCooperativeKernelMultiDevice(struct cudaLaunchParams *launches, unsigned int count, unsigned int flags);
#endif

// Since CUDA 12.3.
typedef struct cudaGraphEdgeData_st cudaGraphEdgeData;
cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                          const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                               const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode);
#pragma GCC visibility pop

#if CUDART_VERSION >= 12050 // the first to declare all of them
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#define RUNTIME_TWIN(name, base)                                                                                               \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __typeof__(base)), #name " has the type of " #base);
#include "shim/hooks.def"
#pragma GCC diagnostic pop
#endif

#include "shim/launch.h"

static inline enum runtime_sight runtime_sight(struct runtime *runtime)
{
    return atomic_load_explicit(&runtime->sight, memory_order_relaxed);
}

// Decides about an undecided runtime after a call that must reach the driver and that began when the thread's count was
// `calls`. Returns whether the call bypassed the hooks. For the first runtime found unseen, warns and attaches the process.
bool runtime_decide(struct runtime *runtime, cudaError_t result, unsigned calls);

// An allocation in progress.
struct runtime_charge {
    struct runtime *runtime;
    struct holdings *holdings; // of the device; NULL: nothing taken, since the driver layer charges
    uint64_t taken;
    unsigned calls;
};

// Before the runtime is asked for `bytes`. False: refused; then the caller returns runtime_refuse().
bool runtime_charge_begin(struct runtime_charge *charge, struct runtime *runtime, size_t bytes);

// After the call: settles the charge for *pointer of `bytes`. An allocation that does not fit is freed (by cudaFreeAsync into
// `stream` if `async` is set) and refused. Returns the wrapper's result.
cudaError_t runtime_charge_end(struct runtime_charge *charge, cudaError_t result, void **pointer, size_t bytes, bool async,
                               cudaStream_t stream);

// Refuses as the runtime itself would, so that cudaGetLastError() says the same.
cudaError_t runtime_refuse(struct runtime *runtime);

// Memory without an address, such as arrays, for an unseen runtime. Takes `bytes` in whole blocks, or refuses; enters them
// under `handle` (false: out of memory, nothing is held any more); gives back what was taken under a handle.
bool runtime_take(size_t bytes, struct holdings **holdings, uint64_t *taken);
bool runtime_keep(const void *handle, struct holdings *holdings, uint64_t taken);
void runtime_give(const void *handle);

// A launch in progress.
struct runtime_turn {
    struct device *device;
    enum gate_pass pass;
    void *stream; // as the driver names it
    const void *function;
};

// Before and after a launch of an unseen runtime. False: nothing may be launched; the wrapper returns
// cudaErrorInitializationError.
bool runtime_turn_begin(struct runtime_turn *turn, void *stream, const void *function);
void runtime_turn_end(const struct runtime_turn *turn);

// Replaces what an unseen runtime says of memory by what the tenant is told: for the current device, or for one by its ordinal.
void runtime_tell_current(size_t *free_bytes, size_t *total_bytes);
void runtime_tell_total(int ordinal, size_t *total_bytes);

// Ends the current device's primary context in the books, for an unseen runtime that is about to reset the device.
void runtime_end_context(void);

#endif
