// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: launches. Each wrapper forwards; with an unseen runtime, the launch passes the gate here.
#include "shim/runtime_api.h"

#define UNPACK(...) __VA_ARGS__

// Defines the wrapper NAME; what it passes on comes last. For a seen runtime it ends in a jump to the runtime's function, without a frame of
// its own. NAME_watched does what there is to do for another.
#define LAUNCH(name, driver_stream, function, parameters, ...)                                                                 \
    __attribute__((noinline)) static cudaError_t name##_watched(const void *caller, UNPACK parameters)                         \
    {                                                                                                                          \
        struct runtime *runtime = runtime_of(caller);                                                                          \
        enum runtime_sight sight = runtime_sight(runtime);                                                                     \
        unsigned calls = driver_layer_calls;                                                                                   \
        struct runtime_turn turn;                                                                                              \
        cudaError_t launched = cudaErrorInitializationError;                                                                   \
        if (sight != RUNTIME_UNSEEN) {                                                                                         \
            launched = RUNTIME_REAL(runtime, name)(__VA_ARGS__);                                                               \
            if (sight == RUNTIME_UNDECIDED)                                                                                    \
                runtime_decide(runtime, launched, calls);                                                                      \
        } else if (runtime_turn_begin(&turn, (driver_stream), (function))) {                                                   \
            launched = RUNTIME_REAL(runtime, name)(__VA_ARGS__);                                                               \
            runtime_turn_end(&turn);                                                                                           \
        }                                                                                                                      \
        return launched;                                                                                                       \
    }                                                                                                                          \
    cudaError_t name parameters                                                                                                \
    {                                                                                                                          \
        const void *caller = __builtin_return_address(0);                                                                      \
        __typeof__(name) *real = RUNTIME_REAL_IF_SEEN(caller, name);                                                           \
        return __builtin_expect(real != NULL, 1) ? real(__VA_ARGS__) : name##_watched(caller, __VA_ARGS__);                    \
    }

#define KERNEL (const void *func, dim3 gridDim, dim3 blockDim, void **args, size_t sharedMem, cudaStream_t stream)
#define CONFIGURED (const cudaLaunchConfig_t *config, const void *func, void **args)
#define GRAPH (cudaGraphExec_t graphExec, cudaStream_t stream)
#define CONFIGURED_STREAM (config ? config->stream : NULL)

LAUNCH(cudaLaunchKernel, stream, func, KERNEL, func, gridDim, blockDim, args, sharedMem, stream)
LAUNCH(cudaLaunchKernel_ptsz, own_stream(stream), func, KERNEL, func, gridDim, blockDim, args, sharedMem, stream)
LAUNCH(cudaLaunchKernelExC, CONFIGURED_STREAM, func, CONFIGURED, config, func, args)
LAUNCH(cudaLaunchKernelExC_ptsz, own_stream(CONFIGURED_STREAM), func, CONFIGURED, config, func, args)
LAUNCH(cudaLaunchCooperativeKernel, stream, func, KERNEL, func, gridDim, blockDim, args, sharedMem, stream)
LAUNCH(cudaLaunchCooperativeKernel_ptsz, own_stream(stream), func, KERNEL, func, gridDim, blockDim, args, sharedMem, stream)
LAUNCH(cudaGraphLaunch, stream, graphExec, GRAPH, graphExec, stream)
LAUNCH(cudaGraphLaunch_ptsz, own_stream(stream), graphExec, GRAPH, graphExec, stream)

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" // by CUDA 11 and 12
cudaError_t cudaLaunchCooperativeKernelMultiDevice(struct cudaLaunchParams *launches, unsigned int count, unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    enum runtime_sight sight = runtime_sight(runtime);
    struct launch_group group = {0};
    unsigned calls = driver_layer_calls;
    if (sight == RUNTIME_UNSEEN && !device_attached())
        return cudaErrorInitializationError;
    for (unsigned int i = 0; sight == RUNTIME_UNSEEN && launches && i < count; i++)
        launch_group_add(&group, launches[i].stream, launches[i].func);
    launch_group_enter(&group);
    cudaError_t result = RUNTIME_REAL(runtime, cudaLaunchCooperativeKernelMultiDevice)(launches, count, flags);
    launch_group_leave(&group);
    if (sight == RUNTIME_UNDECIDED)
        runtime_decide(runtime, result, calls);
    return result;
}
