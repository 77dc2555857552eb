// cuRAND: generators driven by the host, and one that lives in a kernel.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <curand.h>
#include <curand_kernel.h>

#include "tests/gpu/check.cuh"

__global__ void draw(float *out, unsigned long long seed)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    curandStatePhilox4_32_10_t state;
    curand_init(seed, i, 0, &state);
    float sum = 0;
    for (int k = 0; k < 8; k++)
        sum += curand_normal(&state);
    out[i] = sum;
}

int main()
{
    const size_t n = 1 << 18;
    static const struct {
        const char *name;
        curandRngType_t type;
    } kinds[] = {
        {"XORWOW", CURAND_RNG_PSEUDO_XORWOW},
        {"Philox", CURAND_RNG_PSEUDO_PHILOX4_32_10},
        {"MRG32k3a", CURAND_RNG_PSEUDO_MRG32K3A},
        {"MTGP32", CURAND_RNG_PSEUDO_MTGP32},
    };
    float *out = poisoned<float>(n);
    while (again()) {
        for (const auto &kind : kinds) {
            curandGenerator_t generator;
            OK(curandCreateGenerator(&generator, kind.type));
            OK(curandSetPseudoRandomGeneratorSeed(generator, 1234));
            OK(curandGenerateUniform(generator, out, n));
            OK(curandGenerateNormal(generator, out, n, 0, 1));
            result_of(kind.name, out, n);
            OK(curandDestroyGenerator(generator));
        }
        launch(draw, (unsigned)n / 256, 256, nullptr, out, 99);
        result_of("in a kernel", out, n);
    }
    OK(cudaFree(out));
    return 0;
}
