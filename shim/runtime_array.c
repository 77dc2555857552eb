// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: arrays and mipmapped arrays. With an unseen runtime they are charged by their elements, in whole blocks; the
// driver's layout is not seen.
#include "shim/runtime_api.h"

// An array under way.
struct array {
    struct runtime *runtime;
    size_t bytes;
    struct holdings *holdings; // NULL: nothing taken, since the driver layer charges
    uint64_t taken;
    unsigned calls;
};

static size_t times(size_t a, size_t b)
{
    return holdings_product(a, b ? b : 1);
}

// Of all levels of an array; each has half the size of the one before in every direction.
static size_t level_bytes(const struct cudaChannelFormatDesc *desc, struct cudaExtent extent, unsigned int levels,
                          unsigned int flags)
{
    size_t bytes = 0;
    // A sparse array, or one mapped later, has no memory of its own.
    if (!desc || flags & (cudaArraySparse | cudaArrayDeferredMapping))
        return 0;
    size_t element = (size_t)(desc->x + desc->y + desc->z + desc->w) / 8;
    for (unsigned int level = 0; level < levels && extent.width; level++) {
        size_t one = times(times(times(element, extent.width), extent.height), extent.depth);
        bytes = bytes + one < one ? SIZE_MAX : bytes + one;
        extent.width /= 2;
        extent.height = extent.height > 1 ? extent.height / 2 : extent.height;
        if (!(flags & cudaArrayLayered) && extent.depth > 1)
            extent.depth /= 2;
    }
    return bytes;
}

// false: refused.
static bool array_begin(struct array *array, struct runtime *runtime, size_t bytes)
{
    *array = (struct array){.runtime = runtime, .bytes = bytes, .calls = driver_layer_calls};
    return runtime_sight(runtime) != RUNTIME_UNSEEN || !bytes || runtime_take(bytes, &array->holdings, &array->taken);
}

// Returns whether the array, at `handle` if `result` says so, is paid for or need not be. If not, the caller frees it.
static bool array_end(struct array *array, cudaError_t result, const void *handle)
{
    if (result != cudaSuccess) {
        if (array->holdings)
            holdings_give(array->holdings, array->taken);
        return true;
    }
    // Nothing was taken: the runtime was not known to be unseen when the call began.
    if (!array->holdings && (!array->bytes || !runtime_decide(array->runtime, result, array->calls)))
        return true;
    return (array->holdings || runtime_take(array->bytes, &array->holdings, &array->taken)) &&
           runtime_keep(handle, array->holdings, array->taken);
}

static cudaError_t plain_end(struct array *array, cudaError_t result, cudaArray_t *made)
{
    if (array_end(array, result, result == cudaSuccess ? *made : NULL))
        return result;
    RUNTIME_REAL(array->runtime, cudaFreeArray)(*made);
    *made = NULL;
    return runtime_refuse(array->runtime);
}

cudaError_t cudaMallocArray(cudaArray_t *made, const struct cudaChannelFormatDesc *desc, size_t width, size_t height,
                            unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct array array;
    if (!array_begin(&array, runtime, level_bytes(desc, (struct cudaExtent){width, height, 0}, 1, flags)))
        return runtime_refuse(runtime);
    return plain_end(&array, RUNTIME_REAL(runtime, cudaMallocArray)(made, desc, width, height, flags), made);
}

cudaError_t cudaMalloc3DArray(cudaArray_t *made, const struct cudaChannelFormatDesc *desc, struct cudaExtent extent,
                              unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct array array;
    if (!array_begin(&array, runtime, level_bytes(desc, extent, 1, flags)))
        return runtime_refuse(runtime);
    return plain_end(&array, RUNTIME_REAL(runtime, cudaMalloc3DArray)(made, desc, extent, flags), made);
}

cudaError_t cudaMallocMipmappedArray(cudaMipmappedArray_t *made, const struct cudaChannelFormatDesc *desc,
                                     struct cudaExtent extent, unsigned int levels, unsigned int flags)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    struct array array;
    if (!array_begin(&array, runtime, level_bytes(desc, extent, levels, flags)))
        return runtime_refuse(runtime);
    cudaError_t result = RUNTIME_REAL(runtime, cudaMallocMipmappedArray)(made, desc, extent, levels, flags);
    if (array_end(&array, result, result == cudaSuccess ? *made : NULL))
        return result;
    RUNTIME_REAL(runtime, cudaFreeMipmappedArray)(*made);
    *made = NULL;
    return runtime_refuse(runtime);
}

// The charge goes after the array: until then nobody else gets its memory, and only then its handle.
cudaError_t cudaFreeArray(cudaArray_t array)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    cudaError_t result = RUNTIME_REAL(runtime, cudaFreeArray)(array);
    if (result == cudaSuccess && runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_give(array);
    return result;
}

cudaError_t cudaFreeMipmappedArray(cudaMipmappedArray_t array)
{
    struct runtime *runtime = RUNTIME_OF_CALLER();
    cudaError_t result = RUNTIME_REAL(runtime, cudaFreeMipmappedArray)(array);
    if (result == cudaSuccess && runtime_sight(runtime) == RUNTIME_UNSEEN)
        runtime_give(array);
    return result;
}
