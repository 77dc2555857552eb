// Unified memory, far below what is free: touched by both sides, with and without prefetching.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void step_on(uint32_t *p, uint32_t step, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * 3 + step;
}

static void prefetch(void *memory, size_t bytes, bool to_device)
{
#if CUDART_VERSION >= 13000
    cudaMemLocation location = {};
    location.type = to_device ? cudaMemLocationTypeDevice : cudaMemLocationTypeHost;
    OK(cudaMemPrefetchAsync(memory, bytes, location, 0, nullptr));
#else
    OK(cudaMemPrefetchAsync(memory, bytes, to_device ? 0 : cudaCpuDeviceId, nullptr));
#endif
}

int main()
{
    const size_t n = 4 << 20, bytes = n * sizeof(uint32_t);
    int concurrent;
    OK(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0));
    if (!concurrent)
        skip("host and GPU cannot use unified memory at once here");
    while (again()) {
        void *memory;
        OK(cudaMallocManaged(&memory, bytes));
        auto *data = static_cast<uint32_t *>(memory);
        for (size_t i = 0; i < n; i++)
            data[i] = (uint32_t)i;
        for (uint32_t round = 0; round < 4; round++) {
            if (round % 2)
                prefetch(data, bytes, true);
            launch(step_on, blocks_for(n, 256), 256, nullptr, data, round, n);
            if (round % 2)
                prefetch(data, bytes, false);
            OK(cudaDeviceSynchronize());
            for (size_t i = 0; i < n; i += 4096)
                data[i]++;
        }
        result("managed", data, bytes);
        OK(cudaFree(data));
    }
    return 0;
}
