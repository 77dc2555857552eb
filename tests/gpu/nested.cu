// Dynamic parallelism: kernels that launch kernels, also such that run behind them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void leaf(uint32_t *p, uint32_t seed)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    p[i] = p[i] * 5 + seed + i;
}

__global__ void tail(uint32_t *p, uint32_t n, uint32_t *sum)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total = total * 31 + p[i];
    *sum = total;
}

__global__ void branch(uint32_t *p, uint32_t depth, uint32_t blocks, uint32_t *sum)
{
    leaf<<<blocks, 128>>>(p, depth);
    if (depth > 0)
        branch<<<1, 1>>>(p, depth - 1, blocks, sum);
    else
        tail<<<1, 1, 0, cudaStreamTailLaunch>>>(p, blocks * 128, sum);
}

int main()
{
    const uint32_t blocks = 32, n = blocks * 128;
    uint32_t *data = poisoned<uint32_t>(n), *sum = poisoned<uint32_t>(1);
    while (again()) {
        for (uint32_t depth = 0; depth < 6; depth++) {
            OK(cudaMemset(data, 1, n * sizeof *data));
            branch<<<1, 1>>>(data, depth, blocks, sum);
            OK(cudaGetLastError());
            OK(cudaDeviceSynchronize());
        }
        result_of("children", data, n);
        result_of("tail", sum, 1);
    }
    OK(cudaFree(data));
    OK(cudaFree(sum));
    return 0;
}
