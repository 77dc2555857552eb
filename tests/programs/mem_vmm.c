// SPDX-License-Identifier: AGPL-3.0-or-later
// Physical memory at the edges of its functions: what the driver refuses to map or unmap changes no charge, a handle comes from
// any address within a mapping, and a sparse array keeps what is mapped into a part of it until that part is unmapped.
#include <stdint.h>
#include <unistd.h>

#include "driver.h"

#define BYTES (64 * MIB)
#define TILE 128 // a tile has 64 KiB: of elements of 4 bytes, this many in both directions

static size_t whole;

static void expect_taken(size_t bytes, const char *when)
{
    expect_free(whole - bytes, when);
}

static CUmemGenericAllocationHandle create(unsigned usage)
{
    CUmemGenericAllocationHandle memory;
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    prop.allocFlags.usage = (unsigned short)usage;
    OK(cuMemCreate(&memory, BYTES, &prop, 0));
    return memory;
}

static void refused(CUresult rc, const char *what)
{
    if (rc == CUDA_SUCCESS)
        fail("%s succeeded", what);
    expect_taken(BYTES, what);
}

static void mappings(void)
{
    CUdeviceptr address;
    CUmemGenericAllocationHandle again, memory = create(0);
    OK(cuMemAddressReserve(&address, 2 * BYTES, 0, 0, 0));
    refused(cuMemMap(address + 4096, BYTES, 0, memory, 0), "mapping to the middle of a block");
    OK(cuMemMap(address, BYTES, 0, memory, 0));
    OK(cuMemMap(address + BYTES, BYTES, 0, memory, 0)); // twice
    refused(cuMemUnmap(address, BYTES / 2), "unmapping a half");
    OK(cuMemRelease(memory));
    OK(cuMemUnmap(address, BYTES));
    expect_taken(BYTES, "with the second mapping");
    OK(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(address + BYTES + 4 * MIB)));
    OK(cuMemUnmap(address + BYTES, BYTES));
    expect_taken(BYTES, "with a handle from within the mapping");
    OK(cuMemRelease(again));
    expect_taken(0, "without it");
    OK(cuMemAddressFree(address, 2 * BYTES));
}

// One call unmaps what was mapped by several, also where what lies between is another's.
static void side_by_side(void)
{
    int fd;
    CUdeviceptr address;
    CUmemGenericAllocationHandle imported, memory;
    const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0},
                                      .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
    OK(cuMemCreate(&memory, BYTES, &prop, 0));
    OK(cuMemExportToShareableHandle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    OK(cuMemImportFromShareableHandle(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    OK(cuMemAddressReserve(&address, 3 * BYTES, 0, 0, 0));
    OK(cuMemMap(address, BYTES, 0, memory, 0));
    OK(cuMemMap(address + BYTES, BYTES, 0, imported, 0));
    OK(cuMemMap(address + 2 * BYTES, BYTES, 0, memory, 0));
    OK(cuMemRelease(imported));
    OK(cuMemRelease(memory));
    expect_taken(BYTES, "with three mappings");
    OK(cuMemUnmap(address, 3 * BYTES));
    expect_taken(0, "after unmapping all at once");
    OK(cuMemAddressFree(address, 3 * BYTES));
}

static void sparse_array(void)
{
    CUarray array;
    CUmemGenericAllocationHandle memory = create(CU_MEM_CREATE_USAGE_TILE_POOL);
    const CUDA_ARRAY3D_DESCRIPTOR descriptor = {
        .Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1, .Flags = CUDA_ARRAY3D_SPARSE};
    OK(cuArray3DCreate(&array, &descriptor));
    CUarrayMapInfo info = {.resourceType = CU_RESOURCE_TYPE_ARRAY,
                           .resource.array = array,
                           .subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL,
                           .subresource.sparseLevel = {.extentWidth = TILE, .extentHeight = TILE, .extentDepth = 1},
                           .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                           .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                           .memHandle.memHandle = memory,
                           .deviceBitMask = 1};
    CUarrayMapInfo two[2] = {info, info};
    two[1].subresource.sparseLevel.offsetX = TILE;
    two[1].offset = TILE * TILE * 4;
    OK(cuMemMapArrayAsync(two, 2, NULL));
    OK(cuMemRelease(memory));
    expect_taken(BYTES, "with two tiles");
    two[0].memOperationType = two[1].memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
    OK(cuMemMapArrayAsync(&two[0], 1, NULL));
    OK(cuCtxSynchronize());
    expect_taken(BYTES, "with one tile");
    OK(cuMemMapArrayAsync(&two[1], 1, NULL));
    OK(cuCtxSynchronize());
    expect_taken(0, "without tiles");
    OK(cuArrayDestroy(array));
}

int main(void)
{
    start();
    whole = told_free();
    mappings();
    side_by_side();
    sparse_array();
    expect_taken(0, "in the end");
    return 0;
}
