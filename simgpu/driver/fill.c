// Memsets: one description for all widths and shapes.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/copy.h"
#include "simgpu/driver/memory.h"

CUresult fill_describe(CUdeviceptr dst, size_t pitch, uint32_t value, unsigned element_bytes, size_t width, size_t height,
                       struct fill *fill)
{
    size_t row, bytes;

    *fill = (struct fill){.dst = (void *)(uintptr_t)dst,
                          .pitch = pitch,
                          .width = width,
                          .height = height,
                          .element_bytes = element_bytes,
                          .value = value};
    if (!width || !height)
        return CUDA_SUCCESS;
    if (dst % element_bytes || (height > 1 && pitch % element_bytes) || __builtin_mul_overflow(width, element_bytes, &row) ||
        (height > 1 && pitch < row) || __builtin_mul_overflow(pitch, height - 1, &bytes) ||
        __builtin_add_overflow(bytes, row, &bytes))
        return CUDA_ERROR_INVALID_VALUE;
    return range_is_device(dst, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult submit(bool per_thread, CUstream handle, bool synchronous, CUdeviceptr dst, size_t pitch, uint32_t value,
                       unsigned element_bytes, size_t width, size_t height)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    struct op op = {.kind = OP_FILL};
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc)
        rc = fill_describe(dst, pitch, value, element_bytes, width, height, &op.fill);
    // A memset of device memory does not wait, but it uses the default stream, which a capture may forbid.
    if (!rc && synchronous)
        rc = capture_check_unsafe();
    if (rc || !width || !height)
        return api_leave(rc);
    return api_leave(stream_submit_bounded(stream, &op));
}

#define MEMSET_API(bits, type)                                                                                                 \
    static CUresult cuMemsetD##bits##_v2_any(bool per_thread, CUdeviceptr dst, type value, size_t count)                       \
    {                                                                                                                          \
        return submit(per_thread, NULL, true, dst, 0, value, bits / 8, count, 1);                                              \
    }                                                                                                                          \
    static CUresult cuMemsetD##bits##Async_any(bool per_thread, CUdeviceptr dst, type value, size_t count, CUstream stream)    \
    {                                                                                                                          \
        return submit(per_thread, stream, false, dst, 0, value, bits / 8, count, 1);                                           \
    }                                                                                                                          \
    static CUresult cuMemsetD2D##bits##_v2_any(bool per_thread, CUdeviceptr dst, size_t pitch, type value, size_t width,       \
                                               size_t height)                                                                  \
    {                                                                                                                          \
        return submit(per_thread, NULL, true, dst, pitch, value, bits / 8, width, height);                                     \
    }                                                                                                                          \
    static CUresult cuMemsetD2D##bits##Async_any(bool per_thread, CUdeviceptr dst, size_t pitch, type value, size_t width,     \
                                                 size_t height, CUstream stream)                                               \
    {                                                                                                                          \
        return submit(per_thread, stream, false, dst, pitch, value, bits / 8, width, height);                                  \
    }                                                                                                                          \
    TWIN_API(cuMemsetD##bits##_v2, _ptds, (CUdeviceptr dst, type value, size_t count), dst, value, count)                      \
    TWIN_API(cuMemsetD##bits##Async, _ptsz, (CUdeviceptr dst, type value, size_t count, CUstream stream), dst, value, count,   \
             stream)                                                                                                           \
    TWIN_API(cuMemsetD2D##bits##_v2, _ptds, (CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height), dst,     \
             pitch, value, width, height)                                                                                      \
    TWIN_API(cuMemsetD2D##bits##Async, _ptsz,                                                                                  \
             (CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height, CUstream stream), dst, pitch, value,     \
             width, height, stream)

MEMSET_API(8, unsigned char)
MEMSET_API(16, unsigned short)
MEMSET_API(32, unsigned)
