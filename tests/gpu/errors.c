// The driver API's answers to what it cannot do: wrong sizes, wrong handles, calls that a capture forbids, and a kernel that goes astray.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cuda.h>

#include "tests/gpu/check.h"

#define ASTRAY 4096 // an address that is never mapped

static CUdevice device;
static CUstream stream;

#define SAY(call) printf("%s: %d\n", #call, (int)(call))

static void without_context(void)
{
    CUcontext context;
    CUdeviceptr memory;
    CUevent event;
    CUstream made;
    CUstreamCaptureStatus status;
    size_t available, total;
    int least, greatest;
    SAY(cuMemAlloc(&memory, 4096));
    SAY(cuMemAllocAsync(&memory, 4096, NULL));
    SAY(cuMemGetInfo(&available, &total));
    SAY(cuStreamCreate(&made, 0));
    SAY(cuStreamCreateWithPriority(&made, 0, -1));
    SAY(cuStreamSynchronize(NULL));
    SAY(cuStreamIsCapturing(NULL, &status));
    SAY(cuStreamBeginCapture(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL));
    SAY(cuEventCreate(&event, 0));
    SAY(cuCtxSynchronize());
    SAY(cuCtxGetStreamPriorityRange(&least, &greatest));
    SAY(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
    SAY(cuCtxPopCurrent(&context));
    SAY(cuDevicePrimaryCtxRelease(device));
    SAY(cuDevicePrimaryCtxReset(device));
    SAY(cuDevicePrimaryCtxRetain(&context, 99));
    SAY(cuDevicePrimaryCtxRetain(NULL, device));
    SAY(cuDeviceTotalMem(NULL, device));
    SAY(cuDeviceTotalMem(&total, 99));
}

static void sizes(void)
{
    static const size_t wrong[] = {0, 1ull << 46, 1ull << 63, SIZE_MAX - 1, SIZE_MAX};
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CUdeviceptr memory;
        CUmemGenericAllocationHandle handle;
        size_t bytes = wrong[i], pitch;
        printf("size %zu\n", bytes);
        SAY(cuMemAlloc(&memory, bytes));
        SAY(cuMemAllocPitch(&memory, &pitch, bytes, 2, 4));
        SAY(cuMemAllocPitch(&memory, &pitch, 16, bytes, 4));
        // Unified memory may be larger than the GPU, but that is not to be tried: too large for any address space is.
        if (bytes == 0 || bytes >= 1ull << 63)
            SAY(cuMemAllocManaged(&memory, bytes, CU_MEM_ATTACH_GLOBAL));
        if (bytes) // of nothing, drivers differ
            SAY(cuMemAllocAsync(&memory, bytes, stream));
        SAY(cuMemCreate(&handle, bytes, &properties, 0));
    }
    CUarray array;
    CUDA_ARRAY_DESCRIPTOR description = {.Width = 1 << 20, .Height = 1 << 20, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    SAY(cuArrayCreate(&array, &description));
    description = (CUDA_ARRAY_DESCRIPTOR){.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 3};
    SAY(cuArrayCreate(&array, &description));
}

static void arguments(CUmodule module)
{
    CUdeviceptr memory;
    CUfunction function;
    CUmodule none;
    CUstream other;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_INVALID};
    size_t available;
    SAY(cuMemAlloc(NULL, 4096));
    SAY(cuMemFree(0));
    SAY(cuMemFree(ASTRAY));
    OK(cuMemAlloc(&memory, 4096));
    SAY(cuMemFree(memory + 256));
    SAY(cuMemFree(memory));
    SAY(cuMemFree(memory));
    SAY(cuMemGetInfo(&available, NULL));
    SAY(cuMemAllocManaged(&memory, 4096, 77));
    SAY(cuMemCreate(&handle, 2 << 20, &properties, 0));
    SAY(cuModuleGetFunction(&function, module, "no_such_kernel"));
    SAY(cuModuleLoadData(&none, "no module"));
    SAY(cuModuleLoad(&none, "/no/such/file"));
    SAY(cuStreamCreate(&other, 0x40));
    SAY(cuStreamCreate(NULL, 0));
    SAY(cuStreamCreateWithPriority(NULL, 0, 0));
    SAY(cuLaunchKernelEx(NULL, NULL, NULL, NULL));
    SAY(cuGraphLaunch(NULL, stream));
    SAY(cuDeviceGet(&device, -1));
    SAY(cuDeviceGet(&device, 0));
}

