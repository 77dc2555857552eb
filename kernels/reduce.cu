// Sums a vector in two passes: a tree in shared memory per block, and one more block for the blocks' sums.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Step k sums (2k + 1) * x and folds the sum into a running state, state * MULTIPLIER + sum, in 64-bit numbers that wrap. The
// state depends on every step and on their order, and the host follows it exactly from the sum of x alone.
#include "kernels/common.cuh"

#define BLOCK 256
#define MULTIPLIER 6364136223846793005ull // of Knuth's MMIX generator; any odd number would do

// Sums one value of every thread; the total is in values[0].
__device__ static void sum_block(uint64_t *values, uint64_t value)
{
    values[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = BLOCK / 2; half; half /= 2) {
        if (threadIdx.x < half)
            values[threadIdx.x] += values[threadIdx.x + half];
        __syncthreads();
    }
}

__global__ void reduce_blocks(const uint32_t *x, uint64_t n, uint64_t factor, uint64_t *sums)
{
    extern __shared__ uint64_t values[];
    uint64_t sum = 0;

    for (uint64_t i = blockIdx.x * (uint64_t)BLOCK + threadIdx.x; i < n; i += gridDim.x * (uint64_t)BLOCK)
        sum += factor * x[i];
    sum_block(values, sum);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = values[0];
}

__global__ void reduce_sums(const uint64_t *sums, unsigned count, uint64_t *state)
{
    extern __shared__ uint64_t values[];
    uint64_t sum = 0;

    for (unsigned i = threadIdx.x; i < count; i += BLOCK)
        sum += sums[i];
    sum_block(values, sum);
    if (threadIdx.x == 0)
        *state = *state * MULTIPLIER + values[0];
}

static uint64_t expected_state(const std::vector<uint32_t> &x, uint64_t state, uint64_t steps)
{
    uint64_t sum = 0;
    for (uint32_t value : x)
        sum += value;
    for (uint64_t step = 0; step < steps; step++)
        state = state * MULTIPLIER + (2 * step + 1) * sum;
    return state;
}

int main(int argc, char **argv)
{
    const unsigned most_blocks = 512;

    workload.name = "reduce";
    workload.purpose = "Sums a vector of 32-bit numbers, with two kernels a step. Checked exactly.";
    workload.size_help = "elements of the vector (default 262144)";
    workload.size = 1 << 18;
    workload.least = 1;
    workload.most = 1ull << 36;
    begin(nullptr, 0, argc, argv);

    const size_t n = workload.size, shared = BLOCK * sizeof(uint64_t);
    unsigned blocks = n / BLOCK < most_blocks ? blocks_for(n, BLOCK) : most_blocks;
    std::vector<uint32_t> numbers(n);
    for (size_t i = 0; i < n; i++)
        numbers[i] = (uint32_t)mixed(i);
    uint32_t *x = to_device(numbers);
    uint64_t *sums = poisoned<uint64_t>(blocks), *state = poisoned<uint64_t>(1);
    const uint64_t first = to_host(state, 1)[0];
    uint64_t steps = run_steps(nullptr, [&](uint64_t step) {
        launch(reduce_blocks, blocks, BLOCK, shared, nullptr, x, n, 2 * step + 1, sums);
        launch(reduce_sums, 1, BLOCK, shared, nullptr, sums, blocks, state);
    });
    std::vector<uint64_t> result = to_host(state, 1);
    uint64_t expected = expected_state(numbers, first, steps);
    if (result[0] != expected)
        fprintf(stderr, "%s: the state is %016" PRIx64 ", expected %016" PRIx64 "\n", workload.name, result[0], expected);
    CHECK(cudaFree(x));
    CHECK(cudaFree(sums));
    CHECK(cudaFree(state));
    return report(&workload, result[0] == expected, checksum_of(result), "");
}
