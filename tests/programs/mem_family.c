// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_family FAMILY: one family of memory functions at the limit. What is more than the GPU has free is refused with
// CUDA_ERROR_OUT_OF_MEMORY and leaves nothing behind; what fits is granted, counted, and comes back.
#include <string.h>

#include "driver.h"

struct block {
    CUdeviceptr address;
    CUarray array;
    CUmipmappedArray mipmapped;
    size_t bytes;
    CUmemGenericAllocationHandle handle;
};

struct family {
    const char *name;
    CUresult (*get)(struct block *block, size_t bytes);
    void (*put)(struct block *block);
};

// The per-thread-default-stream forms, which the header knows under the plain names only.
__typeof__(cuMemAllocAsync) cuMemAllocAsync_ptsz;
__typeof__(cuMemAllocFromPoolAsync) cuMemAllocFromPoolAsync_ptsz;
__typeof__(cuMemFreeAsync) cuMemFreeAsync_ptsz;
__typeof__(cuMemMapArrayAsync) cuMemMapArrayAsync_ptsz;
__typeof__(cuStreamSynchronize) cuStreamSynchronize_ptsz;

static CUstream stream;
static CUmemoryPool pool;

static CUresult get_linear(struct block *block, size_t bytes)
{
    return cuMemAlloc(&block->address, bytes);
}

static CUresult get_pitched(struct block *block, size_t bytes)
{
    size_t pitch;
    return cuMemAllocPitch(&block->address, &pitch, 4096, bytes / 4096, 4);
}

static CUresult get_managed(struct block *block, size_t bytes)
{
    return cuMemAllocManaged(&block->address, bytes, CU_MEM_ATTACH_GLOBAL);
}

static CUresult get_async(struct block *block, size_t bytes)
{
    return cuMemAllocAsync(&block->address, bytes, stream);
}

static CUresult get_from_pool(struct block *block, size_t bytes)
{
    return cuMemAllocFromPoolAsync(&block->address, bytes, pool, stream);
}

static CUresult get_async_ptsz(struct block *block, size_t bytes)
{
    return cuMemAllocAsync_ptsz(&block->address, bytes, NULL);
}

static CUresult get_from_pool_ptsz(struct block *block, size_t bytes)
{
    return cuMemAllocFromPoolAsync_ptsz(&block->address, bytes, pool, NULL);
}

static CUmemAllocationProp properties(void)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
}

// The handle is released at once: the mapping alone keeps the memory.
static CUresult get_mapped(struct block *block, size_t bytes)
{
    CUmemAllocationProp prop = properties();
    CUresult rc = cuMemCreate(&block->handle, bytes, &prop, 0);
    if (rc != CUDA_SUCCESS)
        return rc;
    OK(cuMemAddressReserve(&block->address, bytes, 0, 0, 0));
    OK(cuMemMap(block->address, bytes, 0, block->handle, 0));
    OK(cuMemRelease(block->handle));
    return CUDA_SUCCESS;
}

// The handle alone keeps the memory, obtained twice.
static CUresult get_unmapped(struct block *block, size_t bytes)
{
    CUmemAllocationProp prop = properties();
    CUmemGenericAllocationHandle again;
    CUresult rc = cuMemCreate(&block->handle, bytes, &prop, 0);
    if (rc != CUDA_SUCCESS)
        return rc;
    OK(cuMemAddressReserve(&block->address, bytes, 0, 0, 0));
    OK(cuMemMap(block->address, bytes, 0, block->handle, 0));
    OK(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)block->address));
    OK(cuMemRelease(block->handle));
    block->handle = again;
    OK(cuMemUnmap(block->address, bytes));
    return CUDA_SUCCESS;
}

// Arrays of 4 KiB rows: the driver's own rounding is a part of no row.
static CUDA_ARRAY3D_DESCRIPTOR rows(size_t bytes, unsigned flags)
{
    size_t count = bytes / 4096;
    bool deep = count > 16384;
    return (CUDA_ARRAY3D_DESCRIPTOR){.Width = 1024,
                                     .Height = deep ? 1024 : count,
                                     .Depth = deep ? count / 1024 : 0,
                                     .Format = CU_AD_FORMAT_UNSIGNED_INT32,
                                     .NumChannels = 1,
                                     .Flags = flags};
}

static CUresult get_array(struct block *block, size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = rows(bytes, 0);
    return cuArray3DCreate(&block->array, &descriptor);
}

// Without depth: rows of 64 KiB, since there may not be many, and a driver rounds them up to 128.
static CUresult get_plain_array(struct block *block, size_t bytes)
{
    CUDA_ARRAY_DESCRIPTOR descriptor = {.Width = 4096,
                                        .Height = bytes >> 16,
                                        .Format = CU_AD_FORMAT_UNSIGNED_INT32,
                                        .NumChannels = 4};
    return cuArrayCreate(&block->array, &descriptor);
}

static CUresult get_mipmapped(struct block *block, size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = rows(bytes, 0);
    return cuMipmappedArrayCreate(&block->mipmapped, &descriptor, 1);
}

