// SPDX-License-Identifier: AGPL-3.0-or-later
// Two GPUs: memory is charged to the one that it is on, whichever is current when it is asked for.
#include "driver.h"

#define BYTES (64 * MIB)

static CUcontext contexts[2];

static size_t free_on(int device)
{
    OK(cuCtxSetCurrent(contexts[device]));
    size_t bytes = told_free();
    OK(cuCtxSetCurrent(contexts[0]));
    return bytes;
}

static void expect_taken(const size_t whole[2], size_t first, size_t second, const char *what)
{
    size_t taken[2] = {whole[0] - free_on(0), whole[1] - free_on(1)};
    if (taken[0] != first || taken[1] != second)
        fail("%s: %zu and %zu bytes are taken where %zu and %zu are expected", what, taken[0], taken[1], first, second);
}

// A graph that allocates on both, launched on the first.
static void graph_on_both(const size_t whole[2])
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode allocation, release;
    CUstream stream;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuGraphCreate(&graph, 0));
    for (int device = 0; device < 2; device++) {
        CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                           .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}},
                                             .bytesize = (size_t)(device + 1) * BYTES};
        OK(cuGraphAddMemAllocNode(&allocation, graph, NULL, 0, &params));
        OK(cuGraphAddMemFreeNode(&release, graph, &allocation, 1, params.dptr));
    }
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    expect_taken(whole, BYTES, 2 * BYTES, "by a graph on both");
    OK(cuDeviceGraphMemTrim(0));
    expect_taken(whole, 0, 2 * BYTES, "by it on the second");
    OK(cuDeviceGraphMemTrim(1));

    // Refused where it does not fit on one of them, and then nothing is taken on the other.
    CUdeviceptr rest;
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuMemAlloc(&rest, whole[1] - BYTES));
    OK(cuCtxSetCurrent(contexts[0]));
    EXPECT(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    expect_taken(whole, 0, whole[1] - BYTES, "after a refusal");
    OK(cuMemFree(rest));
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
    OK(cuStreamDestroy(stream));
    expect_taken(whole, 0, 0, "after the graph");
}

int main(void)
{
    const CUmemAllocationProp on_second = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                           .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1}};
    const CUmemPoolProps of_second = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1}};
    const CUDA_ARRAY3D_DESCRIPTOR image = {.Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUmemGenericAllocationHandle memory;
    CUmemoryPool pool, keeper;
    CUdeviceptr address, second, third;
    CUarray array;
    size_t limit;
    contexts[0] = start();
    OK(cuDevicePrimaryCtxRetain(&contexts[1], 1));
    OK(cuCtxSetCurrent(contexts[0]));
    const size_t whole[2] = {free_on(0), free_on(1)};

    OK(cuMemCreate(&memory, BYTES, &on_second, 0));
    expect_taken(whole, 0, BYTES, "memory made for the second");
    OK(cuMemRelease(memory));
    OK(cuMemPoolCreate(&pool, &of_second));
    OK(cuMemAllocFromPoolAsync(&address, BYTES, pool, NULL));
    expect_taken(whole, 0, BYTES, "from a pool of the second");
    OK(cuMemFreeAsync(address, NULL));
    OK(cuStreamSynchronize(NULL));
    OK(cuMemPoolDestroy(pool));

    // Before an allocation on the second is refused, its other pools give back what they keep.
    cuuint64_t all = UINT64_MAX;
    const size_t most = whole[1] / BYTES * BYTES;
    OK(cuMemPoolCreate(&keeper, &of_second));
    OK(cuMemPoolSetAttribute(keeper, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    OK(cuMemAllocFromPoolAsync(&address, most, keeper, NULL));
    OK(cuMemFreeAsync(address, NULL));
    OK(cuStreamSynchronize(NULL));
    expect_taken(whole, 0, most, "kept by a pool of the second");
    OK(cuMemPoolCreate(&pool, &of_second));
    OK(cuMemAllocFromPoolAsync(&address, most, pool, NULL));
    expect_taken(whole, 0, most, "from the other pool of the second");
    OK(cuMemFreeAsync(address, NULL));
    OK(cuStreamSynchronize(NULL));
    OK(cuMemPoolDestroy(pool));
    OK(cuMemPoolDestroy(keeper));

    // The stream tells whose memory it is, also of what is refused.
    CUstream stream;
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuCtxSetCurrent(contexts[0]));
    OK(cuMemAllocAsync(&address, BYTES, stream));
    expect_taken(whole, 0, BYTES, "in the order of a stream of the second");
    OK(cuMemFreeAsync(address, stream));
    OK(cuMemAlloc(&address, whole[0]));
    OK(cuMemAllocAsync(&second, BYTES, stream));
    expect_taken(whole, whole[0], BYTES, "in the order of that stream, with the first full");
    EXPECT(cuMemAllocAsync(&third, whole[1], stream), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree(address));
    OK(cuMemFreeAsync(second, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuStreamDestroy(stream));
    OK(cuCtxSetCurrent(contexts[0]));
    expect_taken(whole, 0, 0, "after the stream of the second");

    graph_on_both(whole);

    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuArray3DCreate(&array, &image));
    expect_taken(whole, 0, BYTES, "an array on the second");
    OK(cuArrayDestroy(array)); // with the first one current
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuCtxGetLimit(&limit, CU_LIMIT_MALLOC_HEAP_SIZE));
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit + BYTES));
    expect_taken(whole, 0, BYTES, "a heap on the second");
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit));
    expect_taken(whole, 0, 0, "nothing");
    return 0;
}
