// Stream-ordered memory and memory pools.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

static cudaError_t cudaMallocAsync_any(const struct driver *table, void **pointer, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = runtime_enter();

    if (!error && !pointer)
        error = cudaErrorInvalidValue;
    if (error)
        return runtime_leave(error);
    *pointer = NULL;
    return bytes ? runtime_leave((cudaError_t)table->cuMemAllocAsync((CUdeviceptr *)pointer, bytes, stream)) : cudaSuccess;
}
TWIN(cudaMallocAsync, _ptsz, (void **pointer, size_t bytes, cudaStream_t stream), pointer, bytes, stream)

static cudaError_t cudaFreeAsync_any(const struct driver *table, void *pointer, cudaStream_t stream)
{
    cudaError_t error = runtime_enter();
    return runtime_leave(error || !pointer ? error : (cudaError_t)table->cuMemFreeAsync((CUdeviceptr)pointer, stream));
}
TWIN(cudaFreeAsync, _ptsz, (void *pointer, cudaStream_t stream), pointer, stream)

static cudaError_t cudaMallocFromPoolAsync_any(const struct driver *table, void **pointer, size_t bytes, cudaMemPool_t pool,
                                               cudaStream_t stream)
{
    return DRIVER(table, cuMemAllocFromPoolAsync, (CUdeviceptr *)pointer, bytes, pool, stream);
}
TWIN(cudaMallocFromPoolAsync, _ptsz, (void **pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream), pointer, bytes,
     pool, stream)

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    return DRIVER(LEGACY, cuDeviceGetDefaultMemPool, pool, device);
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t *pool, int device)
{
    return DRIVER(LEGACY, cuDeviceGetMemPool, pool, device);
}

cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool)
{
    return DRIVER(LEGACY, cuDeviceSetMemPool, device, pool);
}

_Static_assert(sizeof(struct cudaMemPoolProps) == sizeof(CUmemPoolProps),
               "the driver takes the runtime's properties as they are");

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties)
{
    return DRIVER(LEGACY, cuMemPoolCreate, pool, (const CUmemPoolProps *)properties);
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool)
{
    return DRIVER(LEGACY, cuMemPoolDestroy, pool);
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep)
{
    return DRIVER(LEGACY, cuMemPoolTrimTo, pool, keep);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
{
    return DRIVER(LEGACY, cuMemPoolSetAttribute, pool, (CUmemPool_attribute)attribute, value);
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
{
    return DRIVER(LEGACY, cuMemPoolGetAttribute, pool, (CUmemPool_attribute)attribute, value);
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const struct cudaMemAccessDesc *descriptions, size_t count)
{
    return DRIVER(LEGACY, cuMemPoolSetAccess, pool, (const CUmemAccessDesc *)descriptions, count);
}

cudaError_t cudaMemPoolGetAccess(enum cudaMemAccessFlags *flags, cudaMemPool_t pool, struct cudaMemLocation *location)
{
    return DRIVER(LEGACY, cuMemPoolGetAccess, (CUmemAccess_flags *)flags, pool, (CUmemLocation *)location);
}

cudaError_t cudaMemPoolExportToShareableHandle(void *handle, cudaMemPool_t pool, enum cudaMemAllocationHandleType type,
                                               unsigned flags)
{
    return DRIVER(LEGACY, cuMemPoolExportToShareableHandle, handle, pool, (CUmemAllocationHandleType)type, flags);
}

cudaError_t cudaMemPoolImportFromShareableHandle(cudaMemPool_t *pool, void *handle, enum cudaMemAllocationHandleType type,
                                                 unsigned flags)
{
    return DRIVER(LEGACY, cuMemPoolImportFromShareableHandle, pool, handle, (CUmemAllocationHandleType)type, flags);
}

cudaError_t cudaMemPoolExportPointer(struct cudaMemPoolPtrExportData *data, void *pointer)
{
    return DRIVER(LEGACY, cuMemPoolExportPointer, (CUmemPoolPtrExportData *)data, (CUdeviceptr)pointer);
}

cudaError_t cudaMemPoolImportPointer(void **pointer, cudaMemPool_t pool, struct cudaMemPoolPtrExportData *data)
{
    return DRIVER(LEGACY, cuMemPoolImportPointer, (CUdeviceptr *)pointer, pool, (CUmemPoolPtrExportData *)data);
}
