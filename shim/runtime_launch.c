// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: launches. Each wrapper forwards; with an unseen runtime, the launch passes the gate here.
#include "shim/runtime_api.h"

// One launch: `call` and what brackets it. A macro, so that for a seen runtime it is the plain call.
#define LAUNCH(runtime, driver_stream, function, call)                                                                         \
    __extension__({                                                                                                            \
        enum runtime_sight sight = runtime_sight(runtime);                                                                     \
        unsigned calls = driver_layer_calls;                                                                                   \
        struct runtime_turn turn;                                                                                              \
        cudaError_t launched = cudaErrorInitializationError;                                                                   \
        if (__builtin_expect(sight != RUNTIME_UNSEEN, 1)) {                                                                    \
            launched = (call);                                                                                                 \
            if (__builtin_expect(sight == RUNTIME_UNDECIDED, 0))                                                               \
                runtime_decide(runtime, launched, calls);                                                                      \
        } else if (runtime_turn_begin(&turn, (driver_stream), (function))) {                                                   \
            launched = (call);                                                                                                 \
            runtime_turn_end(&turn);                                                                                           \
        }                                                                                                                      \
        launched;                                                                                                              \
    })

cudaError_t cudaLaunchKernel(const void *func, dim3 gridDim, dim3 blockDim, void **args, size_t sharedMem, cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, stream, func,
                  RUNTIME_REAL(runtime, cudaLaunchKernel)(func, gridDim, blockDim, args, sharedMem, stream));
}

cudaError_t cudaLaunchKernel_ptsz(const void *func, dim3 gridDim, dim3 blockDim, void **args, size_t sharedMem,
                                  cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, own_stream(stream), func,
                  RUNTIME_REAL(runtime, cudaLaunchKernel_ptsz)(func, gridDim, blockDim, args, sharedMem, stream));
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *func, void **args)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, config ? config->stream : NULL, func,
                  RUNTIME_REAL(runtime, cudaLaunchKernelExC)(config, func, args));
}

cudaError_t cudaLaunchKernelExC_ptsz(const cudaLaunchConfig_t *config, const void *func, void **args)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, own_stream(config ? config->stream : NULL), func,
                  RUNTIME_REAL(runtime, cudaLaunchKernelExC_ptsz)(config, func, args));
}

cudaError_t cudaLaunchCooperativeKernel(const void *func, dim3 gridDim, dim3 blockDim, void **args, size_t sharedMem,
                                        cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, stream, func,
                  RUNTIME_REAL(runtime, cudaLaunchCooperativeKernel)(func, gridDim, blockDim, args, sharedMem, stream));
}

cudaError_t cudaLaunchCooperativeKernel_ptsz(const void *func, dim3 gridDim, dim3 blockDim, void **args, size_t sharedMem,
                                             cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, own_stream(stream), func,
                  RUNTIME_REAL(runtime, cudaLaunchCooperativeKernel_ptsz)(func, gridDim, blockDim, args, sharedMem, stream));
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, stream, graphExec, RUNTIME_REAL(runtime, cudaGraphLaunch)(graphExec, stream));
}

cudaError_t cudaGraphLaunch_ptsz(cudaGraphExec_t graphExec, cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return LAUNCH(runtime, own_stream(stream), graphExec, RUNTIME_REAL(runtime, cudaGraphLaunch_ptsz)(graphExec, stream));
}

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
