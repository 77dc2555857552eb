// Kernels for tests that load a module through the driver API; the same source becomes a device library and PTX.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/device_time.cuh"

// Lasts `ns` nanoseconds. Meant for one thread.
extern "C" __global__ void spin_ns(uint64_t ns)
{
    device_wait_until_ns(device_time_ns() + ns);
}

extern "C" __global__ void fill_u32(uint32_t *p, uint32_t value, uint64_t n)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (uint64_t)blockDim.x)
        p[i] = value;
}

// Reads and writes, so that work done in the wrong order, twice or not at all shows.
extern "C" __global__ void add_u32(uint32_t *p, uint32_t v, uint64_t n)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (uint64_t)blockDim.x)
        p[i] += v;
}

extern "C" __global__ void noop() {}
