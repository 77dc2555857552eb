// SPDX-License-Identifier: AGPL-3.0-or-later
// What the door programs do once they have got hold of the driver's functions, each by its own door: initialise, make the primary
// context current, allocate argv[1] MiB, print "granted" or "refused CODE".
//
// Prints "no FUNCTION" and exits with 2 where the door does not have a function.
#ifndef DOOR_H
#define DOOR_H

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>

// Finds a function by its name without and with version suffix, of which a door wants one.
typedef void *door_find(const char *family, const char *name);

static inline void *door_get(door_find *find, const char *family, const char *name)
{
    void *function = find(family, name);
    if (!function) {
        printf("no %s\n", name);
        exit(2);
    }
    return function;
}

#define DOOR_GET(find, family, name) ((__typeof__(name) *)door_get(find, #family, #name))

static inline int door_said(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS)
        printf("%s: %d\n", what, (int)result);
    return result != CUDA_SUCCESS;
}

static inline int door_try(door_find *find, int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20;
    CUdevice device;
    CUcontext context;
    CUdeviceptr pointer;
    // In this order: names that cuda.h maps to a version are written with it.
    CUresult (*init)(unsigned) = DOOR_GET(find, cuInit, cuInit);
    CUresult (*get)(CUdevice *, int) = DOOR_GET(find, cuDeviceGet, cuDeviceGet);
    CUresult (*retain)(CUcontext *, CUdevice) = DOOR_GET(find, cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain);
    CUresult (*set)(CUcontext) = DOOR_GET(find, cuCtxSetCurrent, cuCtxSetCurrent);
    CUresult (*allocate)(CUdeviceptr *, size_t) =
        (CUresult(*)(CUdeviceptr *, size_t))door_get(find, "cuMemAlloc", "cuMemAlloc_v2");
    if (door_said(init(0), "cuInit") || door_said(get(&device, 0), "cuDeviceGet") ||
        door_said(retain(&context, device), "cuDevicePrimaryCtxRetain") || door_said(set(context), "cuCtxSetCurrent"))
        return 1;
    CUresult result = allocate(&pointer, bytes);
    if (result == CUDA_SUCCESS)
        puts("granted");
    else
        printf("refused %d\n", (int)result);
    return 0;
}

#endif
