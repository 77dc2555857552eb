// What every CUDA program here has in common: checked calls, launches without `<<<>>>`, and a loop with a bounded queue.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// The files are written so that any C++17 compiler takes them, not only nvcc: kernels are ordinary functions of scalars and
// pointers, and are launched by their address.
#ifndef KERNELS_COMMON_CUH
#define KERNELS_COMMON_CUH

#include <cuda_runtime.h>

#include <new>
#include <vector>

#include "kernels/options.h"

static struct workload workload;

// Does not return from an error. Names the function that failed.
#define CHECK(call) check(call, #call)

static inline void check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "%s: %.*s: %s (%s)\n", workload.name, (int)strcspn(call, "("), call, cudaGetErrorName(error),
            cudaGetErrorString(error));
    exit(STATUS_CUDA);
}

static inline void no_host_memory()
{
    usage_error(&workload, "--size", "there is not enough host memory for the data");
}

// The beginning of every main, once `workload` holds name, texts and limits.
static inline void begin(const option_row *own, int own_count, int argc, char **argv)
{
    std::set_new_handler(no_host_memory);
    parse_options(&workload, own, own_count, argc, argv);
}

// The arguments are converted to the kernel's parameter types, so that each pointer points to as many bytes as the kernel
// reads.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Args... args)
{
    auto call = [&](Params... values) {
        void *pointers[] = {static_cast<void *>(&values)..., nullptr};
        CHECK(cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, pointers, shared_bytes, stream));
    };
    workload.kernels++;
    call(args...);
}

static inline unsigned blocks_for(uint64_t items, unsigned block)
{
    return static_cast<unsigned>((items + block - 1) / block);
}

// Calls step(0), step(1), … until the time or the number of steps is reached, and waits for the last. At most two batches are
// in the queue, each of about 10 to 40 ms, so that the end comes soon after the time asked for, whatever a step takes. Returns
// the number of steps.
template <typename Step> uint64_t run_steps(cudaStream_t stream, Step step)
{
    const double short_batch = 0.010, long_batch = 0.040;
    const uint64_t largest_batch = 4096;
    cudaEvent_t marks[2];
    uint64_t steps = 0, batch = 1;

    CHECK(cudaEventCreateWithFlags(&marks[0], cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&marks[1], cudaEventDisableTiming));
    CHECK(cudaDeviceSynchronize());
    work_begins(&workload);
    double last = workload.start;
    for (unsigned turn = 0; work_goes_on(&workload, steps); turn ^= 1) {
        for (uint64_t i = 0; i < batch && (!workload.iterations || steps < workload.iterations); i++)
            step(steps++);
        CHECK(cudaEventRecord(marks[turn], stream));
        // An event that was never recorded counts as complete.
        CHECK(cudaEventSynchronize(marks[turn ^ 1]));
        double now = seconds_now();
        if (now - last < short_batch && batch < largest_batch)
            batch *= 2;
        else if (now - last > long_batch && batch > 1)
            batch /= 2;
        last = now;
    }
    CHECK(cudaStreamSynchronize(stream));
    work_ended(&workload);
    CHECK(cudaEventDestroy(marks[0]));
    CHECK(cudaEventDestroy(marks[1]));
    return steps;
}

// Device memory for `count` values, full of a byte that no result consists of: what a kernel does not write is seen.
template <typename T> T *poisoned(size_t count)
{
    void *memory;
    CHECK(cudaMalloc(&memory, count * sizeof(T)));
    CHECK(cudaMemset(memory, 0xa5, count * sizeof(T)));
    workload.bytes += count * sizeof(T);
    return static_cast<T *>(memory);
}

// Device memory with a copy of `values`.
template <typename T> T *to_device(const std::vector<T> &values)
{
    T *memory = poisoned<T>(values.size());
    CHECK(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}

template <typename T> std::vector<T> to_host(const T *memory, size_t count)
{
    std::vector<T> values(count);
    CHECK(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

template <typename T> uint64_t checksum_of(const std::vector<T> &values)
{
    return checksum(CHECKSUM_SEED, values.data(), values.size() * sizeof(T));
}

#endif
