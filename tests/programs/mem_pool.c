// SPDX-License-Identifier: AGPL-3.0-or-later
// What a stream-ordered pool keeps counts until it is given back: freed memory stays while the release threshold allows, makes room
// when something else needs it, and outlives the destruction of its pool.
#include <stdint.h>
#include <string.h>

#include "driver.h"

static const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                     .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};

static void ask_destroyed_pool(void)
{
    CUmemoryPool pool;
    CUdeviceptr address;
    size_t whole = told_free();
    OK(cuMemPoolCreate(&pool, &props));
    OK(cuMemPoolDestroy(pool));
    for (int i = 0; i < 3; i++)
        EXPECT(cuMemAllocFromPoolAsync(&address, MIB, pool, NULL), CUDA_ERROR_INVALID_VALUE);
    expect_free(whole, "after asking a destroyed pool for memory");
}

int main(int argc, char **argv)
{
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr address, large;
    cuuint64_t keep = UINT64_MAX;
    start();
    if (argc > 1 && strcmp(argv[1], "destroyed") == 0) {
        ask_destroyed_pool();
        return 0;
    }
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemPoolCreate(&pool, &props));
    OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
    size_t whole = told_free();

    OK(cuMemAllocFromPoolAsync(&address, 256 * MIB, pool, stream));
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));
    expect_free(whole - 256 * MIB, "with memory kept in the pool");
    OK(cuMemAllocFromPoolAsync(&address, 200 * MIB, pool, stream));
    expect_free(whole - 256 * MIB, "with memory taken from the pool again");
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));

    OK(cuMemAlloc(&large, whole & ~(2 * MIB - 1)));
    OK(cuMemFree(large));
    expect_free(whole, "after the pool made room");

    CUmemoryPool standard;
    OK(cuDeviceGetDefaultMemPool(&standard, 0));
    OK(cuMemAllocAsync(&address, 64 * MIB, stream));
    if (cuMemPoolDestroy(standard) == CUDA_SUCCESS)
        fail("the default pool was destroyed");
    expect_free(whole - 64 * MIB, "after trying to destroy the default pool");
    OK(cuMemPoolSetAttribute(standard, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));
    expect_free(whole - 64 * MIB, "with memory kept in the default pool");
    OK(cuMemPoolTrimTo(standard, 0));

    OK(cuMemAllocFromPoolAsync(&address, 64 * MIB, pool, stream));
    OK(cuMemPoolTrimTo(pool, 0));
    expect_free(whole - 64 * MIB, "after trimming a pool in use");
    OK(cuMemPoolDestroy(pool));
    expect_free(whole - 64 * MIB, "after destroying a pool in use");
    EXPECT(cuMemAllocFromPoolAsync(&large, MIB, pool, stream), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemPoolTrimTo(pool, 0), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuDeviceSetMemPool(0, pool), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
    expect_free(whole - 64 * MIB, "after asking a destroyed pool in use");
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));
    expect_free(whole, "after the last memory of a destroyed pool");
    return 0;
}
