// Plain arrays, and the memory of all.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/array.h"

#include <stdlib.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/device.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/stream.h"
#include "simgpu/driver/vmm.h"
#include "simgpu/state/state.h"

#define WITHOUT_MEMORY (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)

static unsigned element_bytes(CUarray_format format)
{
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4;
    default:
        return 0;
    }
}

// Layers count like a third dimension, with bounds of their own.
static bool extents_exist(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    if (d->Flags & CUDA_ARRAY3D_LAYERED)
        return d->Width <= DEVICE_LAYERED_EXTENT && d->Height <= DEVICE_LAYERED_EXTENT && d->Depth <= DEVICE_LAYERS;
    if (d->Depth) // which may be more than the attribute says
        return d->Width <= DEVICE_EXTENT_3D && d->Height <= DEVICE_EXTENT_3D;
    return d->Width <= DEVICE_WIDTH_2D && d->Height <= DEVICE_HEIGHT_2D;
}

// Layers of a deep array come in sixteens.
static size_t padded_depth(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    size_t depth = d->Depth ? d->Depth : 1;
    return d->Flags & CUDA_ARRAY3D_LAYERED || depth < 16 || depth > SIZE_MAX - 15 ? depth : (depth + 15) & ~(size_t)15;
}

CUresult array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, size_t *bytes)
{
    unsigned element = element_bytes(d->Format) * d->NumChannels;

    if (!element || !d->Width || !extents_exist(d) || (d->NumChannels != 1 && d->NumChannels != 2 && d->NumChannels != 4))
        return CUDA_ERROR_INVALID_VALUE;
    if (__builtin_mul_overflow(d->Width, element, bytes) || __builtin_mul_overflow(*bytes, d->Height ? d->Height : 1, bytes) ||
        __builtin_mul_overflow(*bytes, padded_depth(d), bytes))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult array_memory_take(struct CUctx_st *ctx, unsigned flags, struct array_memory *memory, void *array,
                           enum handle_kind kind)
{
    struct allocation *allocation;

    memory->deferred = flags & CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (!(flags & WITHOUT_MEMORY)) {
        CUresult rc = memory_alloc(ctx, ALLOCATION_ARRAY, memory->bytes, &allocation);
        if (rc)
            return rc;
        memory->base = allocation->base;
        memory->allocation_id = allocation->id;
    }
    if (handle_add(array, kind))
        return CUDA_SUCCESS;
    array_memory_free(memory);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

void array_memory_free(struct array_memory *memory)
{
    // With its context the memory may be gone already.
    struct allocation *allocation = memory->base ? range_find(memory->base) : NULL;
    if (allocation && allocation->id == memory->allocation_id)
        memory_free(allocation);
    for (struct tile *tile = memory->tiles, *next; tile; tile = next) {
        next = tile->next;
        physical_unmapped(tile->physical);
        free(tile);
    }
}

CUresult array_requirements(const struct array_memory *memory, unsigned flags, CUDA_ARRAY_MEMORY_REQUIREMENTS *out)
{
    if (!(flags & CUDA_ARRAY3D_DEFERRED_MAPPING))
        return CUDA_ERROR_INVALID_VALUE;
    // A small one is as small as it is: it would share a block.
    size_t bytes = memory->bytes > STATE_BLOCK_BYTES / 2 ? blocks_round(memory->bytes) : memory->bytes;
    *out = (CUDA_ARRAY_MEMORY_REQUIREMENTS){.size = bytes, .alignment = STATE_BLOCK_BYTES};
    return CUDA_SUCCESS;
}

CUresult cuArray3DCreate_v2(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    struct CUctx_st *ctx;
    size_t bytes;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = out && descriptor ? array_bytes(descriptor, &bytes) : CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    struct CUarray_st *array = calloc(1, sizeof *array);
    if (!array)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *array = (struct CUarray_st){.descriptor = *descriptor, .memory = {.bytes = bytes}};
    rc = array_memory_take(ctx, descriptor->Flags, &array->memory, array, HANDLE_ARRAY);
    if (rc)
        free(array);
    else
        *out = array;
    return api_leave(rc);
}

CUresult cuArrayCreate_v2(CUarray *out, const CUDA_ARRAY_DESCRIPTOR *d)
{
    if (!d)
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    CUDA_ARRAY3D_DESCRIPTOR wider = {.Width = d->Width,
                                     .Height = d->Height,
                                     .Format = d->Format,
                                     .NumChannels = d->NumChannels};
    return cuArray3DCreate_v2(out, &wider);
}

CUresult cuArrayDestroy(CUarray array)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(array, HANDLE_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    stream_wait_all_idle();
    if (!handle_is(array, HANDLE_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    array_memory_free(&array->memory);
    handle_remove(array);
    free(array);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUarray array)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!descriptor)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(array, HANDLE_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    *descriptor = array->descriptor;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *descriptor, CUarray array)
{
    CUDA_ARRAY3D_DESCRIPTOR wider;
    CUresult rc = descriptor ? cuArray3DGetDescriptor_v2(&wider, array) : CUDA_ERROR_INVALID_VALUE;

    if (!rc)
        *descriptor = (CUDA_ARRAY_DESCRIPTOR){.Width = wider.Width,
                                              .Height = wider.Height,
                                              .Format = wider.Format,
                                              .NumChannels = wider.NumChannels};
    return rc;
}

CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUarray array, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !device_get(dev))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(array, HANDLE_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(array_requirements(&array->memory, array->descriptor.Flags, out));
}