// An array without memory of its own alone keeps what is mapped into it: as much as the driver says that it needs.
static CUresult get_deferred_by(struct block *block, size_t bytes, __typeof__(cuMemMapArrayAsync) *map, CUstream where)
{
    CUmemAllocationProp prop = properties();
    prop.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = rows(bytes, CUDA_ARRAY3D_DEFERRED_MAPPING);
    CUDA_ARRAY_MEMORY_REQUIREMENTS required;
    size_t granularity;
    OK(cuArray3DCreate(&block->array, &descriptor));
    OK(cuArrayGetMemoryRequirements(&required, block->array, 0));
    OK(cuMemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    block->bytes = (required.size + granularity - 1) / granularity * granularity;
    CUresult rc = cuMemCreate(&block->handle, block->bytes, &prop, 0);
    if (rc != CUDA_SUCCESS) {
        OK(cuArrayDestroy(block->array));
        return rc;
    }
    CUarrayMapInfo info = {.resourceType = CU_RESOURCE_TYPE_ARRAY,
                           .resource.array = block->array,
                           .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                           .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                           .memHandle.memHandle = block->handle,
                           .deviceBitMask = 1};
    OK(map(&info, 1, where));
    OK(cuMemRelease(block->handle));
    return CUDA_SUCCESS;
}

static CUresult get_deferred(struct block *block, size_t bytes)
{
    return get_deferred_by(block, bytes, cuMemMapArrayAsync, stream);
}

static CUresult get_deferred_ptsz(struct block *block, size_t bytes)
{
    return get_deferred_by(block, bytes, cuMemMapArrayAsync_ptsz, NULL);
}

// Unmapped without a word of regions: an array with deferred mapping has none.
static void put_deferred_by(struct block *block, __typeof__(cuMemMapArrayAsync) *map, CUstream where)
{
    CUarrayMapInfo info = {.resourceType = CU_RESOURCE_TYPE_ARRAY,
                           .resource.array = block->array,
                           .subresource.miptail = {.layer = 77},
                           .memOperationType = CU_MEM_OPERATION_TYPE_UNMAP,
                           .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                           .deviceBitMask = 1};
    size_t before = told_free();
    OK(map(&info, 1, where));
    OK(cuCtxSynchronize());
    expect_free(before + block->bytes, "after unmapping from an array");
    OK(cuArrayDestroy(block->array));
}

static void put_deferred(struct block *block)
{
    put_deferred_by(block, cuMemMapArrayAsync, stream);
}

static void put_deferred_ptsz(struct block *block)
{
    put_deferred_by(block, cuMemMapArrayAsync_ptsz, NULL);
}

static void put_array(struct block *block)
{
    OK(cuArrayDestroy(block->array));
}

static void put_mipmapped(struct block *block)
{
    OK(cuMipmappedArrayDestroy(block->mipmapped));
}

static void put(struct block *block)
{
    OK(cuMemFree(block->address));
}

static void put_async(struct block *block)
{
    OK(cuMemFreeAsync(block->address, stream));
    OK(cuStreamSynchronize(stream));
}

static void put_async_ptsz(struct block *block)
{
    OK(cuMemFreeAsync_ptsz(block->address, NULL));
    OK(cuStreamSynchronize_ptsz(NULL));
}

static void put_mapped(struct block *block)
{
    OK(cuMemUnmap(block->address, block->bytes));
    OK(cuMemAddressFree(block->address, block->bytes));
}

static void put_unmapped(struct block *block)
{
    OK(cuMemRelease(block->handle));
    OK(cuMemAddressFree(block->address, block->bytes));
}

static const struct family families[] = {
    {"linear", get_linear, put},
    {"pitched", get_pitched, put},
    {"managed", get_managed, put},
    {"async", get_async, put_async},
    {"pool", get_from_pool, put_async},
    {"async_ptsz", get_async_ptsz, put_async_ptsz},
    {"pool_ptsz", get_from_pool_ptsz, put_async_ptsz},
    {"mapped", get_mapped, put_mapped},
    {"unmapped", get_unmapped, put_unmapped},
    {"array", get_array, put_array},
    {"plain_array", get_plain_array, put_array},
    {"mipmapped", get_mipmapped, put_mipmapped},
    {"deferred", get_deferred, put_deferred},
    {"deferred_ptsz", get_deferred_ptsz, put_deferred_ptsz},
};

int main(int argc, char **argv)
{
    const struct family *family = NULL;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (argc > 1 && strcmp(argv[1], families[i].name) == 0)
            family = &families[i];
    if (!family)
        fail("no such family");

    start();
    const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemPoolCreate(&pool, &props));

    size_t whole = told_free();
    for (int round = 0; round < 3; round++) {
        struct block block = {0}, other = {0};
        EXPECT(family->get(&other, whole + 64 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
        expect_free(whole, "after a refusal");

        block.bytes = (whole / 2) & ~(4 * MIB - 1); // whole blocks, and whole layers of an array
        OK(family->get(&block, block.bytes));
        size_t rest = told_free();
        if (rest > whole - block.bytes || rest + 64 * MIB < whole - block.bytes)
            fail("%zu bytes are free after %zu of %zu were taken", rest, block.bytes, whole);
        EXPECT(family->get(&other, rest + 64 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
        expect_free(rest, "after a refusal beside an allocation");

        family->put(&block);
        expect_free(whole, "after freeing");
    }
    OK(cuMemPoolDestroy(pool));
    return 0;
}
