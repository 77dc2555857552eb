// Kernels of fixed work in a chosen pattern, which note when they ran: what a GPU did with its time can be told from that.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A kernel steps a linear congruential generator in every thread, so its work is the same however the GPU is shared, and the
// result can be computed exactly. Its first and last moment are read from %globaltimer, which all processes on one GPU share.
#include <cmath>

#include "kernels/common.cuh"
#include "kernels/device_time.cuh"

struct kernel_times {
    unsigned long long begin_ns, end_ns;
};

static const uint32_t multiplier = 1664525, increment = 1013904223;

// Whichever blocks run first and last, they set the times.
__global__ void timeline(uint32_t *lanes, uint32_t rounds, kernel_times *times)
{
    unsigned long long begin_ns = device_time_ns();
    uint64_t lane = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    uint32_t value = lanes[lane];

    for (uint32_t i = 0; i < rounds; i++)
        value = value * 1664525u + 1013904223u;
    lanes[lane] = value;
    __syncthreads();
    if (threadIdx.x == 0 && times) {
        atomicMin(&times->begin_ns, begin_ns);
        atomicMax(&times->end_ns, device_time_ns());
    }
}

struct pattern {
    uint64_t burst, think_us, rate, seed;
};

// `steps` steps of the generator at once: the map x -> ax + c is squared as often as `steps` has bits.
static uint32_t advanced(uint32_t value, uint64_t steps)
{
    uint32_t a = multiplier, c = increment;

    for (; steps; steps >>= 1) {
        if (steps & 1)
            value = value * a + c;
        c = c * (a + 1);
        a *= a;
    }
    return value;
}

// As many threads as the GPU holds at a time.
static uint64_t threads_of_gpu()
{
    int processors, threads;

    CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, 0));
    return (uint64_t)processors * (uint64_t)threads;
}

// Several programs begin at once when each has said that it is ready and all are told the same time.
static void wait_for_input()
{
    char line[64], *end;

    fprintf(stderr, "ready %s\n", workload.name);
    if (!fgets(line, sizeof line, stdin))
        usage_error(&workload, "--start-on-input", "there was no line of input");
    workload.start_at = strtod(line, &end);
    if (end == line || *end != '\n')
        usage_error(&workload, "--start-on-input", "expected a time of the monotonic clock, in seconds");
}

// Sleeps, and spends the last moments looking: a sleep may end late.
static void wait_until(double time)
{
    const double looking = 200e-6;

    if (time - seconds_now() > looking)
        sleep_seconds(time - seconds_now() - looking);
    while (seconds_now() < time)
        ;
}

// Between two arrivals of a Poisson process; depends on nothing but seed and number.
static double interarrival(const pattern &p, uint64_t number)
{
    double uniform = ((double)(mixed(mixed(p.seed) + number) >> 11) + 0.5) * 0x1p-53;
    return -std::log(uniform) / (double)p.rate;
}

// Bursts of kernels, each waited for. Returns how long each took, from its arrival if bursts arrive at a rate: what arrives
// while another is served waits.
template <typename Launch> static std::vector<uint64_t> run_bursts(cudaStream_t stream, const pattern &p, Launch launch_one)
{
    std::vector<uint64_t> latencies_ns;

    CHECK(cudaDeviceSynchronize());
    work_begins(&workload);
    double arrival = workload.start;
    for (uint64_t bursts = 0; work_goes_on(&workload, bursts); bursts++) {
        if (p.rate) {
            arrival += interarrival(p, bursts);
            wait_until(arrival);
        } else {
            arrival = seconds_now();
        }
        for (uint64_t i = 0; i < p.burst; i++)
            launch_one();
        CHECK(cudaStreamSynchronize(stream));
        latencies_ns.push_back((uint64_t)((seconds_now() - arrival) * 1e9));
        if (p.think_us)
            sleep_seconds((double)p.think_us * 1e-6);
    }
    work_ended(&workload);
    return latencies_ns;
}

template <typename T> static void write_file(const char *option, const char *path, const std::vector<T> &values)
{
    if (!path)
        return;
    FILE *file = fopen(path, "wb");
    bool written = file && fwrite(values.data(), sizeof(T), values.size(), file) == values.size();
    if (!file || fclose(file) || !written)
        usage_error(&workload, option, "the file cannot be written");
}

