// SPDX-License-Identifier: AGPL-3.0-or-later
// Prints the memory of GPU 0 in MiB as NVML tells it, by its first function and by the second, and as the driver tells it: before cuInit
// and with a context of its own, in which memory was allocated and freed.
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static void *library;
static void *device;

static void tell(const char *when)
{
    int (*info)(void *, struct memory *) = (int (*)(void *, struct memory *))dlsym(library, "nvmlDeviceGetMemoryInfo");
    int (*info_v2)(void *, struct memory_v2 *) =
        (int (*)(void *, struct memory_v2 *))dlsym(library, "nvmlDeviceGetMemoryInfo_v2");
    struct memory memory;
    struct memory_v2 memory_v2 = {.version = sizeof memory_v2 | 2u << 24};
    if (!info || !info_v2 || info(device, &memory) || info_v2(device, &memory_v2)) {
        printf("%s: no answer\n", when);
        return;
    }
    printf("%s: total %llu free %llu used %llu, v2 total %llu free %llu used %llu\n", when, memory.total >> 20,
           memory.free >> 20, memory.used >> 20, memory_v2.total >> 20, memory_v2.free >> 20, memory_v2.used >> 20);
}

int main(void)
{
    CUcontext context;
    CUdeviceptr address;
    size_t free_bytes, total_bytes;
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    int (*init)(void) = library ? (int (*)(void))dlsym(library, "nvmlInit_v2") : NULL;
    int (*get)(unsigned, void **) =
        library ? (int (*)(unsigned, void **))dlsym(library, "nvmlDeviceGetHandleByIndex_v2") : NULL;
    if (!init || !get || init() != 0 || get(0, &device) != 0) {
        puts("no NVML");
        return 1;
    }
    tell("before");
    if (cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS ||
        cuCtxSetCurrent(context) != CUDA_SUCCESS || cuMemAlloc(&address, 40 << 20) != CUDA_SUCCESS ||
        cuMemFree(address) != CUDA_SUCCESS || cuMemGetInfo(&free_bytes, &total_bytes) != CUDA_SUCCESS)
        return 1;
    tell("attached");
    printf("driver: total %zu free %zu\n", total_bytes >> 20, free_bytes >> 20);
    return 0;
}
