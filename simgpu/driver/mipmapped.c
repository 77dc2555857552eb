// Mipmapped arrays, and mapping memory into arrays.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/array.h"
#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/stream.h"
#include "simgpu/driver/vmm.h"

#define MAX_LEVELS 16

static size_t half(size_t extent, unsigned level)
{
    return extent ? (extent >> level ? extent >> level : 1) : 0;
}

static CUDA_ARRAY3D_DESCRIPTOR level_of(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned level)
{
    CUDA_ARRAY3D_DESCRIPTOR result = *d;
    result.Width = half(d->Width, level);
    result.Height = half(d->Height, level);
    result.Depth = half(d->Depth, level);
    return result;
}

static CUresult all_levels(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels, size_t *bytes)
{
    *bytes = 0;
    for (unsigned i = 0; i < levels; i++) {
        CUDA_ARRAY3D_DESCRIPTOR level = level_of(descriptor, i);
        size_t more;
        CUresult rc = array_bytes(&level, &more);
        if (rc || __builtin_add_overflow(*bytes, more, bytes))
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels)
{
    struct CUctx_st *ctx;
    size_t bytes;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = out && descriptor && levels ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (levels > MAX_LEVELS)
        levels = MAX_LEVELS;
    if (!rc)
        rc = all_levels(descriptor, levels, &bytes);
    if (!rc)
        rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    struct CUmipmappedArray_st *array = calloc(1, sizeof *array);
    if (!array)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *array = (struct CUmipmappedArray_st){.descriptor = *descriptor, .levels = levels, .memory = {.bytes = bytes}};
    rc = array_memory_take(ctx, descriptor->Flags, &array->memory, array, HANDLE_MIPMAPPED_ARRAY);
    if (rc)
        free(array);
    else
        *out = array;
    return api_leave(rc);
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(array, HANDLE_MIPMAPPED_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    stream_wait_all_idle();
    if (!handle_is(array, HANDLE_MIPMAPPED_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (unsigned i = 0; i < MAX_LEVELS; i++) {
        if (array->level[i])
            handle_remove(array->level[i]);
        free(array->level[i]);
    }
    array_memory_free(&array->memory);
    handle_remove(array);
    free(array);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMipmappedArrayGetLevel(CUarray *out, CUmipmappedArray array, unsigned level)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(array, HANDLE_MIPMAPPED_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!out || level >= array->levels)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!array->level[level]) {
        struct CUarray_st *made = calloc(1, sizeof *made);
        if (!made || !handle_add(made, HANDLE_LEVEL)) {
            free(made);
            return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
        }
        made->descriptor = level_of(&array->descriptor, level);
        array->level[level] = made;
    }
    *out = array->level[level];
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUmipmappedArray array, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !device_get(dev))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(array, HANDLE_MIPMAPPED_ARRAY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(array_requirements(&array->memory, array->descriptor.Flags, out));
}

static struct array_memory *memory_of(const CUarrayMapInfo *info)
{
    if (info->resourceType == CU_RESOURCE_TYPE_ARRAY && handle_is(info->resource.array, HANDLE_ARRAY))
        return &info->resource.array->memory;
    if (info->resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY && handle_is(info->resource.mipmap, HANDLE_MIPMAPPED_ARRAY))
        return &info->resource.mipmap->memory;
    return NULL;
}

static bool same_region(const CUarrayMapInfo *one, const CUarrayMapInfo *other)
{
    return one->subresourceType == other->subresourceType &&
           memcmp(&one->subresource, &other->subresource, sizeof one->subresource) == 0;
}

// A region is unmapped as it was mapped: parts of one are not told apart here. With deferred mapping there are no regions.
static void unmap_region(struct array_memory *memory, bool whole, const CUarrayMapInfo *info)
{
    for (struct tile **link = &memory->tiles; *link;) {
        struct tile *tile = *link;
        if (!whole && !same_region(&tile->info, info)) {
            link = &tile->next;
            continue;
        }
        *link = tile->next;
        physical_unmapped(tile->physical);
        free(tile);
    }
}

static CUresult map_region(const CUarrayMapInfo *info)
{
    struct array_memory *memory = memory_of(info);
    struct physical *physical = physical_get(info->memHandle.memHandle);

    if (!memory || memory->base)
        return CUDA_ERROR_INVALID_VALUE;
    if (info->memOperationType == CU_MEM_OPERATION_TYPE_UNMAP) {
        unmap_region(memory, memory->deferred, info);
        return CUDA_SUCCESS;
    }
    if (info->memOperationType != CU_MEM_OPERATION_TYPE_MAP || !physical || info->offset >= physical->bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (memory->deferred && memory->bytes > physical->bytes - info->offset)
        return CUDA_ERROR_INVALID_VALUE;
    struct tile *tile = malloc(sizeof *tile);
    if (!tile)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *tile = (struct tile){.next = memory->tiles, .info = *info, .physical = physical};
    memory->tiles = tile;
    physical->mappings++;
    return CUDA_SUCCESS;
}

// Done at once, when the stream has got there.
static CUresult cuMemMapArrayAsync_any(bool per_thread, CUarrayMapInfo *list, unsigned count, CUstream handle)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && (!list || !count))
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        rc = capture_forbid_stream(stream);
    if (!rc)
        stream_wait_idle(stream);
    for (unsigned i = 0; i < count && !rc; i++)
        rc = map_region(&list[i]);
    return api_leave(rc);
}

TWIN_API(cuMemMapArrayAsync, _ptsz, (CUarrayMapInfo * list, unsigned count, CUstream stream), list, count, stream)
