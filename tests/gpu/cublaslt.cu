// cuBLASLt: a product with bias and ReLU in its epilogue, by the algorithm that its heuristic names.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cublasLt.h>
#include <cuda_bf16.h>

#include "tests/gpu/check.cuh"

template <typename T> static std::vector<T> converted(size_t count, uint64_t seed)
{
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++)
        values[i] = T((float)uniform(seed * (1ull << 40) + i));
    return values;
}

int main()
{
    const int m = 512, n = 384, k = 256;
    const size_t workspace_bytes = 8 << 20;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
    const float one = 1, zero = 0;
    cublasLtHandle_t handle;
    OK(cublasLtCreate(&handle));
    while (again()) {
        auto *a = to_device(converted<__nv_bfloat16>(m * k, 1)), *b = to_device(converted<__nv_bfloat16>(k * n, 2));
        auto *bias = to_device(converted<__nv_bfloat16>(m, 3)), *d = poisoned<__nv_bfloat16>(m * n);
        char *workspace = poisoned<char>(workspace_bytes);
        cublasLtMatmulDesc_t operation;
        cublasLtMatrixLayout_t la, lb, ld;
        cublasLtMatmulPreference_t preference;
        cublasLtMatmulHeuristicResult_t chosen;
        int found;
        OK(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        OK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
        OK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        OK(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
        OK(cublasLtMatrixLayoutCreate(&la, CUDA_R_16BF, k, m, k));
        OK(cublasLtMatrixLayoutCreate(&lb, CUDA_R_16BF, k, n, k));
        OK(cublasLtMatrixLayoutCreate(&ld, CUDA_R_16BF, m, n, m));
        OK(cublasLtMatmulPreferenceCreate(&preference));
        OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                                sizeof workspace_bytes));
        OK(cublasLtMatmulAlgoGetHeuristic(handle, operation, la, lb, ld, ld, preference, 1, &chosen, &found));
        EXPECT(found == 1);
        for (int i = 0; i < 20; i++)
            OK(cublasLtMatmul(handle, operation, &one, a, la, b, lb, &zero, d, ld, d, ld, &chosen.algo, workspace,
                              workspace_bytes, nullptr));
        result_of("product", d, m * n);
        OK(cublasLtMatmulPreferenceDestroy(preference));
        for (cublasLtMatrixLayout_t layout : {la, lb, ld})
            OK(cublasLtMatrixLayoutDestroy(layout));
        OK(cublasLtMatmulDescDestroy(operation));
        for (void *memory : {(void *)a, (void *)b, (void *)bias, (void *)d, (void *)workspace})
            OK(cudaFree(memory));
    }
    OK(cublasLtDestroy(handle));
    return 0;
}
