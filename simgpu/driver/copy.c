// Copies: checking what is copied from where, staging pageable memory, and waiting as the calls do.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/copy.h"

#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool.h"

// Bytes from the first to the last one that a side of a copy touches; SIZE_MAX if that overflows.
static size_t extent(size_t width, size_t height, size_t depth, size_t pitch, size_t slice)
{
    size_t rows, slices, bytes;

    if (__builtin_mul_overflow(pitch, height - 1, &rows) || __builtin_mul_overflow(slice, depth - 1, &slices) ||
        __builtin_add_overflow(rows, slices, &bytes) || __builtin_add_overflow(bytes, width, &bytes))
        return SIZE_MAX;
    return bytes;
}

static size_t src_extent(const struct copy *copy)
{
    return extent(copy->width, copy->height, copy->depth, copy->src_pitch, copy->src_slice);
}

static size_t dst_extent(const struct copy *copy)
{
    return extent(copy->width, copy->height, copy->depth, copy->dst_pitch, copy->dst_slice);
}

static bool on_device(const void *ptr, size_t bytes)
{
    return range_is_device((uintptr_t)ptr, bytes);
}

CUresult copy_from_3d(const CUDA_MEMCPY3D *from, struct copy *copy)
{
    size_t src_pitch = from->srcPitch ? from->srcPitch : from->WidthInBytes + from->srcXInBytes;
    size_t dst_pitch = from->dstPitch ? from->dstPitch : from->WidthInBytes + from->dstXInBytes;
    size_t src_height = from->srcHeight ? from->srcHeight : from->Height + from->srcY;
    size_t dst_height = from->dstHeight ? from->dstHeight : from->Height + from->dstY;
    bool src_host = from->srcMemoryType == CU_MEMORYTYPE_HOST, dst_host = from->dstMemoryType == CU_MEMORYTYPE_HOST;

    if (from->srcMemoryType == CU_MEMORYTYPE_ARRAY || from->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (src_pitch < from->WidthInBytes || dst_pitch < from->WidthInBytes)
        return CUDA_ERROR_INVALID_VALUE;
    const char *src = src_host ? from->srcHost : (const char *)(uintptr_t)from->srcDevice;
    char *dst = dst_host ? from->dstHost : (char *)(uintptr_t)from->dstDevice;
    if (!src || !dst)
        return CUDA_ERROR_INVALID_VALUE;
    *copy = (struct copy){
        .src = src + from->srcZ * src_height * src_pitch + from->srcY * src_pitch + from->srcXInBytes,
        .dst = dst + from->dstZ * dst_height * dst_pitch + from->dstY * dst_pitch + from->dstXInBytes,
        .src_pitch = src_pitch,
        .dst_pitch = dst_pitch,
        .src_slice = src_height * src_pitch,
        .dst_slice = dst_height * dst_pitch,
        .width = from->WidthInBytes,
        .height = from->Height,
        .depth = from->Depth,
    };
    if (!copy->width || !copy->height || !copy->depth)
        return CUDA_SUCCESS;
    if ((from->srcMemoryType == CU_MEMORYTYPE_DEVICE && !on_device(copy->src, src_extent(copy))) ||
        (from->dstMemoryType == CU_MEMORYTYPE_DEVICE && !on_device(copy->dst, dst_extent(copy))))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

// The source of an asynchronous copy from pageable memory may be changed as soon as the call returns.
static CUresult stage(struct copy *copy)
{
    size_t bytes = src_extent(copy);
    void *staging = bytes == SIZE_MAX ? NULL : malloc(bytes);

    if (!staging)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(staging, copy->src, bytes);
    copy->src = copy->staging = staging;
    return CUDA_SUCCESS;
}

// Queues a copy. An asynchronous one still waits if it writes to pageable host memory, as the driver's does.
static CUresult submit(struct CUstream_st *stream, struct copy *copy, bool synchronous)
{
    struct op op = {.kind = OP_COPY};
    struct device *device = stream->ctx->device;
    CUresult rc;

    if (synchronous) {
        rc = capture_check_unsafe();
        if (!rc)
            rc = capture_forbid_stream(stream);
        if (rc)
            return rc;
    }
    if (!copy->width || !copy->height || !copy->depth)
        return CUDA_SUCCESS;
    if (!stream->capture && !synchronous) {
        if (!on_device(copy->src, src_extent(copy))) {
            rc = stage(copy);
            if (rc)
                return rc;
        }
        synchronous = !on_device(copy->dst, dst_extent(copy));
    }
    op.copy = *copy;
    rc = stream_submit_bounded(stream, &op);
    if (!rc && synchronous && !stream->capture) {
        stream_wait_idle(stream);
        pool_trim_device(device);
    }
    return rc;
}

enum side { ANY, DEVICE };

static CUresult linear(bool per_thread, CUstream handle, bool synchronous, void *dst, enum side dst_side, const void *src,
                       enum side src_side, size_t bytes)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    struct copy copy = {.dst = dst, .src = src, .width = bytes, .height = 1, .depth = 1};
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && bytes &&
        (!dst || !src || (dst_side == DEVICE && !on_device(dst, bytes)) || (src_side == DEVICE && !on_device(src, bytes))))
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc ? rc : submit(stream, &copy, synchronous));
}

