// SPDX-License-Identifier: AGPL-3.0-or-later
// heap_told: what the driver API tells of memory from cuMemAlloc is the same whoever allocates it.
#include "driver.h"

static unsigned long long buffer_id(CUdeviceptr address)
{
    unsigned long long id = 0;
    OK(cuPointerGetAttribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, address));
    return id;
}

// The driver may tell a size that is rounded up a little.
static bool right_size(size_t told, size_t bytes)
{
    return told >= bytes && told - bytes < 512;
}

static void expect_range(CUdeviceptr address, CUdeviceptr base, size_t bytes)
{
    CUdeviceptr told;
    size_t size;
    OK(cuMemGetAddressRange(&told, &size, address));
    if (told != base || !right_size(size, bytes))
        fail("%#llx + %zu is told as %#llx + %zu", base, bytes, told, size);
}

static void expect_attributes(CUdeviceptr address, CUdeviceptr base, size_t bytes, CUcontext context)
{
    CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_CONTEXT,          CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                        CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,   CU_POINTER_ATTRIBUTE_IS_MANAGED};
    CUcontext owner = NULL;
    unsigned type = 0, managed = 1;
    CUdeviceptr start_address = 0;
    size_t size = 0;
    int ordinal = -1;
    void *data[] = {&owner, &type, &start_address, &size, &ordinal, &managed};
    OK(cuPointerGetAttributes(6, attributes, data, address));
    if (owner != context || type != CU_MEMORYTYPE_DEVICE || start_address != base || !right_size(size, bytes) || ordinal != 0 ||
        managed)
        fail("attributes of %#llx: context %p, type %u, %#llx + %zu, device %d, managed %u", address, (void *)owner, type,
             start_address, size, ordinal, managed);
    OK(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address));
    if (owner != context)
        fail("the context of %#llx is told as %p", address, (void *)owner);
}

int main(void)
{
    CUcontext context = start();
    CUdeviceptr first, second, large, pitched, ignored;
    size_t pitch, size;
    unsigned type;
    size_t whole = told_free();
    OK(cuMemAlloc(&first, 1000));
    OK(cuMemAlloc(&second, 1000));
    OK(cuMemAlloc(&large, 5 * MIB + 3));
    OK(cuMemAllocPitch(&pitched, &pitch, 700, 10, 4));
    if (first % 512 || second % 512 || large % 512 || pitched % 512 || pitch != 1024)
        fail("not aligned: %#llx %#llx %#llx %#llx, pitch %zu", first, second, large, pitched, pitch);

    expect_range(first, first, 1000);
    expect_range(second + 999, second, 1000);
    expect_range(large + 5 * MIB, large, 5 * MIB + 3);
    expect_attributes(large + 4 * MIB, large, 5 * MIB + 3, context);
    expect_attributes(second + 1, second, 1000, context);
    if (buffer_id(first) == buffer_id(second) || buffer_id(large) != buffer_id(large + 3 * MIB))
        fail("buffer ids %llu %llu %llu", buffer_id(first), buffer_id(second), buffer_id(large));

    CUmemGenericAllocationHandle handle;
    EXPECT(cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)large), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemFree(large + 512), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemFree(second + 1), CUDA_ERROR_INVALID_VALUE);
    unsigned long long id = buffer_id(first);
    OK(cuMemFree(first));
    EXPECT(cuMemFree(first), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, first), CUDA_ERROR_INVALID_VALUE);
    if (cuMemGetAddressRange(&ignored, &size, first) == CUDA_SUCCESS)
        fail("freed memory has an address range");
    OK(cuMemAlloc(&first, 1000));
    if (buffer_id(first) == id)
        fail("a buffer id came back");
    OK(cuMemFree(first));
    OK(cuMemFree(second));
    OK(cuMemFree(large));
    OK(cuMemFree(pitched));
    expect_free(whole, "after freeing");
    return 0;
}
