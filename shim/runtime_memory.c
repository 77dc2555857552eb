// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: allocation, freeing, and what the program is told about memory.
#include "shim/runtime_api.h"

#include "allocator/allocations.h"

// The runtime's pitch is not known before it answers; every GPU so far aligns to 512 bytes. The real pitch settles the charge
// afterwards.
#define LIKELY_PITCH 512u

static size_t pitched(size_t width, size_t rows)
{
    return holdings_product(holdings_round_up(width, LIKELY_PITCH), rows);
}

cudaError_t cudaMalloc(void **devPtr, size_t size)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct runtime_charge charge;
    if (!runtime_charge_begin(&charge, runtime, size))
        return runtime_refuse(runtime);
    cudaError_t result = RUNTIME_REAL(runtime, cudaMalloc)(devPtr, size);
    return runtime_charge_end(&charge, result, devPtr, size, false, NULL);
}

cudaError_t cudaMallocManaged(void **devPtr, size_t size, unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct runtime_charge charge;
    if (!runtime_charge_begin(&charge, runtime, size))
        return runtime_refuse(runtime);
    cudaError_t result = RUNTIME_REAL(runtime, cudaMallocManaged)(devPtr, size, flags);
    return runtime_charge_end(&charge, result, devPtr, size, false, NULL);
}

cudaError_t cudaMallocPitch(void **devPtr, size_t *pitch, size_t width, size_t height)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct runtime_charge charge;
    if (!runtime_charge_begin(&charge, runtime, pitched(width, height)))
        return runtime_refuse(runtime);
    cudaError_t result = RUNTIME_REAL(runtime, cudaMallocPitch)(devPtr, pitch, width, height);
    return runtime_charge_end(&charge, result, devPtr, result == cudaSuccess ? holdings_product(*pitch, height) : 0, false,
                              NULL);
}

cudaError_t cudaMalloc3D(struct cudaPitchedPtr *pitchedDevPtr, struct cudaExtent extent)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct runtime_charge charge;
    size_t rows = holdings_product(extent.height, extent.depth);
    if (!runtime_charge_begin(&charge, runtime, pitched(extent.width, rows)))
        return runtime_refuse(runtime);
    cudaError_t result = RUNTIME_REAL(runtime, cudaMalloc3D)(pitchedDevPtr, extent);
    if (result != cudaSuccess)
        return runtime_charge_end(&charge, result, NULL, 0, false, NULL);
    return runtime_charge_end(&charge, result, &pitchedDevPtr->ptr, holdings_product(pitchedDevPtr->pitch, rows), false, NULL);
}

static cudaError_t malloc_async(struct runtime *runtime, __typeof__(cudaMallocAsync) *real, void **devPtr, size_t size,
                                cudaStream_t stream)
{
    struct runtime_charge charge;
    if (!runtime_charge_begin(&charge, runtime, size))
        return runtime_refuse(runtime);
    return runtime_charge_end(&charge, real(devPtr, size, stream), devPtr, size, true, stream);
}

cudaError_t cudaMallocAsync(void **devPtr, size_t size, cudaStream_t hStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return malloc_async(runtime, RUNTIME_REAL(runtime, cudaMallocAsync), devPtr, size, hStream);
}

cudaError_t cudaMallocAsync_ptsz(void **devPtr, size_t size, cudaStream_t hStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return malloc_async(runtime, RUNTIME_REAL(runtime, cudaMallocAsync_ptsz), devPtr, size, hStream);
}

static cudaError_t malloc_from_pool(struct runtime *runtime, __typeof__(cudaMallocFromPoolAsync) *real, void **ptr, size_t size,
                                    cudaMemPool_t pool, cudaStream_t stream)
{
    struct runtime_charge charge;
    if (!runtime_charge_begin(&charge, runtime, size))
        return runtime_refuse(runtime);
    return runtime_charge_end(&charge, real(ptr, size, pool, stream), ptr, size, true, stream);
}

cudaError_t cudaMallocFromPoolAsync(void **ptr, size_t size, cudaMemPool_t memPool, cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return malloc_from_pool(runtime, RUNTIME_REAL(runtime, cudaMallocFromPoolAsync), ptr, size, memPool, stream);
}

cudaError_t cudaMallocFromPoolAsync_ptsz(void **ptr, size_t size, cudaMemPool_t memPool, cudaStream_t stream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return malloc_from_pool(runtime, RUNTIME_REAL(runtime, cudaMallocFromPoolAsync_ptsz), ptr, size, memPool, stream);
}

// Freeing through an unseen runtime: the charge made here is withdrawn first, since another thread may get the address at once.
// This layer does not return what the driver layer has charged; the driver layer sees that free itself.
static bool withdraw(struct runtime *runtime, const void *pointer, struct allocation *allocation)
{
    return runtime_sight(runtime) == RUNTIME_UNSEEN && pointer && allocation_withdraw((uint64_t)(uintptr_t)pointer, allocation);
}

static cudaError_t settle(bool withdrawn, const struct allocation *allocation, cudaError_t result)
{
    if (withdrawn && result == cudaSuccess)
        allocation_return(allocation);
    else if (withdrawn)
        allocation_restore(allocation);
    return result;
}

cudaError_t cudaFree(void *devPtr)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct allocation allocation;
    bool withdrawn = withdraw(runtime, devPtr, &allocation);
    return settle(withdrawn, &allocation, RUNTIME_REAL(runtime, cudaFree)(devPtr));
}

cudaError_t cudaFreeAsync(void *devPtr, cudaStream_t hStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct allocation allocation;
    bool withdrawn = withdraw(runtime, devPtr, &allocation);
    return settle(withdrawn, &allocation, RUNTIME_REAL(runtime, cudaFreeAsync)(devPtr, hStream));
}

cudaError_t cudaFreeAsync_ptsz(void *devPtr, cudaStream_t hStream)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct allocation allocation;
    bool withdrawn = withdraw(runtime, devPtr, &allocation);
    return settle(withdrawn, &allocation, RUNTIME_REAL(runtime, cudaFreeAsync_ptsz)(devPtr, hStream));
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    unsigned calls = driver_layer_calls;
    cudaError_t result = RUNTIME_REAL(runtime, cudaMemGetInfo)(free, total);
    runtime_decide(runtime, result, calls);
    if (result == cudaSuccess && runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_tell_current(free, total);
    return result;
}

// The size is at the same place in every version of the structure, so one wrapper does for all.
_Static_assert(offsetof(struct cudaDeviceProp, totalGlobalMem) == 288, "where CUDA 11, 12 and 13 have it");

// The runtime reads the properties from the driver once and keeps them, so the absence of a driver call proves nothing here.
static cudaError_t adjust_properties(struct runtime *runtime, cudaError_t result, struct cudaDeviceProp *prop, int device)
{
    if (result == cudaSuccess && runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_tell_total(device, &prop->totalGlobalMem);
    return result;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return adjust_properties(runtime, RUNTIME_REAL(runtime, cudaGetDeviceProperties)(prop, device), prop, device);
}

cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *prop, int device)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    return adjust_properties(runtime, RUNTIME_REAL(runtime, cudaGetDeviceProperties_v2)(prop, device), prop, device);
}
