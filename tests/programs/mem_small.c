// SPDX-License-Identifier: AGPL-3.0-or-later
// Small allocations share blocks, at the limit too, and every block comes back with its last one.
#include "driver.h"

#define COUNT 600

int main(void)
{
    static CUdeviceptr small[COUNT];
    CUdeviceptr large;
    start();
    size_t whole = told_free();
    for (int i = 0; i < COUNT; i++)
        OK(cuMemAlloc(&small[i], 64 << 10));
    size_t rest = told_free();
    size_t least = (size_t)COUNT * (64 << 10);
    if (whole - rest < least || whole - rest > 2 * least)
        fail("%d allocations of 64 KiB took %zu bytes", COUNT, whole - rest);
    // Every second one goes: their places are in blocks that are still in use.
    for (int i = 0; i < COUNT; i += 2)
        OK(cuMemFree(small[i]));
    OK(cuMemAlloc(&large, told_free()));
    EXPECT(cuMemAlloc(&small[0], 4 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc(&small[0], 64 << 10));
    OK(cuMemFree(small[0]));
    OK(cuMemFree(large));
    for (int i = 1; i < COUNT; i += 2)
        OK(cuMemFree(small[i]));
    expect_free(whole, "after freeing");
    return 0;
}
