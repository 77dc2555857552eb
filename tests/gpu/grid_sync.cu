// Cooperative launches: all blocks meet in the middle of the kernel, so all must be on the GPU at once.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cooperative_groups.h>

#include "tests/gpu/check.cuh"

// Each step reads what other blocks wrote in the step before.
__global__ void relax(uint32_t *a, uint32_t *b, uint32_t n, uint32_t steps)
{
    auto grid = cooperative_groups::this_grid();
    for (uint32_t step = 0; step < steps; step++) {
        for (uint32_t i = (uint32_t)grid.thread_rank(); i < n; i += (uint32_t)grid.num_threads())
            b[i] = a[(i + n - 1) % n] * 3 + a[(i + 257) % n] + step;
        grid.sync();
        uint32_t *other = a;
        a = b;
        b = other;
    }
}

int main()
{
    int cooperative, processors, resident;
    OK(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, 0));
    if (!cooperative)
        skip("the GPU has no cooperative launches");
    OK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, relax, 256, 0));
    uint32_t n = 1 << 18, steps = 50;
    while (again()) {
        std::vector<uint32_t> values(n);
        for (uint32_t i = 0; i < n; i++)
            values[i] = (uint32_t)mixed(i);
        uint32_t *a = to_device(values), *b = poisoned<uint32_t>(n);
        void *params[] = {&a, &b, &n, &steps};
        // As many blocks as fit, which no other kernel may take away from it.
        OK(cudaLaunchCooperativeKernel(reinterpret_cast<const void *>(relax), processors * resident, 256, params, 0, nullptr));
        OK(cudaDeviceSynchronize());
        result_of("relaxed", steps % 2 ? b : a, n);
        OK(cudaFree(a));
        OK(cudaFree(b));
    }
    return 0;
}
