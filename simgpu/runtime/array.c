// Arrays and mipmapped arrays.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

// The driver's format and number of channels; false if it has none like it.
static bool parse_format(const struct cudaChannelFormatDesc *desc, CUDA_ARRAY3D_DESCRIPTOR *out)
{
    static const CUarray_format formats[3][3] = {
        {CU_AD_FORMAT_SIGNED_INT8, CU_AD_FORMAT_SIGNED_INT16, CU_AD_FORMAT_SIGNED_INT32},
        {CU_AD_FORMAT_UNSIGNED_INT8, CU_AD_FORMAT_UNSIGNED_INT16, CU_AD_FORMAT_UNSIGNED_INT32},
        {0, CU_AD_FORMAT_HALF, CU_AD_FORMAT_FLOAT},
    };
    int bits[] = {desc->x, desc->y, desc->z, desc->w};
    int width = bits[0] == 8 ? 0 : bits[0] == 16 ? 1 : bits[0] == 32 ? 2 : -1;

    out->NumChannels = 1;
    for (int i = 1; i < 4 && bits[i]; i++) {
        if (bits[i] != bits[0])
            return false;
        out->NumChannels++;
    }
    if (width < 0 || (int)desc->f > cudaChannelFormatKindFloat || out->NumChannels == 3)
        return false;
    out->Format = formats[desc->f][width];
    return out->Format != 0;
}

static cudaError_t describe(const struct cudaChannelFormatDesc *desc, struct cudaExtent extent, unsigned flags,
                            CUDA_ARRAY3D_DESCRIPTOR *out)
{
    *out = (CUDA_ARRAY3D_DESCRIPTOR){.Width = extent.width, .Height = extent.height, .Depth = extent.depth, .Flags = flags};
    if (!desc)
        return cudaErrorInvalidValue;
    return parse_format(desc, out) ? cudaSuccess : cudaErrorInvalidChannelDescriptor;
}

static cudaError_t create(cudaArray_t *array, const struct cudaChannelFormatDesc *desc, struct cudaExtent extent,
                          unsigned flags)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    cudaError_t error = describe(desc, extent, flags, &descriptor);
    return error ? runtime_leave(error) : DRIVER(LEGACY, cuArray3DCreate, (CUarray *)array, &descriptor);
}

cudaError_t cudaMallocArray(cudaArray_t *array, const struct cudaChannelFormatDesc *desc, size_t width, size_t height,
                            unsigned flags)
{
    return create(array, desc, (struct cudaExtent){width, height, 0}, flags);
}

cudaError_t cudaMalloc3DArray(cudaArray_t *array, const struct cudaChannelFormatDesc *desc, struct cudaExtent extent,
                              unsigned flags)
{
    return create(array, desc, extent, flags);
}

cudaError_t cudaFreeArray(cudaArray_t array)
{
    cudaError_t error = runtime_enter();
    return runtime_leave(error || !array ? error : (cudaError_t)LEGACY->cuArrayDestroy((CUarray)array));
}

cudaError_t cudaMallocMipmappedArray(cudaMipmappedArray_t *array, const struct cudaChannelFormatDesc *desc,
                                     struct cudaExtent extent, unsigned levels, unsigned flags)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    cudaError_t error = describe(desc, extent, flags, &descriptor);
    return error ? runtime_leave(error)
                 : DRIVER(LEGACY, cuMipmappedArrayCreate, (CUmipmappedArray *)array, &descriptor, levels);
}

cudaError_t cudaFreeMipmappedArray(cudaMipmappedArray_t array)
{
    cudaError_t error = runtime_enter();
    return runtime_leave(error || !array ? error : (cudaError_t)LEGACY->cuMipmappedArrayDestroy((CUmipmappedArray)array));
}

struct cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w, enum cudaChannelFormatKind kind)
{
    return (struct cudaChannelFormatDesc){x, y, z, w, kind};
}