static void *pointer(CUdeviceptr ptr)
{
    return (void *)(uintptr_t)ptr;
}

static CUresult check_peers(CUcontext dst, CUcontext src)
{
    CUresult rc = api_enter();
    struct CUctx_st *ctx;

    if (rc)
        return rc;
    rc = context_from_handle(dst, &ctx);
    if (!rc)
        rc = context_from_handle(src, &ctx);
    return api_leave(rc);
}

static CUresult three_d(bool per_thread, CUstream handle, bool synchronous, const CUDA_MEMCPY3D *from)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    struct copy copy;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc)
        rc = copy_from_3d(from, &copy);
    return api_leave(rc ? rc : submit(stream, &copy, synchronous));
}

static CUresult two_d(bool per_thread, CUstream handle, bool synchronous, const CUDA_MEMCPY2D *from)
{
    if (!from)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY3D wider = {
        .srcXInBytes = from->srcXInBytes,
        .srcY = from->srcY,
        .srcMemoryType = from->srcMemoryType,
        .srcHost = from->srcHost,
        .srcDevice = from->srcDevice,
        .srcArray = from->srcArray,
        .srcPitch = from->srcPitch,
        .dstXInBytes = from->dstXInBytes,
        .dstY = from->dstY,
        .dstMemoryType = from->dstMemoryType,
        .dstHost = from->dstHost,
        .dstDevice = from->dstDevice,
        .dstArray = from->dstArray,
        .dstPitch = from->dstPitch,
        .WidthInBytes = from->WidthInBytes,
        .Height = from->Height,
        .Depth = 1,
    };
    return three_d(per_thread, handle, synchronous, &wider);
}

static CUresult peer(bool per_thread, CUstream stream, bool synchronous, CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src,
                     CUcontext src_ctx, size_t bytes)
{
    CUresult rc = check_peers(dst_ctx, src_ctx);
    return rc ? rc : linear(per_thread, stream, synchronous, pointer(dst), DEVICE, pointer(src), DEVICE, bytes);
}

// Synchronous forms run in the default stream, asynchronous ones in the given one.
#define COPY_API(name, suffix, params, call, ...)                                                                              \
    static CUresult name##_any(bool per_thread, __VA_ARGS__)                                                                   \
    {                                                                                                                          \
        return call;                                                                                                           \
    }                                                                                                                          \
    CUresult name(__VA_ARGS__)                                                                                                 \
    {                                                                                                                          \
        return name##_any(false, CALL_ARGS params);                                                                            \
    }                                                                                                                          \
    CUresult name##suffix(__VA_ARGS__)                                                                                         \
    {                                                                                                                          \
        return name##_any(true, CALL_ARGS params);                                                                             \
    }
#define CALL_ARGS(...) __VA_ARGS__

COPY_API(cuMemcpy, _ptds, (dst, src, bytes), linear(per_thread, NULL, true, pointer(dst), ANY, pointer(src), ANY, bytes),
         CUdeviceptr dst, CUdeviceptr src, size_t bytes)
COPY_API(cuMemcpyHtoD_v2, _ptds, (dst, src, bytes), linear(per_thread, NULL, true, pointer(dst), DEVICE, src, ANY, bytes),
         CUdeviceptr dst, const void *src, size_t bytes)
COPY_API(cuMemcpyDtoH_v2, _ptds, (dst, src, bytes), linear(per_thread, NULL, true, dst, ANY, pointer(src), DEVICE, bytes),
         void *dst, CUdeviceptr src, size_t bytes)
