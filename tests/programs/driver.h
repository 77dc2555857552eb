// SPDX-License-Identifier: AGPL-3.0-or-later
// What the programs that test the driver API's behaviour share. They know nothing of the library under test: run bare, they test the
// driver. A program exits with 0, or with 1 after one line that says what was not as it should be.
#ifndef DRIVER_H
#define DRIVER_H

#include <cuda.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB (1ull << 20)

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    exit(1);
}

static inline void expect(CUresult actual, CUresult expected, const char *what)
{
    if (actual != expected)
        fail("%s: %d where %d is expected", what, (int)actual, (int)expected);
}

#define EXPECT(call, expected) expect((call), (expected), #call)
#define OK(call) EXPECT(call, CUDA_SUCCESS)

// cuCtxCreate, which takes other arguments since CUDA 13.
static inline CUresult create_context(CUcontext *context, CUdevice device)
{
#if CUDA_VERSION >= 13000
    return cuCtxCreate(context, NULL, 0, device);
#else
    return cuCtxCreate(context, 0, device);
#endif
}

// Initialises, and makes the primary context of device 0 current.
static inline CUcontext start(void)
{
    CUdevice device;
    CUcontext context;
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    return context;
}

static inline size_t told_free(void)
{
    size_t available, total;
    OK(cuMemGetInfo(&available, &total));
    return available;
}

static inline size_t told_total(void)
{
    size_t available, total;
    OK(cuMemGetInfo(&available, &total));
    return total;
}

static inline void expect_free(size_t expected, const char *when)
{
    size_t actual = told_free();
    if (actual != expected)
        fail("%s: %zu bytes are free where %zu are expected", when, actual, expected);
}

#endif
