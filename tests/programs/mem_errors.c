// SPDX-License-Identifier: AGPL-3.0-or-later
// Wrong calls get the driver's own answers, and change nothing of what is free.
#include "driver.h"

int main(void)
{
    CUdeviceptr address = 0, other;
    size_t pitch;
    CUmemGenericAllocationHandle handle;
    CUcontext context;
    const CUmemAllocationProp host = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 99}};
    EXPECT(cuMemAlloc(&address, 1), CUDA_ERROR_NOT_INITIALIZED);
    start();
    size_t whole = told_free();
    EXPECT(cuMemAlloc(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemAlloc(&address, 0), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemAllocPitch(&address, &pitch, 0, 1, 4), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemAllocManaged(&address, 4096, 77), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemFree(0x1234), CUDA_ERROR_INVALID_VALUE);
    if (cuMemCreate(&handle, 2 * MIB, &host, 0) == CUDA_SUCCESS)
        fail("memory was made on a device that does not exist");
    expect_free(whole, "after wrong calls");
    OK(cuMemAlloc(&address, 4096));
    OK(cuMemFree(address));
    EXPECT(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
    expect_free(whole, "after freeing twice");
    OK(cuCtxPopCurrent(&context));
    EXPECT(cuMemAlloc(&address, 4096), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxPushCurrent(context));
    expect_free(whole, "after an allocation without a context");
    OK(cuMemAlloc(&address, whole & ~(2 * MIB - 1)));
    OK(cuCtxPopCurrent(&context));
    EXPECT(cuMemAlloc(&other, 4 * MIB), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuMemAllocManaged(&other, 4 * MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuMemAllocPitch(&other, &pitch, MIB, 4, 4), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxPushCurrent(context));
    OK(cuMemFree(address));
    expect_free(whole, "after allocations without a context where none would fit");
    return 0;
}
