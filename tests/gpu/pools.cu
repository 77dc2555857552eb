// Stream-ordered memory: the default pool, a pool of the program's own, trimming, and memory freed on another stream.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void stamp(uint32_t *p, uint32_t seed, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = seed * 2654435761u + (uint32_t)i;
}

__global__ void gather(const uint32_t *p, uint32_t *sum, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        sum[i] = sum[i] * 31 + p[i];
}

int main()
{
    const size_t n = 1 << 18, bytes = n * sizeof(uint32_t);
    const unsigned block = 256;
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    while (again()) {
        cudaMemPool_t own;
        cudaStream_t streams[2];
        cudaEvent_t freed;
        uint64_t keep = UINT64_MAX, used;
        void *memory;
        OK(cudaMemPoolCreate(&own, &properties));
        OK(cudaMemPoolSetAttribute(own, cudaMemPoolAttrReleaseThreshold, &keep));
        OK(cudaStreamCreate(&streams[0]));
        OK(cudaStreamCreate(&streams[1]));
        OK(cudaEventCreateWithFlags(&freed, cudaEventDisableTiming));
        uint32_t *sum = poisoned<uint32_t>(n);
        OK(cudaMemset(sum, 0, bytes));
        for (unsigned i = 0; i < 24; i++) {
            if (i % 2)
                OK(cudaMallocFromPoolAsync(&memory, bytes << i % 4, own, streams[0]));
            else
                OK(cudaMallocAsync(&memory, bytes << i % 4, streams[0]));
            launch(stamp, blocks_for(n, block), block, streams[0], static_cast<uint32_t *>(memory), i, n);
            launch(gather, blocks_for(n, block), block, streams[0], static_cast<uint32_t *>(memory), sum, n);
            OK(cudaEventRecord(freed, streams[0]));
            OK(cudaStreamWaitEvent(streams[1], freed, 0));
            OK(cudaFreeAsync(memory, streams[1]));
        }
        OK(cudaStreamSynchronize(streams[0]));
        OK(cudaStreamSynchronize(streams[1]));
        OK(cudaMemPoolGetAttribute(own, cudaMemPoolAttrUsedMemCurrent, &used));
        EXPECT(used == 0);
        OK(cudaMemPoolTrimTo(own, 0));
        OK(cudaMemPoolDestroy(own));
        result_of("sum", sum, n);
        OK(cudaFree(sum));
        OK(cudaEventDestroy(freed));
        OK(cudaStreamDestroy(streams[0]));
        OK(cudaStreamDestroy(streams[1]));
    }
    return 0;
}
