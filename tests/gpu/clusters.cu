// Thread-block clusters: blocks launched together by cudaLaunchKernelExC read each other's shared memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cooperative_groups.h>

#include "tests/gpu/check.cuh"

__global__ void exchange(uint32_t *out, uint32_t rounds)
{
#if __CUDA_ARCH__ >= 900
    __shared__ uint32_t cell[128];
    auto cluster = cooperative_groups::this_cluster();
    unsigned ranks = cluster.num_blocks();
    uint32_t value = blockIdx.x * 128 + threadIdx.x;
    for (uint32_t round = 1; round <= rounds; round++) {
        cell[threadIdx.x] = value;
        cluster.sync();
        uint32_t *other = cluster.map_shared_rank(cell, (cluster.block_rank() + round) % ranks);
        value = value * 7 + other[(threadIdx.x + round) % 128];
        cluster.sync();
    }
    out[blockIdx.x * 128 + threadIdx.x] = value;
#endif
}

int main()
{
    int major;
    OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major < 9)
        skip("the GPU has no clusters (compute capability 9.0)");
    uint32_t blocks = 512, n = blocks * 128, rounds = 20, *out = poisoned<uint32_t>(n);
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = 8;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = 128;
    config.attrs = &attribute;
    config.numAttrs = 1;
    void *params[] = {&out, &rounds};
    while (again()) {
        OK(cudaMemset(out, 0xa5, n * sizeof *out));
        OK(cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(exchange), params));
        OK(cudaDeviceSynchronize());
        result_of("clusters", out, n);
    }
    OK(cudaFree(out));
    return 0;
}
