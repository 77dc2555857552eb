// NVRTC: a kernel compiled while the program runs, launched through the driver API.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cuda.h>
#include <nvrtc.h>

#include "tests/gpu/check.h"

#define ITEMS (1u << 18)

static const char source[] = "__constant__ unsigned term;\n"
                             "extern \"C\" __global__ void mix(unsigned *p, unsigned factor)\n"
                             "{\n"
                             "    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;\n"
                             "    p[i] = (p[i] ^ i) * factor + term;\n"
                             "}\n";

static void *compile(CUdevice device)
{
    int major, minor;
    char architecture[40];
    nvrtcProgram program;
    size_t bytes;
    OK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    OK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
    snprintf(architecture, sizeof architecture, "--gpu-architecture=sm_%d%d", major, minor);
    const char *options[] = {architecture};
    OK(nvrtcCreateProgram(&program, source, "mix.cu", 0, NULL, NULL));
    OK(nvrtcCompileProgram(program, 1, options));
    OK(nvrtcGetCUBINSize(program, &bytes));
    char *image = malloc(bytes);
    EXPECT(image != NULL);
    OK(nvrtcGetCUBIN(program, image));
    OK(nvrtcDestroyProgram(&program));
    return image;
}

int main(void)
{
    static uint32_t values[ITEMS];
    CUdevice device;
    CUcontext context;
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    while (again()) {
        CUmodule module;
        CUfunction function;
        CUdeviceptr data, term;
        uint32_t factor = 2654435761u, constant = 12345;
        size_t bytes;
        void *image = compile(device);
        OK(cuModuleLoadData(&module, image));
        OK(cuModuleGetFunction(&function, module, "mix"));
        OK(cuModuleGetGlobal(&term, &bytes, module, "term"));
        EXPECT(bytes == sizeof constant);
        OK(cuMemcpyHtoD(term, &constant, sizeof constant));
        OK(cuMemAlloc(&data, sizeof values));
        OK(cuMemsetD32(data, 1, ITEMS));
        void *params[] = {&data, &factor};
        for (int i = 0; i < 50; i++)
            OK(cuLaunchKernel(function, ITEMS / 256, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
        OK(cuMemcpyDtoH(values, data, sizeof values));
        result("compiled kernel", values, sizeof values);
        OK(cuMemFree(data));
        OK(cuModuleUnload(module));
        free(image);
    }
    OK(cuDevicePrimaryCtxRelease(device));
    return 0;
}
