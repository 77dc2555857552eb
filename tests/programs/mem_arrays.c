// SPDX-License-Identifier: AGPL-3.0-or-later
// Small arrays share blocks, and a sparse one takes nothing.
#include "driver.h"

#define COUNT 40

static CUarray make(size_t width, unsigned flags)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {
        .Width = width, .Height = 64, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1, .Flags = flags};
    CUarray array;
    OK(cuArray3DCreate(&array, &descriptor));
    return array;
}

int main(void)
{
    CUarray arrays[COUNT];
    start();
    size_t whole = told_free();
    // 16 KiB each: all of them in one block.
    for (int i = 0; i < COUNT; i++)
        arrays[i] = make(64, 0);
    if (told_free() + 2 * MIB != whole)
        fail("%d small arrays take %zu bytes", COUNT, whole - told_free());
    for (int i = 0; i < COUNT; i++)
        OK(cuArrayDestroy(arrays[i]));
    expect_free(whole, "after small arrays");

    CUmipmappedArray mipmapped;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {
        .Width = 8192, .Height = 8192, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1, .Flags = CUDA_ARRAY3D_SPARSE};
    OK(cuMipmappedArrayCreate(&mipmapped, &descriptor, 4));
    expect_free(whole, "with a sparse array");
    OK(cuMipmappedArrayDestroy(mipmapped));

    // What is wrong is the driver's to say.
    EXPECT(cuArray3DCreate(NULL, &descriptor), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuArray3DCreate(&arrays[0], NULL), CUDA_ERROR_INVALID_VALUE);
    descriptor.Flags = 0;
    descriptor.Width = 0;
    EXPECT(cuArray3DCreate(&arrays[0], &descriptor), CUDA_ERROR_INVALID_VALUE);
    descriptor.Width = SIZE_MAX / 2;
    EXPECT(cuArray3DCreate(&arrays[0], &descriptor), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMipmappedArrayCreate(&mipmapped, &descriptor, 0), CUDA_ERROR_INVALID_VALUE);
    expect_free(whole, "after wrong calls");
    return 0;
}
