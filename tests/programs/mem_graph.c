// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_graph explicit|captured [INSTANTIATION]: memory that a graph allocates is charged when the graph is launched, refused where it does not fit, kept
// for the next launch, and given back by trimming.
#include <string.h>

#include "driver.h"

// Forms that the header knows under the plain names only, or not any more.
CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes);
__typeof__(cuGraphInstantiateWithParams) cuGraphInstantiateWithParams_ptsz;
__typeof__(cuGraphUpload) cuGraphUpload_ptsz;

static CUstream stream;
static CUdeviceptr address;
static const char *form = "flags";

static CUresult instantiate(CUgraphExec *exec, CUgraph graph)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {0};
    if (strcmp(form, "v2") == 0)
        return cuGraphInstantiate_v2(exec, graph, NULL, NULL, 0);
    if (strcmp(form, "params") == 0)
        return cuGraphInstantiateWithParams(exec, graph, &params);
    if (strcmp(form, "params_ptsz") == 0)
        return cuGraphInstantiateWithParams_ptsz(exec, graph, &params);
    return cuGraphInstantiateWithFlags(exec, graph, 0);
}

static CUgraph make_explicit(size_t bytes)
{
    CUgraph graph;
    CUgraphNode allocation, release;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                       .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}},
                                         .bytesize = bytes};
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddMemAllocNode(&allocation, graph, NULL, 0, &params));
    OK(cuGraphAddMemFreeNode(&release, graph, &allocation, 1, params.dptr));
    return graph;
}

static CUgraph make_captured(size_t bytes)
{
    CUgraph graph;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemAllocAsync(&address, bytes, stream));
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamEndCapture(stream, &graph));
    return graph;
}

// What the driver rounds up to is its own affair: up to 64 MiB more.
static void expect_taken(size_t whole, size_t bytes, const char *when)
{
    size_t taken = whole - told_free();
    if (taken < bytes || taken > bytes + 64 * MIB)
        fail("%s: %zu bytes are taken where %zu are expected", when, taken, bytes);
}

// An executable graph that another one has made larger is charged what it takes now.
static void update(size_t whole, CUgraph (*make)(size_t))
{
    CUgraphExec exec;
    CUgraphExecUpdateResultInfo info;
    CUdeviceptr rest;
    CUgraph small = make(64 * MIB), large = make(512 * MIB);
    OK(instantiate(&exec, small));
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    if (cuGraphExecUpdate(exec, large, &info) == CUDA_SUCCESS) {
        OK(cuMemAlloc(&rest, whole - 256 * MIB));
        EXPECT(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
        OK(cuMemFree(rest));
        OK(cuGraphLaunch(exec, stream));
        OK(cuStreamSynchronize(stream));
        expect_taken(whole, 512 * MIB, "updated");
    }
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(small));
    OK(cuGraphDestroy(large));
    OK(cuDeviceGraphMemTrim(0));
}

// Instantiating with an upload takes memory at once.
static void upload(size_t whole, CUgraph (*make)(size_t))
{
    CUgraphExec exec;
    CUdeviceptr rest;
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, .hUploadStream = stream};
    CUgraph graph = make(512 * MIB);
    OK(cuMemAlloc(&rest, whole - 256 * MIB));
    EXPECT(cuGraphInstantiateWithParams(&exec, graph, &params), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuGraphInstantiateWithParams_ptsz(&exec, graph, &params), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree(rest));
    expect_free(whole, "after an upload was refused");
    OK(cuGraphInstantiateWithParams(&exec, graph, &params));
    expect_taken(whole, 512 * MIB, "uploaded");
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    expect_taken(whole, 512 * MIB, "uploaded and launched");
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
    OK(cuDeviceGraphMemTrim(0));
}

int main(int argc, char **argv)
{
    CUgraphExec exec, large;
    CUgraph (*make)(size_t) = argc > 1 && strcmp(argv[1], "captured") == 0 ? make_captured : make_explicit;
    if (argc > 2)
        form = argv[2];
    start();
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    size_t whole = told_free(), bytes = whole / 2 & ~(2 * MIB - 1);

    CUgraph graph = make(bytes);
    OK(instantiate(&exec, graph));
    OK(cuGraphDestroy(graph));
    for (int round = 0; round < 4; round++) {
        OK(cuGraphLaunch(exec, stream));
        expect_taken(whole, bytes, "launched");
    }
    OK(cuStreamSynchronize(stream));

    // More than all of it, and more than is left while the first graph's memory is kept: that is given back before a refusal.
    graph = make(whole + 64 * MIB);
    OK(instantiate(&large, graph));
    OK(cuGraphDestroy(graph));
    EXPECT(cuGraphLaunch(large, stream), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuGraphUpload(large, stream), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuGraphUpload_ptsz(large, stream), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuGraphExecDestroy(large));
    expect_free(whole, "after a refusal, which trims");
    OK(cuGraphUpload(exec, stream));
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    expect_taken(whole, bytes, "uploaded and launched anew");
    OK(cuDeviceGraphMemTrim(0));
    expect_free(whole, "after trimming");

    CUdeviceptr rest;
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemAlloc(&rest, whole - 64 * MIB)); // needs what the graphs keep
    OK(cuMemFree(rest));
    OK(cuGraphExecDestroy(exec));
    OK(cuDeviceGraphMemTrim(0));
    update(whole, make);
    upload(whole, make);
    expect_free(whole, "in the end");
    return 0;
}
