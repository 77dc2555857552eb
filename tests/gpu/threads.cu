// Per-thread default streams: every thread works on the stream that it has without asking.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <thread>

#include "tests/gpu/check.cuh"

__global__ void scramble(uint32_t *p, uint32_t seed, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = (p[i] ^ seed) * 2654435761u + 1;
}

static const size_t items = 1 << 18;

static void work(uint32_t seed, std::vector<uint32_t> *values)
{
    void *memory;
    OK(cudaMallocAsync(&memory, items * sizeof(uint32_t), cudaStreamPerThread));
    auto *data = static_cast<uint32_t *>(memory);
    OK(cudaMemsetAsync(data, (int)seed, items * sizeof *data, nullptr));
    for (uint32_t step = 0; step < 50; step++)
        launch(scramble, blocks_for(items, 256), 256, nullptr, data, seed + step, items);
    OK(cudaMemcpyAsync(values->data(), data, items * sizeof *data, cudaMemcpyDeviceToHost, nullptr));
    OK(cudaFreeAsync(data, cudaStreamPerThread));
    OK(cudaStreamSynchronize(nullptr));
}

int main()
{
    std::vector<std::vector<uint32_t>> values(8, std::vector<uint32_t>(items));
    while (again()) {
        std::vector<std::thread> threads;
        for (auto &own : values)
            threads.emplace_back(work, (uint32_t)threads.size() + 1, &own);
        for (auto &thread : threads)
            thread.join();
        std::vector<uint32_t> all;
        for (auto &own : values)
            all.insert(all.end(), own.begin(), own.end());
        result("threads", all.data(), all.size() * sizeof all[0]);
    }
    return 0;
}
