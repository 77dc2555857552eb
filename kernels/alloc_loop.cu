// What allocating and freeing device memory costs the calling thread.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <algorithm>

#include "kernels/common.cuh"

#define PAIRS 100 // timed together

// Uses both ends of an allocation, and counts.
__global__ void touch(unsigned char *memory, uint64_t bytes, unsigned long long *touched)
{
    memory[0] = 1;
    memory[bytes - 1] = 1;
    *touched += memory[0];
}

static double time_pairs(uint64_t bytes)
{
    void *memory;
    double start = seconds_now();
    for (int i = 0; i < PAIRS; i++) {
        CHECK(cudaMalloc(&memory, bytes));
        CHECK(cudaFree(memory));
    }
    return (seconds_now() - start) / PAIRS * 1e9;
}

static double time_pairs_async(uint64_t bytes, cudaStream_t stream)
{
    void *memory;
    double start = seconds_now();
    for (int i = 0; i < PAIRS; i++) {
        CHECK(cudaMallocAsync(&memory, bytes, stream));
        CHECK(cudaFreeAsync(memory, stream));
    }
    return (seconds_now() - start) / PAIRS * 1e9;
}

static double median(std::vector<double> &values)
{
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
}

int main(int argc, char **argv)
{
    workload.name = "alloc_loop";
    workload.purpose = "Times allocating and freeing device memory in a loop.";
    workload.size_help = "bytes of each allocation (default 2097152)";
    workload.size = 2 << 20;
    workload.least = 1;
    workload.most = 1ull << 36;
    begin(nullptr, 0, argc, argv);

    std::vector<double> pairs, pairs_async;
    unsigned long long *touched = to_device(std::vector<unsigned long long>(1, 0));
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    // The first ones take the memory from the GPU; from then on the pool and the allocator have it.
    time_pairs(workload.size);
    time_pairs_async(workload.size, stream);
    uint64_t steps = 0;
    for (work_begins(&workload); work_goes_on(&workload, steps); steps++) {
        unsigned char *memory;
        pairs.push_back(time_pairs(workload.size));
        pairs_async.push_back(time_pairs_async(workload.size, stream));
        CHECK(cudaMalloc(&memory, workload.size));
        launch(touch, 1, 1, 0, stream, memory, workload.size, touched);
        CHECK(cudaStreamSynchronize(stream));
        CHECK(cudaFree(memory));
    }
    work_ended(&workload);
    CHECK(cudaStreamDestroy(stream));

    unsigned long long counted = to_host(touched, 1)[0];
    CHECK(cudaFree(touched));
    bool right = counted == workload.kernels;
    if (!right)
        fprintf(stderr, "%s: %llu allocations were touched, expected %" PRIu64 "\n", workload.name, counted, workload.kernels);
    char more[96];
    snprintf(more, sizeof more, " malloc_free_ns=%.0f async_ns=%.0f", median(pairs), median(pairs_async));
    return report(&workload, right, checksum(CHECKSUM_SEED, &counted, sizeof counted), more);
}
