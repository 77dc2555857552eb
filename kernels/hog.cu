// Takes device memory until it is refused, and proves that what it got is its own.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Every block is filled with numbers that depend on the block and the place in it, right after it was got. When no more is to
// be had, small kernels run until the time is over, and then every number of every block must still be there: memory that was
// promised twice, or is not there at all, shows.
#include "kernels/common.cuh"

__device__ static uint32_t pattern(uint64_t block, uint64_t i)
{
    uint64_t bits = (block + 1) * 0x9e3779b97f4a7c15ull + i;
    bits = (bits ^ bits >> 29) * 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(bits >> 32);
}

__global__ void hog_fill(uint32_t *words, uint64_t n, uint64_t block)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (uint64_t)blockDim.x)
        words[i] = pattern(block, i);
}

// Counts the words that are not what they should be, and the words looked at.
__global__ void hog_check(const uint32_t *words, uint64_t n, uint64_t block, unsigned long long *wrong_and_seen)
{
    unsigned long long wrong = 0, seen = 0;

    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (uint64_t)blockDim.x) {
        wrong += words[i] != pattern(block, i);
        seen++;
    }
    if (wrong)
        atomicAdd(&wrong_and_seen[0], wrong);
    if (seen)
        atomicAdd(&wrong_and_seen[1], seen);
}

__global__ void hog_tick(unsigned long long *ticks)
{
    *ticks += 1;
}

static const unsigned threads = 256, most_blocks = 4096;

static unsigned grid_for(uint64_t words)
{
    return words / threads < most_blocks ? blocks_for(words, threads) : most_blocks;
}

// Returns the error that ended the growth, cudaSuccess if `most` bytes were reached.
static cudaError_t grow(std::vector<uint32_t *> &blocks, uint64_t step, uint64_t most)
{
    while (!most || (blocks.size() + 1) * step <= most) {
        void *block;
        cudaError_t error = cudaMalloc(&block, step);
        if (error == cudaErrorMemoryAllocation) {
            cudaGetLastError(); // so that the refusal is not taken for a failure of the next launch
            return error;
        }
        check(error, "cudaMalloc");
        blocks.push_back(static_cast<uint32_t *>(block));
        workload.bytes += step;
        launch(hog_fill, grid_for(step / 4), threads, 0, nullptr, blocks.back(), step / 4, blocks.size() - 1);
        CHECK(cudaStreamSynchronize(nullptr));
        show_progress(&workload, seconds_now());
    }
    return cudaSuccess;
}

static bool verify(const std::vector<uint32_t *> &blocks, uint64_t step, unsigned long long *counters, uint64_t ticks)
{
    CHECK(cudaMemset(counters, 0, 2 * sizeof *counters));
    for (size_t i = 0; i < blocks.size(); i++)
        launch(hog_check, grid_for(step / 4), threads, 0, nullptr, blocks[i], step / 4, i, counters);
    std::vector<unsigned long long> count = to_host(counters, 3);
    if (count[0] || count[1] != blocks.size() * (step / 4)) {
        fprintf(stderr, "%s: %llu of %llu words are wrong, %zu expected\n", workload.name, count[0], count[1],
                blocks.size() * (size_t)(step / 4));
        return false;
    }
    if (count[2] != ticks) {
        fprintf(stderr, "%s: %llu small kernels ran, expected %" PRIu64 "\n", workload.name, count[2], ticks);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t step = 64 << 20;
    const option_row own[] = {
        {"step", OPTION_BYTES, &step, 4, 1ull << 40, "size of an allocation, a multiple of 4 (default 64M)"},
    };

    workload.name = "hog";
    workload.purpose =
        "Takes memory until it is refused, uses it, and checks that all of it is still intact. Being refused is success.";
    workload.size_help = "MiB to stop at without being refused (default 0: none)";
    workload.most = 1ull << 40;
    begin(own, 1, argc, argv);
    if (step % 4)
        usage_error(&workload, "--step", "expected a multiple of 4");

    // Before the memory is full: two counters for the check and one for the small kernels.
    std::vector<unsigned long long> zero(3);
    unsigned long long *counters = to_device(zero);
    std::vector<uint32_t *> blocks;
    work_begins(&workload);
    cudaError_t refusal = grow(blocks, step, workload.size << 20);
    const char *refused = refusal ? cudaGetErrorName(refusal) : "none";
    if (workload.progress)
        fprintf(stderr, "progress %s full bytes=%" PRIu64 " refused=%s\n", workload.name, workload.bytes, refused);
    uint64_t ticks = run_steps(nullptr, [&](uint64_t) { launch(hog_tick, 1, 1, 0, nullptr, counters + 2); });
    bool intact = verify(blocks, step, counters, ticks);
    for (uint32_t *block : blocks)
        CHECK(cudaFree(block));
    CHECK(cudaFree(counters));

    char more[96];
    snprintf(more, sizeof more, " blocks=%zu refused=%s", blocks.size(), refused);
    const uint64_t blocks_got = blocks.size();
    return report(&workload, intact, checksum(CHECKSUM_SEED, &blocks_got, sizeof blocks_got), more);
}
