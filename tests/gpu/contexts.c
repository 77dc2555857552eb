// The driver API with several contexts: a primary one and two of the program's own, each with its module and its memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cuda.h>

#include "tests/gpu/check.h"

#define CONTEXTS 3
#define ITEMS (1u << 18)

static void create_context(CUcontext *context, CUdevice device)
{
#if CUDA_VERSION >= 13000
    OK(cuCtxCreate(context, NULL, 0, device));
#else
    OK(cuCtxCreate(context, 0, device));
#endif
}

static void run_kernel(CUfunction function, CUstream stream, CUdeviceptr data, uint32_t value)
{
    uint64_t n = ITEMS;
    void *params[] = {&data, &value, &n};
    OK(cuLaunchKernel(function, 64, 1, 1, 256, 1, 1, 0, stream, params, NULL));
}

int main(int argc, char **argv)
{
    static uint32_t values[CONTEXTS][ITEMS];
    CUdevice device;
    if (argc != 2)
        fail("usage: contexts MODULE");
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    while (again()) {
        CUcontext contexts[CONTEXTS];
        CUmodule modules[CONTEXTS];
        CUstream streams[CONTEXTS];
        CUdeviceptr data[CONTEXTS];
        for (uint32_t i = 0; i < CONTEXTS; i++) {
            CUfunction fill;
            if (i == 0)
                OK(cuDevicePrimaryCtxRetain(&contexts[i], device));
            else
                create_context(&contexts[i], device);
            OK(cuCtxSetCurrent(contexts[i]));
            OK(cuModuleLoad(&modules[i], argv[1]));
            OK(cuModuleGetFunction(&fill, modules[i], "fill_u32"));
            OK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
            OK(cuMemAlloc(&data[i], sizeof values[i]));
            run_kernel(fill, streams[i], data[i], i + 1);
        }
        // By turns, so that every launch is in another context than the one before.
        for (uint32_t step = 0; step < 30; step++) {
            CUfunction add;
            uint32_t i = step % CONTEXTS;
            OK(cuCtxPushCurrent(contexts[i]));
            OK(cuModuleGetFunction(&add, modules[i], "add_u32"));
            run_kernel(add, streams[i], data[i], step * (i + 1));
            OK(cuCtxPopCurrent(NULL));
        }
        for (uint32_t i = 0; i < CONTEXTS; i++) {
            OK(cuCtxSetCurrent(contexts[i]));
            OK(cuStreamSynchronize(streams[i]));
            OK(cuMemcpyDtoH(values[i], data[i], sizeof values[i]));
            if (i == 0) {
                OK(cuMemFree(data[i]));
                OK(cuStreamDestroy(streams[i]));
                OK(cuModuleUnload(modules[i]));
                OK(cuDevicePrimaryCtxRelease(device));
            } else {
                OK(cuCtxDestroy(contexts[i])); // takes memory, stream and module along
            }
        }
        result("contexts", values, sizeof values);
    }
    return 0;
}