COPY_API(cuMemcpyDtoD_v2, _ptds, (dst, src, bytes),
         linear(per_thread, NULL, true, pointer(dst), DEVICE, pointer(src), DEVICE, bytes), CUdeviceptr dst, CUdeviceptr src,
         size_t bytes)
COPY_API(cuMemcpyPeer, _ptds, (dst, dst_ctx, src, src_ctx, bytes),
         peer(per_thread, NULL, true, dst, dst_ctx, src, src_ctx, bytes), CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src,
         CUcontext src_ctx, size_t bytes)
COPY_API(cuMemcpy2D_v2, _ptds, (copy), two_d(per_thread, NULL, true, copy), const CUDA_MEMCPY2D *copy)
COPY_API(cuMemcpy2DUnaligned_v2, _ptds, (copy), two_d(per_thread, NULL, true, copy), const CUDA_MEMCPY2D *copy)
COPY_API(cuMemcpy3D_v2, _ptds, (copy), copy ? three_d(per_thread, NULL, true, copy) : CUDA_ERROR_INVALID_VALUE,
         const CUDA_MEMCPY3D *copy)

COPY_API(cuMemcpyAsync, _ptsz, (dst, src, bytes, stream),
         linear(per_thread, stream, false, pointer(dst), ANY, pointer(src), ANY, bytes), CUdeviceptr dst, CUdeviceptr src,
         size_t bytes, CUstream stream)
COPY_API(cuMemcpyHtoDAsync_v2, _ptsz, (dst, src, bytes, stream),
         linear(per_thread, stream, false, pointer(dst), DEVICE, src, ANY, bytes), CUdeviceptr dst, const void *src,
         size_t bytes, CUstream stream)
COPY_API(cuMemcpyDtoHAsync_v2, _ptsz, (dst, src, bytes, stream),
         linear(per_thread, stream, false, dst, ANY, pointer(src), DEVICE, bytes), void *dst, CUdeviceptr src, size_t bytes,
         CUstream stream)
COPY_API(cuMemcpyDtoDAsync_v2, _ptsz, (dst, src, bytes, stream),
         linear(per_thread, stream, false, pointer(dst), DEVICE, pointer(src), DEVICE, bytes), CUdeviceptr dst, CUdeviceptr src,
         size_t bytes, CUstream stream)
COPY_API(cuMemcpyPeerAsync, _ptsz, (dst, dst_ctx, src, src_ctx, bytes, stream),
         peer(per_thread, stream, false, dst, dst_ctx, src, src_ctx, bytes), CUdeviceptr dst, CUcontext dst_ctx,
         CUdeviceptr src, CUcontext src_ctx, size_t bytes, CUstream stream)
COPY_API(cuMemcpy2DAsync_v2, _ptsz, (copy, stream), two_d(per_thread, stream, false, copy), const CUDA_MEMCPY2D *copy,
         CUstream stream)
COPY_API(cuMemcpy3DAsync_v2, _ptsz, (copy, stream), copy ? three_d(per_thread, stream, false, copy) : CUDA_ERROR_INVALID_VALUE,
         const CUDA_MEMCPY3D *copy, CUstream stream)

static CUresult batch(bool per_thread, CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, size_t *failed,
                      CUstream stream)
{
    if (!dsts || !srcs || !sizes || !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        CUresult rc = linear(per_thread, stream, false, pointer(dsts[i]), ANY, pointer(srcs[i]), ANY, sizes[i]);
        if (rc) {
            if (failed)
                *failed = i;
            return rc;
        }
    }
    return CUDA_SUCCESS;
}

// Access attributes are hints about ordering that strictly ordered copies satisfy anyway.
static CUresult cuMemcpyBatchAsync_any(bool per_thread, CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                       size_t *failed, CUstream stream)
{
    return batch(per_thread, dsts, srcs, sizes, count, failed, stream);
}

static CUresult cuMemcpyBatchAsync_v2_any(bool per_thread, CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                          CUstream stream)
{
    return batch(per_thread, dsts, srcs, sizes, count, NULL, stream);
}

#define UNUSED __attribute__((unused))
TWIN_API(cuMemcpyBatchAsync, _ptsz,
         (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs UNUSED,
          size_t *indices UNUSED, size_t attr_count UNUSED, size_t *failed, CUstream stream),
         dsts, srcs, sizes, count, failed, stream)
TWIN_API(cuMemcpyBatchAsync_v2, _ptsz,
         (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs UNUSED,
          size_t *indices UNUSED, size_t attr_count UNUSED, CUstream stream),
         dsts, srcs, sizes, count, stream)
