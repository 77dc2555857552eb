// cuBLAS: products in single and half precision, the latter on tensor cores, alone and in batches.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cublas_v2.h>
#include <cuda_fp16.h>

#include <cmath>

#include "tests/gpu/check.cuh"

static const int n = 512, batch = 8;

// A few elements, computed again on the host; matrices are stored by columns.
template <typename T> static void check_product(const T *a, const T *b, const std::vector<T> &c, double tolerance)
{
    for (int k = 0; k < 16; k++) {
        int row = (int)(mixed(k) % n), column = (int)(mixed(k + 100) % n);
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)(float)a[i * n + row] * (double)(float)b[column * n + i];
        EXPECT(std::fabs(sum - (double)(float)c[column * n + row]) < tolerance);
    }
}

int main()
{
    const std::vector<float> a = random_values(n * n, 1), b = random_values(n * n, 2);
    std::vector<__half> ha(batch * n * n), hb(batch * n * n);
    for (size_t i = 0; i < ha.size(); i++) {
        ha[i] = __float2half((float)uniform(i));
        hb[i] = __float2half((float)uniform(i + ha.size()));
    }
    cublasHandle_t handle;
    OK(cublasCreate(&handle));
    while (again()) {
        const float one = 1, zero = 0;
        float *da = to_device(a), *db = to_device(b), *dc = poisoned<float>(n * n);
        __half *dha = to_device(ha), *dhb = to_device(hb), *dhc = poisoned<__half>(ha.size());
        for (int i = 0; i < 10; i++)
            OK(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, da, n, db, n, &zero, dc, n));
        check_product(a.data(), b.data(), result_of("sgemm", dc, n * n), 1e-3);
        for (int i = 0; i < 10; i++)
            OK(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, dha, CUDA_R_16F, n, dhb, CUDA_R_16F, n, &zero, dhc,
                            CUDA_R_16F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
        check_product(ha.data(), hb.data(), result_of("hgemm", dhc, n * n), 0.1);
        OK(cublasGemmStridedBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, n, n, n, &one, dha, CUDA_R_16F, n, n * n, dhb,
                                      CUDA_R_16F, n, n * n, &zero, dhc, CUDA_R_16F, n, n * n, batch, CUBLAS_COMPUTE_32F,
                                      CUBLAS_GEMM_DEFAULT));
        result_of("batched hgemm", dhc, ha.size());
        OK(cublasSgemv(handle, CUBLAS_OP_T, n, n, &one, da, n, db, 1, &zero, dc, 1));
        result_of("sgemv", dc, n);
        for (void *memory : {(void *)da, (void *)db, (void *)dc, (void *)dha, (void *)dhb, (void *)dhc})
            OK(cudaFree(memory));
    }
    OK(cublasDestroy(handle));
    return 0;
}
