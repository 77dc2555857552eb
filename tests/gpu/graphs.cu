// CUDA graphs: captured over two streams, updated after instantiation, with memory nodes, and with nodes that the GPU decides about.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

static const size_t items = 1 << 18;
static const unsigned block = 256;

__global__ void affine(uint32_t *p, uint32_t factor, uint32_t term, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * factor + term + (uint32_t)i;
}

__global__ void add_into(uint32_t *sum, const uint32_t *p, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        sum[i] = sum[i] * 3 + p[i];
}

static void captured(cudaStream_t stream, cudaStream_t side)
{
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaEvent_t fork, join;
    uint32_t *a = poisoned<uint32_t>(items), *b = poisoned<uint32_t>(items);
    OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    for (uint32_t round = 0; round < 2; round++) {
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        OK(cudaEventRecord(fork, stream));
        OK(cudaStreamWaitEvent(side, fork, 0));
        launch(affine, blocks_for(items, block), block, stream, a, 3u, round + 1, items);
        launch(affine, blocks_for(items, block), block, side, b, 5u, round + 2, items);
        OK(cudaEventRecord(join, side));
        OK(cudaStreamWaitEvent(stream, join, 0));
        launch(add_into, blocks_for(items, block), block, stream, a, b, items);
        OK(cudaStreamEndCapture(stream, &graph));
        if (round == 0) {
            OK(cudaGraphInstantiate(&executable, graph, 0));
        } else {
            cudaGraphExecUpdateResultInfo info;
            OK(cudaGraphExecUpdate(executable, graph, &info));
        }
        OK(cudaGraphDestroy(graph));
        for (unsigned i = 0; i < 25; i++)
            OK(cudaGraphLaunch(executable, stream));
        OK(cudaStreamSynchronize(stream));
    }
    result_of("captured and updated", a, items);
    OK(cudaGraphExecDestroy(executable));
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(join));
    OK(cudaFree(a));
    OK(cudaFree(b));
}

// The graph takes 64 MiB when it is launched, by explicit nodes or by a capture, and frees them in itself.
static void with_memory(cudaStream_t stream, bool explicit_nodes)
{
    const size_t bytes = 64 << 20;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    uint32_t *sum = poisoned<uint32_t>(items);
    if (explicit_nodes) {
        cudaGraphNode_t alloc, clear, work, add, release;
        cudaMemAllocNodeParams memory = {};
        memory.poolProps.allocType = cudaMemAllocationTypePinned;
        memory.poolProps.location.type = cudaMemLocationTypeDevice;
        memory.bytesize = bytes;
        OK(cudaGraphCreate(&graph, 0));
        OK(cudaGraphAddMemAllocNode(&alloc, graph, nullptr, 0, &memory));
        cudaMemsetParams fill = {};
        fill.dst = memory.dptr;
        fill.value = 7;
        fill.elementSize = 4;
        fill.width = items;
        fill.height = 1;
        OK(cudaGraphAddMemsetNode(&clear, graph, &alloc, 1, &fill));
        uint32_t *data = static_cast<uint32_t *>(memory.dptr), factor = 11, term = 13;
        uint64_t n = items;
        void *work_params[] = {&data, &factor, &term, &n}, *add_params[] = {&sum, &data, &n};
        cudaKernelNodeParams kernel = {};
        kernel.func = reinterpret_cast<void *>(affine);
        kernel.gridDim = blocks_for(items, block);
        kernel.blockDim = block;
        kernel.kernelParams = work_params;
        OK(cudaGraphAddKernelNode(&work, graph, &clear, 1, &kernel));
        kernel.func = reinterpret_cast<void *>(add_into);
        kernel.kernelParams = add_params;
        OK(cudaGraphAddKernelNode(&add, graph, &work, 1, &kernel));
        OK(cudaGraphAddMemFreeNode(&release, graph, &add, 1, memory.dptr));
    } else {
        void *memory;
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        OK(cudaMallocAsync(&memory, bytes, stream));
        OK(cudaMemsetAsync(memory, 9, items * sizeof *sum, stream));
        launch(add_into, blocks_for(items, block), block, stream, sum, static_cast<uint32_t *>(memory), items);
        OK(cudaFreeAsync(memory, stream));
        OK(cudaStreamEndCapture(stream, &graph));
    }
    OK(cudaGraphInstantiate(&executable, graph, 0));
    for (unsigned i = 0; i < 10; i++)
        OK(cudaGraphLaunch(executable, stream));
    OK(cudaStreamSynchronize(stream));
    result_of(explicit_nodes ? "memory nodes" : "captured memory", sum, items);
    OK(cudaGraphExecDestroy(executable));
    OK(cudaGraphDestroy(graph));
    OK(cudaDeviceGraphMemTrim(0));
    OK(cudaFree(sum));
}

#if CUDART_VERSION >= 12040
__global__ void count_down(cudaGraphConditionalHandle handle, uint32_t *left, uint32_t *rounds)
{
    ++*rounds;
    cudaGraphSetConditional(handle, --*left > 0);
}

static void conditional(cudaStream_t stream)
{
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaGraphConditionalHandle handle;
    cudaGraphNode_t loop;
    uint32_t *counters = poisoned<uint32_t>(2);
    OK(cudaGraphCreate(&graph, 0));
    OK(cudaGraphConditionalHandleCreate(&handle, graph, 1, cudaGraphCondAssignDefault));
    cudaGraphNodeParams params = {};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = handle;
    params.conditional.type = cudaGraphCondTypeWhile;
    params.conditional.size = 1;
#if CUDART_VERSION >= 13000
    OK(cudaGraphAddNode(&loop, graph, nullptr, nullptr, 0, &params));
#else
    OK(cudaGraphAddNode(&loop, graph, nullptr, 0, &params));
#endif
    cudaGraph_t body = params.conditional.phGraph_out[0];
    OK(cudaStreamBeginCaptureToGraph(stream, body, nullptr, nullptr, 0, cudaStreamCaptureModeRelaxed));
    launch(count_down, 1, 1, stream, handle, counters, counters + 1);
    OK(cudaStreamEndCapture(stream, nullptr));
    OK(cudaGraphInstantiate(&executable, graph, 0));
    for (uint32_t rounds = 1; rounds <= 20; rounds++) {
        const uint32_t start[2] = {rounds, 0};
        OK(cudaMemcpyAsync(counters, start, sizeof start, cudaMemcpyHostToDevice, stream));
        OK(cudaGraphLaunch(executable, stream));
        OK(cudaStreamSynchronize(stream));
        EXPECT(to_host(counters, 2)[1] == rounds);
    }
    result_of("conditional node", counters, 2);
    OK(cudaGraphExecDestroy(executable));
    OK(cudaGraphDestroy(graph));
    OK(cudaFree(counters));
}
#else
static void conditional(cudaStream_t) {}
#endif

int main()
{
    cudaStream_t stream, side;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    while (again()) {
        captured(stream, side);
        with_memory(stream, true);
        with_memory(stream, false);
        conditional(stream);
    }
    OK(cudaStreamDestroy(stream));
    OK(cudaStreamDestroy(side));
    return 0;
}
