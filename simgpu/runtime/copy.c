// Copies and fills.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/copy.h"

static cudaError_t cudaMemcpy_any(const struct driver *table, void *dst, const void *src, size_t bytes,
                                  enum cudaMemcpyKind kind)
{
    cudaError_t error = runtime_enter();

    if (error || !bytes)
        return runtime_leave(error);
    switch (kind) {
    case cudaMemcpyHostToDevice:
        return runtime_leave((cudaError_t)table->cuMemcpyHtoD((CUdeviceptr)dst, src, bytes));
    case cudaMemcpyDeviceToHost:
        return runtime_leave((cudaError_t)table->cuMemcpyDtoH(dst, (CUdeviceptr)src, bytes));
    case cudaMemcpyDeviceToDevice:
        return runtime_leave((cudaError_t)table->cuMemcpyDtoD((CUdeviceptr)dst, (CUdeviceptr)src, bytes));
    case cudaMemcpyHostToHost:
    case cudaMemcpyDefault:
        return runtime_leave((cudaError_t)table->cuMemcpy((CUdeviceptr)dst, (CUdeviceptr)src, bytes));
    }
    return runtime_leave(cudaErrorInvalidMemcpyDirection);
}
TWIN(cudaMemcpy, _ptds, (void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind), dst, src, bytes, kind)

static cudaError_t cudaMemcpyAsync_any(const struct driver *table, void *dst, const void *src, size_t bytes,
                                       enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t error = runtime_enter();

    if (error || !bytes)
        return runtime_leave(error);
    switch (kind) {
    case cudaMemcpyHostToDevice:
        return runtime_leave((cudaError_t)table->cuMemcpyHtoDAsync((CUdeviceptr)dst, src, bytes, stream));
    case cudaMemcpyDeviceToHost:
        return runtime_leave((cudaError_t)table->cuMemcpyDtoHAsync(dst, (CUdeviceptr)src, bytes, stream));
    case cudaMemcpyDeviceToDevice:
        return runtime_leave((cudaError_t)table->cuMemcpyDtoDAsync((CUdeviceptr)dst, (CUdeviceptr)src, bytes, stream));
    case cudaMemcpyHostToHost:
    case cudaMemcpyDefault:
        return runtime_leave((cudaError_t)table->cuMemcpyAsync((CUdeviceptr)dst, (CUdeviceptr)src, bytes, stream));
    }
    return runtime_leave(cudaErrorInvalidMemcpyDirection);
}
TWIN(cudaMemcpyAsync, _ptsz, (void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream), dst,
     src, bytes, kind, stream)

static bool source_is_host(enum cudaMemcpyKind kind)
{
    return kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost;
}

static bool destination_is_host(enum cudaMemcpyKind kind)
{
    return kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost;
}

// Where a side of a copy is, in the driver's words: told by the direction, or found out by the driver from the pointer.
static CUmemorytype side(enum cudaMemcpyKind kind, bool host)
{
    return kind == cudaMemcpyDefault ? CU_MEMORYTYPE_UNIFIED : host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
}

static CUDA_MEMCPY2D plane(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height,
                           enum cudaMemcpyKind kind)
{
    return (CUDA_MEMCPY2D){.srcMemoryType = side(kind, source_is_host(kind)),
                           .srcHost = src,
                           .srcDevice = (CUdeviceptr)src,
                           .srcPitch = src_pitch,
                           .dstMemoryType = side(kind, destination_is_host(kind)),
                           .dstHost = dst,
                           .dstDevice = (CUdeviceptr)dst,
                           .dstPitch = dst_pitch,
                           .WidthInBytes = width,
                           .Height = height};
}

