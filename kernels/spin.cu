// Kernels that last as long as they are told: the load generator for scheduling.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Every kernel measures itself and adds to a record in device memory. The number of kernels there must be the number launched,
// and none may have been shorter than asked for. The checksum is of what does not depend on time. The clock goes on while
// another process has the GPU, so a kernel that is switched out in its middle does not last longer for that.
#include "kernels/common.cuh"
#include "kernels/device_time.cuh"

struct spin_record {
    unsigned long long kernels, blocks, shortest_ns, longest_ns, total_ns;
    unsigned long long begun[2]; // when the kernel began; kernels use the two by turns
};

// The first block to run sets the time for all, and clears it for the kernel behind.
__global__ void spin(spin_record *record, unsigned turn, uint64_t ns)
{
    unsigned long long now = device_time_ns();
    unsigned long long begun = atomicCAS(&record->begun[turn], 0ull, now);

    if (!begun)
        begun = now;
    device_wait_until_ns(begun + ns);
    if (atomicAdd(&record->blocks, 1ull) % gridDim.x == gridDim.x - 1) {
        unsigned long long took = device_time_ns() - begun;
        record->begun[turn ^ 1] = 0;
        record->kernels++;
        record->total_ns += took;
        record->shortest_ns = took < record->shortest_ns ? took : record->shortest_ns;
        record->longest_ns = took > record->longest_ns ? took : record->longest_ns;
    }
}

// Keeps up to `depth` kernels in the queue. With think_us, sleeps that long before each launch.
static void run(spin_record *record, uint64_t kernel_ns, uint64_t depth, bool sync_each, uint64_t think_us)
{
    std::vector<cudaEvent_t> marks(depth);
    uint64_t steps = 0;
    cudaStream_t stream;

    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (cudaEvent_t &mark : marks)
        CHECK(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming));
    CHECK(cudaDeviceSynchronize());
    for (work_begins(&workload); work_goes_on(&workload, steps); steps++) {
        if (think_us)
            sleep_seconds((double)think_us * 1e-6);
        if (!sync_each)
            CHECK(cudaEventSynchronize(marks[steps % depth]));
        launch(spin, (unsigned)workload.size, 1, 0, stream, record, (unsigned)(steps % 2), kernel_ns);
        if (sync_each)
            CHECK(cudaStreamSynchronize(stream));
        else
            CHECK(cudaEventRecord(marks[steps % depth], stream));
    }
    CHECK(cudaStreamSynchronize(stream));
    work_ended(&workload);
    for (cudaEvent_t mark : marks)
        CHECK(cudaEventDestroy(mark));
    CHECK(cudaStreamDestroy(stream));
}

int main(int argc, char **argv)
{
    uint64_t kernel_us = 500, depth = 16, think_us = 0;
    bool sync_each = false;
    char more[160];
    const option_row own[] = {
        {"kernel-us", OPTION_COUNT, &kernel_us, 1, 10000000, "microseconds that a kernel lasts (default 500)"},
        {"depth", OPTION_COUNT, &depth, 1, 4096, "most kernels in the queue (default 16)"},
        {"sync-each", OPTION_FLAG, &sync_each, 0, 0, "wait for each kernel before the next"},
        {"think-us", OPTION_COUNT, &think_us, 0, 10000000, "microseconds to sleep before each launch (default 0)"},
    };

    workload.name = "spin";
    workload.purpose = "Launches kernels of a fixed duration, measured on the GPU's own clock.";
    workload.size_help = "blocks of a kernel, one thread each (default 1)";
    workload.size = 1;
    workload.least = 1;
    workload.most = 1024;
    begin(own, 4, argc, argv);

    const unsigned long long poison = ~0ull;
    std::vector<spin_record> zero = {{0, 0, poison, 0, 0, {0, 0}}};
    spin_record *record = to_device(zero);
    run(record, kernel_us * 1000, depth, sync_each, think_us);
    spin_record result = to_host(record, 1)[0];
    CHECK(cudaFree(record));

    bool right = result.kernels == workload.kernels && result.blocks == workload.kernels * workload.size;
    if (!right)
        fprintf(stderr, "%s: %llu kernels and %llu blocks ran, expected %" PRIu64 " and %" PRIu64 "\n", workload.name,
                result.kernels, result.blocks, workload.kernels, workload.kernels * workload.size);
    if (result.kernels && result.shortest_ns < kernel_us * 1000) {
        fprintf(stderr, "%s: a kernel lasted %llu ns, expected at least %" PRIu64 "\n", workload.name, result.shortest_ns,
                kernel_us * 1000);
        right = false;
    }
    double shortest_us = result.kernels ? (double)result.shortest_ns * 1e-3 : 0;
    double mean_us = result.kernels ? (double)result.total_ns * 1e-3 / (double)result.kernels : 0;
    snprintf(more, sizeof more, " kernel_us=%" PRIu64 " shortest_us=%.1f mean_us=%.1f longest_us=%.1f", kernel_us, shortest_us,
             mean_us, (double)result.longest_ns * 1e-3);
    return report(&workload, right, checksum(CHECKSUM_SEED, &result, 2 * sizeof result.kernels), more);
}
