// check.h for programs of the CUDA runtime.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Any C++17 compiler takes this, not only nvcc: kernels are launched by their address, since some of the programs run on the
// simulated GPU too.
#ifndef CHECK_CUH
#define CHECK_CUH

#include <cuda_runtime.h>

#include <vector>

#include "tests/gpu/check.h"

// The arguments are converted to the kernel's parameter types, so that each pointer points to as many bytes as the kernel reads.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, cudaStream_t stream, Args... args)
{
    auto call = [&](Params... values) {
        void *pointers[] = {static_cast<void *>(&values)..., nullptr};
        OK(cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, pointers, 0, stream));
    };
    call(args...);
}

static inline unsigned blocks_for(size_t items, unsigned block)
{
    return static_cast<unsigned>((items + block - 1) / block);
}

// Device memory, full of a byte that no result consists of: what is not written is seen. Done when it returns, also for streams that
// do not wait for the default one.
template <typename T> T *poisoned(size_t count)
{
    void *memory;
    OK(cudaMalloc(&memory, count * sizeof(T)));
    OK(cudaMemset(memory, 0xa5, count * sizeof(T)));
    OK(cudaStreamSynchronize(nullptr));
    return static_cast<T *>(memory);
}

template <typename T> T *to_device(const std::vector<T> &values)
{
    T *memory = poisoned<T>(values.size());
    OK(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    OK(cudaStreamSynchronize(nullptr));
    return memory;
}

template <typename T> std::vector<T> to_host(const T *device, size_t count)
{
    std::vector<T> values(count);
    OK(cudaMemcpy(values.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

template <typename T> std::vector<T> result_of(const char *name, const T *device, size_t count)
{
    std::vector<T> values = to_host(device, count);
    result(name, values.data(), count * sizeof(T));
    return values;
}

template <typename T = float> std::vector<T> random_values(size_t count, uint64_t seed)
{
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++)
        values[i] = static_cast<T>(uniform(seed * (1ull << 40) + i));
    return values;
}

#endif