static cudaError_t check_plane(size_t dst_pitch, size_t src_pitch, size_t width, enum cudaMemcpyKind kind)
{
    if ((unsigned)kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    return width > dst_pitch || width > src_pitch ? cudaErrorInvalidPitchValue : cudaSuccess;
}

static cudaError_t cudaMemcpy2D_any(const struct driver *table, void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                                    size_t width, size_t height, enum cudaMemcpyKind kind)
{
    CUDA_MEMCPY2D copy = plane(dst, dst_pitch, src, src_pitch, width, height, kind);
    cudaError_t error = check_plane(dst_pitch, src_pitch, width, kind);
    return error ? runtime_leave(error) : DRIVER(table, cuMemcpy2DUnaligned, &copy);
}
TWIN(cudaMemcpy2D, _ptds,
     (void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height, enum cudaMemcpyKind kind),
     dst, dst_pitch, src, src_pitch, width, height, kind)

static cudaError_t cudaMemcpy2DAsync_any(const struct driver *table, void *dst, size_t dst_pitch, const void *src,
                                         size_t src_pitch, size_t width, size_t height, enum cudaMemcpyKind kind,
                                         cudaStream_t stream)
{
    CUDA_MEMCPY2D copy = plane(dst, dst_pitch, src, src_pitch, width, height, kind);
    cudaError_t error = check_plane(dst_pitch, src_pitch, width, kind);
    return error ? runtime_leave(error) : DRIVER(table, cuMemcpy2DAsync, &copy, stream);
}
TWIN(cudaMemcpy2DAsync, _ptsz,
     (void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height, enum cudaMemcpyKind kind,
      cudaStream_t stream),
     dst, dst_pitch, src, src_pitch, width, height, kind, stream)

cudaError_t copy_volume(const struct cudaMemcpy3DParms *p, CUDA_MEMCPY3D *copy)
{
    if (!p || p->srcArray || p->dstArray)
        return p ? cudaErrorNotSupported : cudaErrorInvalidValue;
    *copy = (CUDA_MEMCPY3D){.srcXInBytes = p->srcPos.x,
                            .srcY = p->srcPos.y,
                            .srcZ = p->srcPos.z,
                            .srcMemoryType = side(p->kind, source_is_host(p->kind)),
                            .srcHost = p->srcPtr.ptr,
                            .srcDevice = (CUdeviceptr)p->srcPtr.ptr,
                            .srcPitch = p->srcPtr.pitch,
                            .srcHeight = p->srcPtr.ysize,
                            .dstXInBytes = p->dstPos.x,
                            .dstY = p->dstPos.y,
                            .dstZ = p->dstPos.z,
                            .dstMemoryType = side(p->kind, destination_is_host(p->kind)),
                            .dstHost = p->dstPtr.ptr,
                            .dstDevice = (CUdeviceptr)p->dstPtr.ptr,
                            .dstPitch = p->dstPtr.pitch,
                            .dstHeight = p->dstPtr.ysize,
                            .WidthInBytes = p->extent.width,
                            .Height = p->extent.height,
                            .Depth = p->extent.depth};
    return cudaSuccess;
}

struct cudaMemcpy3DParms copy_line(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    return (struct cudaMemcpy3DParms){.srcPtr = {(void *)src, bytes, bytes, 1},
                                      .dstPtr = {dst, bytes, bytes, 1},
                                      .extent = {bytes, 1, 1},
                                      .kind = kind};
}

static cudaError_t cudaMemcpy3D_any(const struct driver *table, const struct cudaMemcpy3DParms *p)
{
    CUDA_MEMCPY3D copy;
    cudaError_t error = copy_volume(p, &copy);
    return error ? runtime_leave(error) : DRIVER(table, cuMemcpy3D, &copy);
}
TWIN(cudaMemcpy3D, _ptds, (const struct cudaMemcpy3DParms *p), p)

static cudaError_t cudaMemcpy3DAsync_any(const struct driver *table, const struct cudaMemcpy3DParms *p, cudaStream_t stream)
{
    CUDA_MEMCPY3D copy;
    cudaError_t error = copy_volume(p, &copy);
    return error ? runtime_leave(error) : DRIVER(table, cuMemcpy3DAsync, &copy, stream);
}
TWIN(cudaMemcpy3DAsync, _ptsz, (const struct cudaMemcpy3DParms *p, cudaStream_t stream), p, stream)

// All memory of all devices is in one address space, so the devices need not be told.
cudaError_t cudaMemcpyPeer(void *dst, int dst_device, const void *src, int src_device, size_t bytes)
{
    (void)dst_device;
    (void)src_device;
    return cudaMemcpy(dst, src, bytes, cudaMemcpyDeviceToDevice);
}

cudaError_t cudaMemcpyPeerAsync(void *dst, int dst_device, const void *src, int src_device, size_t bytes, cudaStream_t stream)
{
    (void)dst_device;
    (void)src_device;
    return cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, stream);
}

static cudaError_t cudaMemset_any(const struct driver *table, void *pointer, int value, size_t bytes)
{
    return DRIVER(table, cuMemsetD8, (CUdeviceptr)pointer, (unsigned char)value, bytes);
}
TWIN(cudaMemset, _ptds, (void *pointer, int value, size_t bytes), pointer, value, bytes)

static cudaError_t cudaMemsetAsync_any(const struct driver *table, void *pointer, int value, size_t bytes, cudaStream_t stream)
{
    return DRIVER(table, cuMemsetD8Async, (CUdeviceptr)pointer, (unsigned char)value, bytes, stream);
}
TWIN(cudaMemsetAsync, _ptsz, (void *pointer, int value, size_t bytes, cudaStream_t stream), pointer, value, bytes, stream)

static cudaError_t cudaMemset2D_any(const struct driver *table, void *pointer, size_t pitch, int value, size_t width,
                                    size_t height)
{
    return DRIVER(table, cuMemsetD2D8, (CUdeviceptr)pointer, pitch, (unsigned char)value, width, height);
}
TWIN(cudaMemset2D, _ptds, (void *pointer, size_t pitch, int value, size_t width, size_t height), pointer, pitch, value, width,
     height)

static cudaError_t cudaMemset2DAsync_any(const struct driver *table, void *pointer, size_t pitch, int value, size_t width,
                                         size_t height, cudaStream_t stream)
{
    return DRIVER(table, cuMemsetD2D8Async, (CUdeviceptr)pointer, pitch, (unsigned char)value, width, height, stream);
}
TWIN(cudaMemset2DAsync, _ptsz, (void *pointer, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream),
     pointer, pitch, value, width, height, stream)

// The rows of all slices lie one behind the other.
static cudaError_t cudaMemset3D_any(const struct driver *table, struct cudaPitchedPtr pointer, int value,
                                    struct cudaExtent extent)
{
    if (extent.depth > 1 && extent.height != pointer.ysize)
        return runtime_leave(cudaErrorNotSupported);
    return cudaMemset2D_any(table, pointer.ptr, pointer.pitch, value, extent.width, extent.height * extent.depth);
}
TWIN(cudaMemset3D, _ptds, (struct cudaPitchedPtr pointer, int value, struct cudaExtent extent), pointer, value, extent)

static cudaError_t cudaMemset3DAsync_any(const struct driver *table, struct cudaPitchedPtr pointer, int value,
                                         struct cudaExtent extent, cudaStream_t stream)
{
    if (extent.depth > 1 && extent.height != pointer.ysize)
        return runtime_leave(cudaErrorNotSupported);
    return cudaMemset2DAsync_any(table, pointer.ptr, pointer.pitch, value, extent.width, extent.height * extent.depth, stream);
}
TWIN(cudaMemset3DAsync, _ptsz, (struct cudaPitchedPtr pointer, int value, struct cudaExtent extent, cudaStream_t stream),
     pointer, value, extent, stream)
