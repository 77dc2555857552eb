// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: streams, synchronisation, reset. Nothing of it needs a turn on the GPU; creating a stream is one more call by which a
// runtime is noticed that does not pass the driver layer.
#include "shim/runtime_api.h"

static cudaError_t created(struct runtime *runtime, cudaError_t result, unsigned calls)
{
    runtime_decide(runtime, result, calls);
    return result;
}

cudaError_t cudaStreamCreate(cudaStream_t *pStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreate)(pStream), calls);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreateWithFlags)(pStream, flags), calls);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *pStream, unsigned int flags, int priority)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    return created(runtime, RUNTIME_REAL(runtime, cudaStreamCreateWithPriority)(pStream, flags, priority), calls);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaStreamDestroy)(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaStreamSynchronize)(stream);
}

cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t stream)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaStreamSynchronize_ptsz)(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
    return RUNTIME_REAL(RUNTIME_OF_CALLER(), cudaDeviceSynchronize)();
}

cudaError_t cudaDeviceReset(void)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    if (runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_end_context();
    return RUNTIME_REAL(runtime, cudaDeviceReset)();
}
