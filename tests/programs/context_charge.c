// SPDX-License-Identifier: AGPL-3.0-or-later
// Contexts take memory of the GPU and give it back, whatever the way they end, and what was allocated in them with them. Prints
// "context BYTES".
#include "driver.h"

static size_t total;

static size_t used(void)
{
    return total - told_free();
}

static void expect_used(size_t expected, const char *when)
{
    if (used() != expected)
        fail("%s: %zu bytes are used where %zu are expected", when, used(), expected);
}

int main(void)
{
    CUdevice device;
    CUcontext primary, second, again;
    CUdeviceptr address;
    primary = start();
    total = told_total();
    OK(cuDeviceGet(&device, 0));
    size_t one = used();
    OK(cuDevicePrimaryCtxRetain(&again, device));
    expect_used(one, "a primary context retained twice");

    OK(create_context(&second, device));
    size_t extra = used() - one;
    if (extra < MIB)
        fail("a second context takes %zu bytes", extra);
    OK(cuMemAlloc(&address, 64 * MIB));
    expect_used(one + extra + 64 * MIB, "an allocation in the second context");
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(primary));
    expect_used(one, "the second context is gone");

    OK(cuMemAlloc(&address, 64 * MIB));
    OK(cuDevicePrimaryCtxRelease(device));
    expect_used(one + 64 * MIB, "the primary context is released once");
    OK(cuDevicePrimaryCtxReset(device));
    OK(cuDevicePrimaryCtxRetain(&primary, device));
    OK(cuCtxSetCurrent(primary));
    expect_used(one, "the primary context is made anew");
    printf("context %zu\n", one);
    return 0;
}
