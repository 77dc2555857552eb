// What a preloaded library adds to a kernel launch: launches as the program finds them and launches by the library's own function,
// by turns in one process. Without a preloaded library the two are the same, and what is left is the error of the measurement.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Between two processes the cost of a launch differs by a tenth, for reasons of memory layout and processor; within one it does not.
// The driver's function is compared with itself, and the runtime's with itself; both ways of the runtime's go through whatever the
// runtime found as the driver's, so what a library adds to a launch by the runtime is the sum of both.
#include <algorithm>

#include <cuda.h>

#include "kernels/common.cuh"
#include "kernels/own_symbol.h"

__global__ void count_pair(unsigned long long *launches)
{
    ++*launches;
}

typedef CUresult (*driver_launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                                  void **, void **);
typedef cudaError_t (*runtime_launch)(const void *, dim3, dim3, void **, size_t, cudaStream_t);

// Where launches go, and what they took in nanoseconds, batch by batch.
struct side {
    driver_launch driver;
    runtime_launch runtime;
    std::vector<double> batches;
};

static double median_of(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
}

// Only the launches are timed, in batches that fit into the driver's queue: a full queue would make them wait for the GPU.
static void time_batch(side &side, CUfunction function, unsigned long long *launches, cudaStream_t stream)
{
    void *arguments[] = {&launches, nullptr};
    const void *kernel = reinterpret_cast<const void *>(count_pair);
    int failures = 0;

    double start = seconds_now();
    for (uint64_t i = 0; i < workload.size; i++) {
        if (side.driver)
            failures += side.driver(function, 1, 1, 1, 1, 1, 1, 0, (CUstream)stream, arguments, nullptr) != CUDA_SUCCESS;
        else
            failures += side.runtime(kernel, dim3(1), dim3(1), arguments, 0, stream) != cudaSuccess;
    }
    side.batches.push_back((seconds_now() - start) / (double)workload.size * 1e9);
    CHECK(failures ? cudaErrorLaunchFailure : cudaSuccess);
    CHECK(cudaStreamSynchronize(stream));
    workload.kernels += workload.size;
}

// Medians of both sides, and of the differences between batches that ran one after the other.
static void describe(char *text, size_t room, const char *name, const side &found, const side &own)
{
    std::vector<double> added;

    for (size_t i = 0; i < own.batches.size(); i++)
        added.push_back(found.batches[i] - own.batches[i]);
    snprintf(text, room, " %s_found_ns=%.2f %s_own_ns=%.2f %s_added_ns=%.2f", name, median_of(found.batches), name,
             median_of(own.batches), name, median_of(added));
}

int main(int argc, char **argv)
{
    workload.name = "launch_pair";
    workload.purpose = "Times kernel launches as they are found beside launches by the library's own functions.";
    workload.size_help = "launches timed together (default 256)";
    workload.size = 256;
    workload.least = 1;
    workload.most = 1000;
    begin(nullptr, 0, argc, argv);

    unsigned long long *launches = to_device(std::vector<unsigned long long>(1, 0));
    CUfunction function;
    cudaStream_t stream;
    CHECK(cudaGetFuncBySymbol(&function, reinterpret_cast<const void *>(count_pair)));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    side driver_found = {driver ? (driver_launch)dlsym(driver, "cuLaunchKernel") : nullptr, nullptr, {}};
    side driver_own = {(driver_launch)own_symbol("libcuda.so", "cuLaunchKernel"), nullptr, {}};
    side runtime_found = {nullptr, static_cast<runtime_launch>(cudaLaunchKernel), {}};
    side runtime_own = {nullptr, (runtime_launch)own_symbol("libcudart.so", "cudaLaunchKernel"), {}};
    if (!driver_found.driver || !driver_own.driver) {
        fprintf(stderr, "%s: libcuda.so.1 has no cuLaunchKernel\n", workload.name);
        return STATUS_CUDA;
    }
    if (!runtime_own.runtime) // linked statically: there is nothing but the program's own
        runtime_own.runtime = runtime_found.runtime;

    side *sides[] = {&driver_found, &driver_own, &runtime_found, &runtime_own};
    for (side *each : sides) { // the first launch loads the kernel
        time_batch(*each, function, launches, stream);
        each->batches.clear();
    }
    uint64_t steps = 0;
    for (work_begins(&workload); work_goes_on(&workload, steps); steps++)
        for (unsigned i = 0; i < 4; i++) // who comes first within a pair changes from step to step
            time_batch(*sides[i ^ (steps & 1)], function, launches, stream);
    work_ended(&workload);
    CHECK(cudaStreamDestroy(stream));

    unsigned long long counted = to_host(launches, 1)[0];
    CHECK(cudaFree(launches));
    bool right = counted == workload.kernels;
    if (!right)
        fprintf(stderr, "%s: %llu launches ran, expected %" PRIu64 "\n", workload.name, counted, workload.kernels);
    char more[280];
    describe(more, sizeof more / 2, "driver", driver_found, driver_own);
    describe(more + strlen(more), sizeof more / 2, "runtime", runtime_found, runtime_own);
    // Whether there is a library between them: if not, what is added must be nought.
    const char *around = driver_found.driver != driver_own.driver ? "yes" : "no";
    snprintf(more + strlen(more), sizeof more - strlen(more), " around=%s", around);
    return report(&workload, right, checksum(CHECKSUM_SEED, &counted, sizeof counted), more);
}
