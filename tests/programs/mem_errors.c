// SPDX-License-Identifier: AGPL-3.0-or-later
// Wrong calls get the driver's own answers, and change nothing of what is free.
#include "driver.h"

// Calls with one wrong argument, of sizes that are otherwise fine. Returns the answer to the call with that number.
static CUresult call_wrongly(int number)
{
    CUdeviceptr address;
    size_t pitch;
    CUmemGenericAllocationHandle handle;
    CUarray array;
    CUmipmappedArray mipmapped;
    CUmemAllocationProp there = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUDA_ARRAY_DESCRIPTOR flat = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 5};
    CUDA_ARRAY3D_DESCRIPTOR deep = {.Width = 1024, .Height = 1024, .Format = (CUarray_format)0x3ff, .NumChannels = 1};
    switch (number) {
    case 0:
        return cuMemAllocManaged(&address, 4 * MIB, 77);
    case 1:
        return cuMemAllocPitch(&address, &pitch, MIB, 4, 3);
    case 2:
        return cuMemCreate(&handle, 4 * MIB + 4096, &there, 0);
    case 3:
        return cuMemCreate(&handle, 4 * MIB, &there, 1);
    case 4:
        there.type = (CUmemAllocationType)77;
        return cuMemCreate(&handle, 4 * MIB, &there, 0);
    case 5:
        return cuArrayCreate(&array, &flat);
    case 6:
        return cuArray3DCreate(&array, &deep);
    case 7:
        return cuMipmappedArrayCreate(&mipmapped, &deep, 2);
    default:
        return create_context(NULL, 0);
    }
}

#define WRONG_CALLS 9

static CUresult answers[WRONG_CALLS];

static void call_wrongly_with_room(void)
{
    for (int i = 0; i < WRONG_CALLS; i++) {
        answers[i] = call_wrongly(i);
        if (answers[i] == CUDA_SUCCESS || answers[i] == CUDA_ERROR_OUT_OF_MEMORY)
            fail("wrong call %d: %d", i, (int)answers[i]);
    }
}

static void call_wrongly_without_room(void)
{
    int wrong = 0;
    for (int i = 0; i < WRONG_CALLS; i++) {
        CUresult answer = call_wrongly(i);
        if (answer == answers[i])
            continue;
        printf("wrong call %d: %d where %d is expected at a full quota\n", i, (int)answer, (int)answers[i]);
        wrong++;
    }
    if (wrong)
        fail("%d wrong calls get other answers at a full quota", wrong);
}

int main(void)
{
    CUdeviceptr address = 0, other;
    size_t pitch;
    CUmemGenericAllocationHandle handle;
    CUarray array;
    CUcontext context;
    const CUDA_ARRAY3D_DESCRIPTOR descriptor = {.Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
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
    call_wrongly_with_room();
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
    call_wrongly_without_room();
    EXPECT(cuMemAllocPitch(&other, &pitch, MIB, 4, 4), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuMemAllocManaged(&other, 4 * MIB, CU_MEM_ATTACH_HOST), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuCtxPopCurrent(&context));
    EXPECT(cuMemAlloc(&other, 4 * MIB), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuMemAllocManaged(&other, 4 * MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuMemAllocPitch(&other, &pitch, MIB, 4, 4), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuArray3DCreate(&array, &descriptor), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxPushCurrent(context));
    EXPECT(cuArray3DCreate(&array, &descriptor), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree(address));
    expect_free(whole, "after allocations without a context where none would fit");
    return 0;
}
