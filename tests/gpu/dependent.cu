// Programmatic dependent launch: a kernel starts while the one before still runs, and waits inside for its results.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

__global__ void chain(const uint32_t *in, uint32_t *out, uint32_t step)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, value = step * 2654435761u;
    for (uint32_t k = 0; k < 200; k++) // what needs nothing of the kernel before
        value = value * 1664525u + 1013904223u;
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
#endif
    out[i] = in[i ^ 1] * 3 + value;
}

int main()
{
    int major;
    OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major < 9)
        skip("the GPU has no programmatic dependent launch (compute capability 9.0)");
    uint32_t n = 64 * 256, *data[2] = {poisoned<uint32_t>(n), poisoned<uint32_t>(n)};
    cudaStream_t stream;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = 64;
    config.blockDim = 256;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    while (again()) {
        OK(cudaMemsetAsync(data[0], 1, n * sizeof *data[0], stream));
        for (uint32_t step = 0; step < 100; step++) {
            void *params[] = {&data[step % 2], &data[(step + 1) % 2], &step};
            OK(cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(chain), params));
        }
        OK(cudaStreamSynchronize(stream));
        result_of("chain", data[0], n);
    }
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(data[0]));
    OK(cudaFree(data[1]));
    return 0;
}
