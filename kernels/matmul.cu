// Multiplies square matrices, tiled in shared memory: bound by computation and full of barriers.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Each step adds A * B to C and keeps the rest of a division by 2^20. The numbers are floats, but whole and small: every sum
// stays below 2^24 and is exact in whatever order it is computed, with or without fused multiply-add. So k steps must leave
// exactly C + k * A * B mod 2^20, and the tolerance is nought.
#include "kernels/common.cuh"

#define TILE 16
#define MODULUS (1u << 20)

__global__ void matmul(const float *a, const float *b, float *c, unsigned n)
{
    __shared__ float tile_a[TILE][TILE];
    __shared__ float tile_b[TILE][TILE];
    unsigned x = threadIdx.x, y = threadIdx.y;
    unsigned column = blockIdx.x * TILE + x, row = blockIdx.y * TILE + y;
    float sum = 0;

    for (unsigned k = 0; k < n; k += TILE) {
        tile_a[y][x] = row < n && k + x < n ? a[(size_t)row * n + k + x] : 0;
        tile_b[y][x] = column < n && k + y < n ? b[(size_t)(k + y) * n + column] : 0;
        __syncthreads();
        for (unsigned i = 0; i < TILE; i++)
            sum += tile_a[y][i] * tile_b[i][x];
        __syncthreads();
    }
    if (row < n && column < n) {
        float *element = &c[(size_t)row * n + column];
        float total = *element + sum;
        *element = total - (float)MODULUS * floorf(total / (float)MODULUS);
    }
}

static std::vector<uint32_t> multiply(const std::vector<float> &matrix, const std::vector<uint32_t> &vector)
{
    const size_t n = vector.size();
    std::vector<uint32_t> product(n);
    for (size_t row = 0; row < n; row++)
        for (size_t column = 0; column < n; column++)
            product[row] += (uint32_t)(int32_t)matrix[row * n + column] * vector[column];
    return product;
}

// Freivalds' check: instead of the product, both sides times a random vector are compared, modulo 2^20. The vector's entries
// are odd, so one wrong element in a row always shows; several cancel each other out with a probability of 2^-20. (R.
// Freivalds, "Probabilistic machines can use less running time", IFIP Congress 1977.)
static bool verify(const std::vector<float> &a, const std::vector<float> &b, const std::vector<float> &c,
                   const std::vector<float> &result, size_t n, uint64_t steps)
{
    std::vector<uint32_t> vector(n);

    for (size_t i = 0; i < n * n; i++) {
        if (!(result[i] >= 0 && result[i] < (float)MODULUS && result[i] == floorf(result[i]))) {
            fprintf(stderr, "%s: row %zu, column %zu is %g, not a whole number below %u\n", workload.name, i / n, i % n,
                    (double)result[i], MODULUS);
            return false;
        }
    }
    for (size_t i = 0; i < n; i++)
        vector[i] = (uint32_t)mixed(3 * n * n + i) | 1;
    std::vector<uint32_t> added = multiply(a, multiply(b, vector)), before = multiply(c, vector),
                          after = multiply(result, vector);
    for (size_t row = 0; row < n; row++) {
        if ((after[row] - before[row] - (uint32_t)steps * added[row]) % MODULUS) {
            fprintf(stderr, "%s: row %zu is not the sum of %" PRIu64 " products\n", workload.name, row, steps);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    workload.name = "matmul";
    workload.purpose =
        "Multiplies square matrices of floats. The numbers are whole and small, so the result is exact, and is checked so.";
    workload.size_help = "rows and columns of a matrix (default 128)";
    workload.size = 128;
    workload.least = 1;
    workload.most = 1 << 15; // with factors up to 4, sums reach 2^20 + 16 * 2^15, far below 2^24
    begin(nullptr, 0, argc, argv);

    const size_t n = workload.size;
    std::vector<float> a(n * n), b(n * n), c(n * n);
    for (size_t i = 0; i < n * n; i++) {
        a[i] = (float)((int)(mixed(i) % 9) - 4);
        b[i] = (float)((int)(mixed(n * n + i) % 9) - 4);
        c[i] = (float)(mixed(2 * n * n + i) % MODULUS);
    }
    float *left = to_device(a), *right = to_device(b), *sum = to_device(c);
    dim3 grid(blocks_for(n, TILE), blocks_for(n, TILE)), block(TILE, TILE);
    cudaStream_t stream;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    uint64_t steps = run_steps(stream, [&](uint64_t) { launch(matmul, grid, block, 0, stream, left, right, sum, n); });
    std::vector<float> result = to_host(sum, n * n);
    bool exact = verify(a, b, c, result, n, steps);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(left));
    CHECK(cudaFree(right));
    CHECK(cudaFree(sum));
    return report(&workload, exact, checksum_of(result), "");
}