// Nothing where something must be, for what has no address of its own.
static void pools(void)
{
    CUmemoryPool standard, made;
    CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 99}};
    CUdeviceptr memory;
    OK(cuDeviceGetDefaultMemPool(&standard, device));
    SAY(cuMemAllocAsync(NULL, 4096, stream));
    SAY(cuMemAllocFromPoolAsync(NULL, 4096, standard, stream));
    SAY(cuMemAllocFromPoolAsync(&memory, 4096, NULL, stream));
    SAY(cuMemAllocFromPoolAsync(&memory, SIZE_MAX, standard, stream));
    SAY(cuMemFreeAsync(ASTRAY, stream));
    SAY(cuMemPoolCreate(NULL, &properties));
    SAY(cuMemPoolCreate(&made, NULL));
    SAY(cuMemPoolCreate(&made, &properties));
    SAY(cuMemPoolDestroy(NULL));
    SAY(cuMemPoolDestroy(standard));
    SAY(cuMemPoolTrimTo(NULL, 0));
    SAY(cuMemPoolTrimTo(standard, SIZE_MAX));
}

static void physical_memory(void)
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
    CUdeviceptr memory;
    SAY(cuMemCreate(NULL, 2 << 20, &properties, 0));
    SAY(cuMemCreate(&handle, 2 << 20, NULL, 0));
    SAY(cuMemCreate(&handle, 4096, &properties, 0));
    SAY(cuMemCreate(&handle, 2 << 20, &properties, 1));
    SAY(cuMemRelease(0));
    SAY(cuMemMap(ASTRAY, 2 << 20, 0, 0, 0));
    SAY(cuMemUnmap(ASTRAY, 2 << 20));
    SAY(cuMemRetainAllocationHandle(&handle, (void *)ASTRAY));
    properties.location.id = 99;
    SAY(cuMemCreate(&handle, 2 << 20, &properties, 0));
    SAY(cuMemAllocManaged(NULL, 4096, CU_MEM_ATTACH_GLOBAL));
    SAY(cuMemAllocPitch(&memory, NULL, 16, 2, 4));
}

static void arrays(void)
{
    CUarray array;
    CUmipmappedArray mipmapped;
    CUDA_ARRAY_DESCRIPTOR plain = {.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUDA_ARRAY3D_DESCRIPTOR deep = {.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    SAY(cuArrayCreate(NULL, &plain));
    SAY(cuArrayCreate(&array, NULL));
    SAY(cuArray3DCreate(NULL, &deep));
    SAY(cuArray3DCreate(&array, NULL));
    SAY(cuMipmappedArrayCreate(NULL, &deep, 1));
    SAY(cuMipmappedArrayCreate(&mipmapped, NULL, 1));
    SAY(cuMipmappedArrayCreate(&mipmapped, &deep, 0));
    for (int huge = 0; huge < 2; huge++) {
        plain.Width = deep.Width = huge ? SIZE_MAX : 0;
        SAY(cuArrayCreate(&array, &plain));
        SAY(cuArray3DCreate(&array, &deep));
        SAY(cuMipmappedArrayCreate(&mipmapped, &deep, 1));
    }
    SAY(cuArrayDestroy(NULL));
    SAY(cuMipmappedArrayDestroy(NULL));
    SAY(cuMemMapArrayAsync(NULL, 1, stream));
}

static void graphs(void)
{
    CUgraph graph;
    CUgraphExec executable;
    CUgraphNode node;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                       .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 99}},
                                         .bytesize = 4096};
    OK(cuGraphCreate(&graph, 0));
    SAY(cuGraphInstantiateWithFlags(NULL, graph, 0));
    SAY(cuGraphInstantiateWithFlags(&executable, NULL, 0));
    SAY(cuGraphExecDestroy(NULL));
    SAY(cuGraphUpload(NULL, stream));
    SAY(cuGraphAddMemAllocNode(&node, graph, NULL, 0, NULL));
    SAY(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params));
    SAY(cuDeviceGraphMemTrim(99));
    OK(cuGraphDestroy(graph));
}