static bool verify(const std::vector<uint32_t> &lanes, uint64_t rounds, const std::vector<kernel_times> &times)
{
    for (size_t i = 0; i < lanes.size(); i++) {
        uint32_t expected = advanced((uint32_t)mixed(i), workload.kernels * rounds);
        if (lanes[i] != expected) {
            fprintf(stderr, "%s: lane %zu is %u, expected %u\n", workload.name, i, lanes[i], expected);
            return false;
        }
    }
    for (size_t i = 0; i < times.size(); i++) {
        if (times[i].begin_ns > times[i].end_ns) {
            fprintf(stderr, "%s: kernel %zu left no times\n", workload.name, i);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t work = 1000, records = 0;
    pattern p = {0, 0, 0, 1};
    bool start_on_input = false;
    const char *trace = nullptr, *latencies = nullptr;
    const option_row own[] = {
        {"work", OPTION_COUNT, &work, 1, 4000000000, "steps of arithmetic per thread of a kernel (default 1000)"},
        {"burst", OPTION_COUNT, &p.burst, 0, 1000000, "kernels to launch, then to wait for (default 0: a queue always full)"},
        {"think-us", OPTION_COUNT, &p.think_us, 0, 10000000, "microseconds to sleep after each burst (default 0)"},
        {"rate", OPTION_COUNT, &p.rate, 0, 1000000, "bursts that arrive per second, at random (default 0: one after another)"},
        {"seed", OPTION_COUNT, &p.seed, 0, UINT64_MAX, "which random arrivals (default 1)"},
        {"start-on-input", OPTION_FLAG, &start_on_input, 0, 0, "say `ready`; a line of input then names --start-at"},
        {"records", OPTION_COUNT, &records, 0, 1ull << 32, "kernels whose times to keep (default 0)"},
        {"trace", OPTION_TEXT, &trace, 0, 0, "write first and last moment of those kernels there, 64-bit ns"},
        {"latencies", OPTION_TEXT, &latencies, 0, 0, "write what each burst took there, 64-bit ns"},
    };

    workload.name = "timeline";
    workload.purpose = "Launches kernels of fixed work and notes when each ran.";
    workload.size_help = "threads of a kernel (default 0: as many as the GPU holds)";
    workload.most = 1 << 24;
    begin(own, 9, argc, argv);
    if (!p.burst && (p.think_us || p.rate))
        usage_error(&workload, p.rate ? "--rate" : "--think-us", "needs --burst");

    const uint64_t threads = workload.size ? workload.size : threads_of_gpu();
    const unsigned block = threads < 512 ? (unsigned)threads : 512;
    const unsigned blocks = blocks_for(threads, block);
    std::vector<uint32_t> seeds((size_t)blocks * block);
    for (size_t i = 0; i < seeds.size(); i++)
        seeds[i] = (uint32_t)mixed(i);
    uint32_t *lanes = to_device(seeds);
    // One more than asked for, since there is no memory without bytes.
    kernel_times *times = to_device(std::vector<kernel_times>(records + 1, kernel_times{~0ull, 0}));
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    uint64_t recorded = 0;
    auto launch_one = [&]() {
        kernel_times *mine = recorded < records ? times + recorded++ : nullptr;
        launch(timeline, blocks, block, 0, stream, lanes, (uint32_t)work, mine);
    };
    launch(timeline, blocks, block, 0, stream, lanes, (uint32_t)work, nullptr); // the first launch loads the kernel
    CHECK(cudaStreamSynchronize(stream));
    if (start_on_input)
        wait_for_input();
    std::vector<uint64_t> latencies_ns;
    if (p.burst)
        latencies_ns = run_bursts(stream, p, launch_one);
    else
        run_steps(stream, [&](uint64_t) { launch_one(); });
    std::vector<uint32_t> result = to_host(lanes, seeds.size());
    std::vector<kernel_times> ran = to_host(times, recorded);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(lanes));
    CHECK(cudaFree(times));
    bool right = verify(result, work, ran);
    write_file("--trace", trace, ran);
    write_file("--latencies", latencies, latencies_ns);
    char more[96];
    snprintf(more, sizeof more, " recorded=%" PRIu64 " bursts=%zu", recorded, latencies_ns.size());
    return report(&workload, right, checksum_of(result), more);
}
