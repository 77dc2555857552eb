// What one kernel launch costs the launching thread.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <algorithm>

#include "kernels/common.cuh"

// Next to nothing, but it shows whether every launch has run, once.
__global__ void count_launch(unsigned long long *launches)
{
    ++*launches;
}

// Only the launches are timed, in batches that fit into the driver's queue: a full queue would make them wait for the GPU.
static double time_batch(unsigned long long *launches, uint64_t batch, cudaStream_t stream)
{
    double start = seconds_now();
    for (uint64_t i = 0; i < batch; i++)
        launch(count_launch, 1, 1, 0, stream, launches);
    double took = seconds_now() - start;
    CHECK(cudaStreamSynchronize(stream));
    return took / (double)batch * 1e9;
}

int main(int argc, char **argv)
{
    workload.name = "launch";
    workload.purpose = "Times kernel launches on the host.";
    workload.size_help = "launches timed together (default 256)";
    workload.size = 256;
    workload.least = 1;
    workload.most = 1000;
    begin(nullptr, 0, argc, argv);

    std::vector<double> batches;
    unsigned long long *launches = to_device(std::vector<unsigned long long>(1, 0));
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    time_batch(launches, workload.size, stream); // the first launch loads the kernel
    uint64_t steps = 0;
    for (work_begins(&workload); work_goes_on(&workload, steps); steps++)
        batches.push_back(time_batch(launches, workload.size, stream));
    work_ended(&workload);
    CHECK(cudaStreamDestroy(stream));

    unsigned long long counted = to_host(launches, 1)[0];
    CHECK(cudaFree(launches));
    bool right = counted == workload.kernels;
    if (!right)
        fprintf(stderr, "%s: %llu launches ran, expected %" PRIu64 "\n", workload.name, counted, workload.kernels);
    char more[96] = "";
    if (!batches.empty()) {
        std::sort(batches.begin(), batches.end());
        snprintf(more, sizeof more, " launch_ns=%.1f launch_ns_p90=%.1f", batches[batches.size() / 2],
                 batches[batches.size() * 9 / 10]);
    }
    return report(&workload, right, checksum(CHECKSUM_SEED, &counted, sizeof counted), more);
}