static void contexts_and_modules(CUmodule module)
{
    CUdeviceptr variable;
    CUipcMemHandle handle;
    SAY(cuCtxDestroy(NULL));
    SAY(cuCtxSetLimit((CUlimit)99, 4096));
    SAY(cuModuleLoadData(NULL, "no module"));
    SAY(cuModuleUnload(NULL));
    SAY(cuModuleGetGlobal(&variable, NULL, module, "no_such_variable"));
    SAY(cuIpcGetMemHandle(&handle, 0));
    SAY(cuStreamDestroy(NULL));
    SAY(cuStreamEndCapture(stream, NULL));
    SAY(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
}

static void launches(CUfunction fill)
{
    CUdeviceptr memory;
    uint32_t value = 1;
    uint64_t n = 64;
    OK(cuMemAlloc(&memory, 4096));
    void *params[] = {&memory, &value, &n};
    SAY(cuLaunchKernel(fill, 1, 1, 1, 2048, 1, 1, 0, stream, params, NULL));
    SAY(cuLaunchKernel(fill, 0, 1, 1, 32, 1, 1, 0, stream, params, NULL));
    SAY(cuLaunchKernel(fill, 1, 1, 1, 32, 1, 1, 1 << 24, stream, params, NULL));
    SAY(cuLaunchCooperativeKernel(fill, 1 << 20, 1, 1, 1024, 1, 1, 0, stream, params));
    SAY(cuLaunchKernel(fill, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL));
    SAY(cuStreamSynchronize(stream));
    OK(cuMemFree(memory));
}

static void capture(void)
{
    CUgraph graph = NULL;
    CUdeviceptr memory;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    SAY(cuMemAlloc(&memory, 4096));
    SAY(cuStreamSynchronize(stream));
    SAY(cuStreamEndCapture(stream, &graph));
    SAY(graph == NULL);
    SAY(cuStreamEndCapture(stream, &graph));
}

// From here on every call of this process fails.
static void go_astray(CUfunction fill)
{
    CUdeviceptr memory = ASTRAY;
    uint32_t value = 1;
    uint64_t n = 64;
    void *params[] = {&memory, &value, &n};
    SAY(cuLaunchKernel(fill, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL));
    SAY(cuStreamSynchronize(stream));
    SAY(cuMemAlloc(&memory, 4096));
    SAY(cuLaunchKernel(fill, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL));
    SAY(cuStreamQuery(stream));
    SAY(cuCtxSynchronize());
}

int main(int argc, char **argv)
{
    CUcontext context;
    CUmodule module;
    CUfunction fill;
    CUdeviceptr memory;
    if (argc < 2)
        fail("usage: errors MODULE [astray]");
    setvbuf(stdout, NULL, _IOLBF, 0); // a crash shows where it was
    SAY(cuMemAlloc(&memory, 4096));   // before cuInit
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    without_context();
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&fill, module, "fill_u32"));
    again(); // where two run, both go on now
    sizes();
    arguments(module);
    pools();
    physical_memory();
    arrays();
    graphs();
    contexts_and_modules(module);
    launches(fill);
    capture();
    if (argc > 2)
        go_astray(fill);
    return 0;
}
