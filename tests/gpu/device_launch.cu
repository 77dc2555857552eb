// Graphs launched from the device: one that a kernel launches beside itself, and one that launches itself again until it is done.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void leaf(uint32_t *p, uint32_t seed)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    p[i] = p[i] * 5 + seed + i;
}

__global__ void parent(cudaGraphExec_t child, uint32_t *left)
{
    --*left;
    cudaGraphLaunch(child, cudaStreamGraphFireAndForget);
}

__global__ void once_more(uint32_t *left, uint32_t *rounds)
{
    ++*rounds;
    if (--*left > 0)
        cudaGraphLaunch(cudaGetCurrentGraphExec(), cudaStreamGraphTailLaunch);
}

// The executable graph of what `body` gives to the stream; with `by_device`, one that the device may launch.
template <typename Body> static cudaGraphExec_t captured(cudaStream_t stream, bool by_device, Body body)
{
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    body();
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&executable, graph, by_device ? cudaGraphInstantiateFlagDeviceLaunch : 0));
    OK(cudaGraphDestroy(graph));
    if (by_device)
        OK(cudaGraphUpload(executable, stream));
    return executable;
}

int main()
{
    const uint32_t blocks = 512, n = blocks * 128, rounds = 20;
    cudaStream_t stream;
    uint32_t *data = poisoned<uint32_t>(n), *counters = poisoned<uint32_t>(2);
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaGraphExec_t child = captured(stream, true, [&] { launch(leaf, blocks, 128, stream, data, 7u); });
    cudaGraphExec_t beside = captured(stream, false, [&] { launch(parent, 1, 1, stream, child, counters); });
    cudaGraphExec_t loop = captured(stream, true, [&] {
        launch(leaf, blocks, 128, stream, data, 3u);
        launch(once_more, 1, 1, stream, counters, counters + 1);
    });
    while (again()) {
        const uint32_t start[2] = {rounds, 0};
        OK(cudaMemsetAsync(data, 1, n * sizeof *data, stream));
        OK(cudaMemcpyAsync(counters, start, sizeof start, cudaMemcpyHostToDevice, stream));
        OK(cudaGraphLaunch(loop, stream));
        OK(cudaStreamSynchronize(stream));
        EXPECT(to_host(counters, 2)[1] == rounds);
        result_of("launched itself", data, n);
        OK(cudaMemcpyAsync(counters, start, sizeof start, cudaMemcpyHostToDevice, stream));
        for (uint32_t i = 0; i < rounds; i++)
            OK(cudaGraphLaunch(beside, stream));
        OK(cudaStreamSynchronize(stream));
        result_of("launched by a kernel", data, n);
    }
    OK(cudaGraphExecDestroy(loop));
    OK(cudaGraphExecDestroy(beside));
    OK(cudaGraphExecDestroy(child));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(data));
    OK(cudaFree(counters));
    return 0;
}
