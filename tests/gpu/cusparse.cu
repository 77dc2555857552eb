// cuSPARSE: a sparse matrix times a vector and times a dense matrix. Small whole numbers, so that every order of summing gives the same.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cusparse.h>

#include "tests/gpu/check.cuh"

static std::vector<float> whole_numbers(size_t count, uint64_t seed)
{
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(mixed(seed * (1ull << 40) + i) % 17) - 8);
    return values;
}

int main()
{
    const int rows = 20000, per_row = 12, columns = 32;
    const float one = 1, zero = 0;
    std::vector<int> offsets(rows + 1), indices((size_t)rows * per_row);
    for (int i = 0; i <= rows; i++)
        offsets[i] = i * per_row;
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < per_row; k++)
            indices[i * per_row + k] = i / 2 + k * (rows / per_row / 2); // ascending, the last below `rows`
    const std::vector<float> values = whole_numbers(indices.size(), 1), vector = whole_numbers(rows, 2);
    cusparseHandle_t handle;
    OK(cusparseCreate(&handle));
    while (again()) {
        cusparseSpMatDescr_t matrix;
        cusparseDnVecDescr_t x, y;
        cusparseDnMatDescr_t b, c;
        size_t bytes[2];
        int *d_offsets = to_device(offsets), *d_indices = to_device(indices);
        float *d_values = to_device(values), *dx = to_device(vector), *dy = poisoned<float>(rows);
        float *db = to_device(whole_numbers((size_t)rows * columns, 3)), *dc = poisoned<float>((size_t)rows * columns);
        OK(cusparseCreateCsr(&matrix, rows, rows, (int64_t)indices.size(), d_offsets, d_indices, d_values, CUSPARSE_INDEX_32I,
                             CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
        OK(cusparseCreateDnVec(&x, rows, dx, CUDA_R_32F));
        OK(cusparseCreateDnVec(&y, rows, dy, CUDA_R_32F));
        OK(cusparseCreateDnMat(&b, rows, columns, rows, db, CUDA_R_32F, CUSPARSE_ORDER_COL));
        OK(cusparseCreateDnMat(&c, rows, columns, rows, dc, CUDA_R_32F, CUSPARSE_ORDER_COL));
        const auto plain = CUSPARSE_OPERATION_NON_TRANSPOSE;
        OK(cusparseSpMV_bufferSize(handle, plain, &one, matrix, x, &zero, y, CUDA_R_32F, CUSPARSE_SPMV_CSR_ALG2, &bytes[0]));
        OK(cusparseSpMM_bufferSize(handle, plain, plain, &one, matrix, b, &zero, c, CUDA_R_32F, CUSPARSE_SPMM_CSR_ALG1,
                                   &bytes[1]));
        char *work[2] = {poisoned<char>(bytes[0] + 1), poisoned<char>(bytes[1] + 1)};
        OK(cusparseSpMV(handle, plain, &one, matrix, x, &zero, y, CUDA_R_32F, CUSPARSE_SPMV_CSR_ALG2, work[0]));
        const std::vector<float> product = result_of("matrix times vector", dy, rows);
        for (int i = 0; i < rows; i += 97) {
            float sum = 0;
            for (int k = i * per_row; k < (i + 1) * per_row; k++)
                sum += values[k] * vector[indices[k]];
            EXPECT(product[i] == sum);
        }
        OK(cusparseSpMM(handle, plain, plain, &one, matrix, b, &zero, c, CUDA_R_32F, CUSPARSE_SPMM_CSR_ALG1, work[1]));
        result_of("matrix times matrix", dc, (size_t)rows * columns);
        OK(cusparseDestroySpMat(matrix));
        OK(cusparseDestroyDnVec(x));
        OK(cusparseDestroyDnVec(y));
        OK(cusparseDestroyDnMat(b));
        OK(cusparseDestroyDnMat(c));
        for (void *memory : {(void *)d_offsets, (void *)d_indices, (void *)d_values, (void *)dx, (void *)dy, (void *)db,
                             (void *)dc, (void *)work[0], (void *)work[1]})
            OK(cudaFree(memory));
    }
    OK(cusparseDestroy(handle));
    return 0;
}
