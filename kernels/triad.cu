// a = b + s * c, the STREAM triad: bound by memory bandwidth, 12 bytes for every element.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// a and c change places after each step, so step k computes x(k) = b + s * x(k - 1). In 32-bit numbers that wrap this is exact,
// and k steps at once are again a multiplication and an addition, found by squaring; so every element can be checked.
#include "kernels/common.cuh"

__global__ void triad(uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t s, uint64_t n)
{
    uint64_t stride = gridDim.x * (uint64_t)blockDim.x;
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += stride)
        a[i] = b[i] + s * c[i];
}

// x -> factor * x + term * b
struct affine {
    uint32_t factor, term;
};

static affine then(affine first, affine second)
{
    return {second.factor * first.factor, second.factor * first.term + second.term};
}

static affine repeated(affine once, uint64_t times)
{
    affine all = {1, 0};
    for (; times; times /= 2, once = then(once, once))
        if (times % 2)
            all = then(all, once);
    return all;
}

static bool verify(const std::vector<uint32_t> &b, const std::vector<uint32_t> &c, const std::vector<uint32_t> &result,
                   affine all)
{
    for (size_t i = 0; i < result.size(); i++) {
        uint32_t expected = all.factor * c[i] + all.term * b[i];
        if (result[i] != expected) {
            fprintf(stderr, "%s: element %zu is %u, expected %u\n", workload.name, i, result[i], expected);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    const unsigned block = 256, most_blocks = 65536;
    const uint32_t s = 3;

    workload.name = "triad";
    workload.purpose = "Computes a = b + s * c on vectors of 32-bit numbers. Checked exactly.";
    workload.size_help = "elements of a vector (default 262144)";
    workload.size = 1 << 18;
    workload.least = 1;
    workload.most = 1ull << 36;
    begin(nullptr, 0, argc, argv);

    const size_t n = workload.size;
    std::vector<uint32_t> b(n), c(n);
    for (size_t i = 0; i < n; i++) {
        b[i] = (uint32_t)mixed(i);
        c[i] = (uint32_t)mixed(n + i);
    }
    uint32_t *x[2] = {to_device(c), poisoned<uint32_t>(n)}, *term = to_device(b);
    unsigned blocks = n / block < most_blocks ? blocks_for(n, block) : most_blocks;
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    uint64_t steps = run_steps(stream, [&](uint64_t step) {
        launch(triad, blocks, block, 0, stream, x[(step + 1) % 2], term, x[step % 2], s, n);
    });
    std::vector<uint32_t> result = to_host(x[steps % 2], n);
    bool right = verify(b, c, result, repeated({s, 1}, steps));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(x[0]));
    CHECK(cudaFree(x[1]));
    CHECK(cudaFree(term));
    return report(&workload, right, checksum_of(result), "");
}
