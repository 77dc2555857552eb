// Adds two vectors, again and again: the smallest kernel that touches memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Step k adds b to the result of step k - 1, in two buffers by turns. The numbers are 32-bit and wrap, so every element of the
// result must be exactly a + k * b: one step lost or out of order shows.
#include "kernels/common.cuh"

__global__ void vectoradd(const uint32_t *a, const uint32_t *b, uint32_t *c, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}

static bool verify(const std::vector<uint32_t> &a, const std::vector<uint32_t> &b, const std::vector<uint32_t> &result,
                   uint64_t steps)
{
    for (size_t i = 0; i < result.size(); i++) {
        uint32_t expected = a[i] + (uint32_t)steps * b[i];
        if (result[i] != expected) {
            fprintf(stderr, "%s: element %zu is %u, expected %u\n", workload.name, i, result[i], expected);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    const unsigned block = 256;

    workload.name = "vectoradd";
    workload.purpose = "Adds vectors of 32-bit numbers. Checked exactly.";
    workload.size_help = "elements of a vector (default 262144)";
    workload.size = 1 << 18;
    workload.least = 1;
    workload.most = 1ull << 36;
    begin(nullptr, 0, argc, argv);

    const size_t n = workload.size;
    std::vector<uint32_t> a(n), b(n);
    for (size_t i = 0; i < n; i++) {
        a[i] = (uint32_t)mixed(i);
        b[i] = (uint32_t)mixed(n + i);
    }
    uint32_t *sums[2] = {to_device(a), poisoned<uint32_t>(n)}, *addend = to_device(b);
    uint64_t steps = run_steps(nullptr, [&](uint64_t step) {
        launch(vectoradd, blocks_for(n, block), block, 0, nullptr, sums[step % 2], addend, sums[(step + 1) % 2], n);
    });
    std::vector<uint32_t> result = to_host(sums[steps % 2], n);
    bool right = verify(a, b, result, steps);
    CHECK(cudaFree(sums[0]));
    CHECK(cudaFree(sums[1]));
    CHECK(cudaFree(addend));
    return report(&workload, right, checksum_of(result), "");
}
