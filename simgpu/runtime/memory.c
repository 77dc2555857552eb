// Device, managed and host memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    return DRIVER(LEGACY, cuMemGetInfo, free_bytes, total);
}

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    cudaError_t error = runtime_enter();

    if (!error && !pointer)
        error = cudaErrorInvalidValue;
    if (error)
        return runtime_leave(error);
    *pointer = NULL;
    return bytes ? runtime_leave((cudaError_t)LEGACY->cuMemAlloc((CUdeviceptr *)pointer, bytes)) : cudaSuccess;
}

cudaError_t cudaMallocPitch(void **pointer, size_t *pitch, size_t width, size_t height)
{
    cudaError_t error = runtime_enter();

    if (!error && (!pointer || !pitch))
        error = cudaErrorInvalidValue;
    if (error)
        return runtime_leave(error);
    *pointer = NULL;
    *pitch = 0;
    if (!width || !height)
        return cudaSuccess;
    return runtime_leave((cudaError_t)LEGACY->cuMemAllocPitch((CUdeviceptr *)pointer, pitch, width, height, 4));
}

cudaError_t cudaMalloc3D(struct cudaPitchedPtr *pointer, struct cudaExtent extent)
{
    if (!pointer)
        return runtime_leave(cudaErrorInvalidValue);
    pointer->xsize = extent.width;
    pointer->ysize = extent.height;
    return cudaMallocPitch(&pointer->ptr, &pointer->pitch, extent.width, extent.height * extent.depth);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned flags)
{
    return DRIVER(LEGACY, cuMemAllocManaged, (CUdeviceptr *)pointer, bytes, flags);
}

cudaError_t cudaFree(void *pointer)
{
    cudaError_t error = runtime_enter();
    return runtime_leave(error || !pointer ? error : (cudaError_t)LEGACY->cuMemFree((CUdeviceptr)pointer));
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    return DRIVER(LEGACY, cuMemHostAlloc, pointer, bytes, 0);
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    return DRIVER(LEGACY, cuMemHostAlloc, pointer, bytes, flags);
}

cudaError_t cudaFreeHost(void *pointer)
{
    cudaError_t error = runtime_enter();
    return runtime_leave(error || !pointer ? error : (cudaError_t)LEGACY->cuMemFreeHost(pointer));
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
    return DRIVER(LEGACY, cuMemHostRegister, pointer, bytes, flags);
}

cudaError_t cudaHostUnregister(void *pointer)
{
    return DRIVER(LEGACY, cuMemHostUnregister, pointer);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    return DRIVER(LEGACY, cuMemHostGetDevicePointer, (CUdeviceptr *)device, host, flags);
}

cudaError_t cudaHostGetFlags(unsigned *flags, void *pointer)
{
    return DRIVER(LEGACY, cuMemHostGetFlags, flags, pointer);
}

static enum cudaMemoryType memory_type(CUmemorytype type, bool managed)
{
    if (managed)
        return cudaMemoryTypeManaged;
    return type == CU_MEMORYTYPE_HOST     ? cudaMemoryTypeHost
           : type == CU_MEMORYTYPE_DEVICE ? cudaMemoryTypeDevice
                                          : cudaMemoryTypeUnregistered;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
                                   CU_POINTER_ATTRIBUTE_HOST_POINTER};
    CUmemorytype type = 0;
    unsigned managed = 0;
    int device = -1;
    void *device_pointer = NULL, *host_pointer = NULL;
    void *answers[] = {&type, &managed, &device, &device_pointer, &host_pointer};
    cudaError_t error = runtime_enter();

    if (!error && !attributes)
        error = cudaErrorInvalidValue;
    if (!error)
        error = (cudaError_t)LEGACY->cuPointerGetAttributes(5, asked, answers, (CUdeviceptr)pointer);
    if (error)
        return runtime_leave(error);
    *attributes = (struct cudaPointerAttributes){.type = memory_type(type, managed != 0), .device = device};
    // Memory that nobody registered is the host's, where the pointer says.
    attributes->devicePointer = device_pointer;
    attributes->hostPointer = attributes->type == cudaMemoryTypeUnregistered ? (void *)pointer : host_pointer;
    return cudaSuccess;
}

