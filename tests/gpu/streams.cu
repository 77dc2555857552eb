// Streams of both priorities, events between them, host functions and callbacks.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void advance(uint32_t *p, uint32_t factor, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * factor + (uint32_t)i;
}

__global__ void combine(const uint32_t *a, const uint32_t *b, uint32_t *sum, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        sum[i] = a[i] ^ (b[i] + 1);
}

// What the host saw, in the order of one stream.
struct notes {
    uint32_t order;
    uint32_t calls;
};

static void CUDART_CB note_host(void *data)
{
    auto *seen = static_cast<notes *>(data);
    seen->order = seen->order * 31 + 1;
    seen->calls++;
}

static void CUDART_CB note_callback(cudaStream_t, cudaError_t status, void *data)
{
    auto *seen = static_cast<notes *>(data);
    seen->order = seen->order * 31 + 2 + (uint32_t)status;
    seen->calls++;
}

int main()
{
    const size_t n = 1 << 18;
    const unsigned block = 256, steps = 40;
    while (again()) {
        int least, greatest;
        cudaStream_t streams[2];
        cudaEvent_t done;
        notes seen[2] = {};
        OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
        OK(cudaStreamCreateWithPriority(&streams[0], cudaStreamNonBlocking, least));
        OK(cudaStreamCreateWithPriority(&streams[1], cudaStreamNonBlocking, greatest));
        OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
        uint32_t *data[2], *sum = poisoned<uint32_t>(n);
        for (unsigned s = 0; s < 2; s++) {
            data[s] = poisoned<uint32_t>(n);
            OK(cudaMemsetAsync(data[s], (int)s, n * sizeof *data[s], streams[s]));
            for (unsigned step = 0; step < steps; step++) {
                launch(advance, blocks_for(n, block), block, streams[s], data[s], 5 + 2 * s, n);
                if (step % 8 == 0)
                    OK(cudaLaunchHostFunc(streams[s], note_host, &seen[s]));
                if (step % 8 == 4)
                    OK(cudaStreamAddCallback(streams[s], note_callback, &seen[s], 0));
            }
        }
        OK(cudaEventRecord(done, streams[1]));
        OK(cudaStreamWaitEvent(streams[0], done, 0));
        launch(combine, blocks_for(n, block), block, streams[0], data[0], data[1], sum, n);
        OK(cudaStreamSynchronize(streams[0]));
        OK(cudaEventQuery(done));
        OK(cudaStreamQuery(streams[1]));
        result_of("sum", sum, n);
        EXPECT(seen[0].calls == 10 && seen[1].calls == 10);
        result("host functions", seen, sizeof seen);
        OK(cudaEventDestroy(done));
        for (unsigned s = 0; s < 2; s++) {
            OK(cudaStreamDestroy(streams[s]));
            OK(cudaFree(data[s]));
        }
        OK(cudaFree(sum));
    }
    return 0;
}
