// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_room: what was allocated and freed is there for every other kind of memory, and a context that ends leaves nothing behind.
#include "driver.h"

int main(void)
{
    CUcontext first = start(), second;
    CUdevice device;
    CUdeviceptr address, others[8];
    CUmemGenericAllocationHandle handle;
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    size_t whole = told_free(), blocks = whole / (2 * MIB) * (2 * MIB);
    for (int i = 0; i < 8; i++)
        OK(cuMemAlloc(&others[i], 10 * MIB));
    for (int i = 0; i < 8; i++)
        OK(cuMemFree(others[i]));
    expect_free(whole, "after eight allocations and their ends");
    OK(cuMemCreate(&handle, blocks, &properties, 0));
    OK(cuMemRelease(handle));
    OK(cuMemAlloc(&address, 60 * MIB));
    OK(cuMemFree(address));
    OK(cuMemAllocManaged(&address, blocks, CU_MEM_ATTACH_GLOBAL));
    OK(cuMemFree(address));
    OK(cuMemAlloc(&address, 60 * MIB));
    OK(cuMemFree(address));
    // A pool grows in steps of 32 MiB.
    OK(cuMemAllocAsync(&address, blocks / (32 * MIB) * (32 * MIB), NULL));
    OK(cuMemFreeAsync(address, NULL));
    OK(cuStreamSynchronize(NULL));
    OK(cuMemAlloc(&address, blocks));
    EXPECT(cuMemAlloc(&others[0], 3 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree(address));

    OK(cuCtxGetDevice(&device));
    OK(cuMemAlloc(&others[0], 3 * MIB));
    size_t rest = told_free();
    OK(cuCtxCreate(&second, NULL, 0, device));
    OK(cuMemAlloc(&address, 40 * MIB));
    OK(cuMemAlloc(&others[1], 10000));
    OK(cuCtxSetCurrent(first));
    OK(cuMemFree(address)); // another context's, which need not be current
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(first));
    expect_free(rest, "after the end of a context");
    EXPECT(cuMemFree(others[1]), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree(others[0]));

    OK(cuMemAlloc(&address, 40 * MIB));
    OK(cuDevicePrimaryCtxReset(device));
    OK(cuDevicePrimaryCtxRetain(&first, device));
    OK(cuCtxSetCurrent(first));
    expect_free(whole, "after a reset");
    return 0;
}