#if CUDART_VERSION >= 13000
static CUmemLocation driver_location(struct cudaMemLocation location)
{
    return (CUmemLocation){.type = (CUmemLocationType)location.type, .id = location.id};
}

cudaError_t cudaMemAdvise(const void *pointer, size_t bytes, enum cudaMemoryAdvise advice, struct cudaMemLocation location)
{
    return DRIVER(LEGACY, cuMemAdvise, (CUdeviceptr)pointer, bytes, (CUmem_advise)advice, driver_location(location));
}

static cudaError_t cudaMemPrefetchAsync_any(const struct driver *table, const void *pointer, size_t bytes,
                                            struct cudaMemLocation location, unsigned flags, cudaStream_t stream)
{
    return DRIVER(table, cuMemPrefetchAsync, (CUdeviceptr)pointer, bytes, driver_location(location), flags, stream);
}
TWIN(cudaMemPrefetchAsync, _ptsz,
     (const void *pointer, size_t bytes, struct cudaMemLocation location, unsigned flags, cudaStream_t stream), pointer, bytes,
     location, flags, stream)
#else
static CUmemLocation device_location(int device)
{
    CUmemLocation location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    if (device == cudaCpuDeviceId)
        location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST};
    return location;
}

cudaError_t cudaMemAdvise(const void *pointer, size_t bytes, enum cudaMemoryAdvise advice, int device)
{
    return DRIVER(LEGACY, cuMemAdvise, (CUdeviceptr)pointer, bytes, (CUmem_advise)advice, device_location(device));
}

static cudaError_t cudaMemPrefetchAsync_any(const struct driver *table, const void *pointer, size_t bytes, int device,
                                            cudaStream_t stream)
{
    return DRIVER(table, cuMemPrefetchAsync, (CUdeviceptr)pointer, bytes, device_location(device), 0, stream);
}
TWIN(cudaMemPrefetchAsync, _ptsz, (const void *pointer, size_t bytes, int device, cudaStream_t stream), pointer, bytes, device,
     stream)
#endif

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *pointer)
{
    return DRIVER(LEGACY, cuIpcGetMemHandle, (CUipcMemHandle *)handle, (CUdeviceptr)pointer);
}

cudaError_t cudaIpcOpenMemHandle(void **pointer, cudaIpcMemHandle_t handle, unsigned flags)
{
    CUipcMemHandle driver_handle;
    __builtin_memcpy(&driver_handle, &handle, sizeof driver_handle);
    return DRIVER(LEGACY, cuIpcOpenMemHandle, (CUdeviceptr *)pointer, driver_handle, flags);
}

cudaError_t cudaIpcCloseMemHandle(void *pointer)
{
    return DRIVER(LEGACY, cuIpcCloseMemHandle, (CUdeviceptr)pointer);
}

// The context that the runtime uses on another device, made if need be. The thread keeps its own.
static cudaError_t peer_context(int peer, CUcontext *other)
{
    CUcontext own = NULL;
    cudaError_t error = runtime_enter() ?: (cudaError_t)LEGACY->cuCtxGetCurrent(&own);
    int device = context_device();

    if (error)
        return error;
    error = cudaSetDevice(peer) ?: (cudaError_t)LEGACY->cuCtxGetCurrent(other);
    cudaError_t back = cudaSetDevice(device) ?: (cudaError_t)LEGACY->cuCtxSetCurrent(own);
    return error ? error : back;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    CUcontext other = NULL;
    cudaError_t error = peer_context(peer, &other);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuCtxEnablePeerAccess(other, flags));
}

cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    CUcontext other = NULL;
    cudaError_t error = peer_context(peer, &other);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuCtxDisablePeerAccess(other));
}
