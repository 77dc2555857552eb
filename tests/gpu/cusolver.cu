// cuSOLVER: Cholesky and LU factors, a linear system, and the eigenvalues of a symmetric matrix.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cusolverDn.h>

#include <cmath>

#include "tests/gpu/check.cuh"

static const int n = 256;
static cusolverDnHandle_t handle;

// Symmetric and dominated by its diagonal, so positive definite.
static std::vector<double> matrix()
{
    std::vector<double> a(n * n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            a[i * n + j] = uniform((uint64_t)(i < j ? i * n + j : j * n + i)) + (i == j ? n : 0);
    return a;
}

static void cholesky(int *info)
{
    int size;
    double *a = to_device(matrix());
    OK(cusolverDnDpotrf_bufferSize(handle, CUBLAS_FILL_MODE_LOWER, n, a, n, &size));
    double *work = poisoned<double>((size_t)size);
    OK(cusolverDnDpotrf(handle, CUBLAS_FILL_MODE_LOWER, n, a, n, work, size, info));
    EXPECT(to_host(info, 1)[0] == 0);
    result_of("Cholesky", a, n * n);
    OK(cudaFree(work));
    OK(cudaFree(a));
}

static void linear_system(int *info)
{
    int size;
    const std::vector<double> host = matrix(), right = random_values<double>(n, 9);
    double *a = to_device(host), *b = to_device(right);
    int *pivots = poisoned<int>(n);
    OK(cusolverDnDgetrf_bufferSize(handle, n, n, a, n, &size));
    double *work = poisoned<double>((size_t)size);
    OK(cusolverDnDgetrf(handle, n, n, a, n, work, pivots, info));
    EXPECT(to_host(info, 1)[0] == 0);
    OK(cusolverDnDgetrs(handle, CUBLAS_OP_N, n, 1, a, n, pivots, b, n, info));
    const std::vector<double> x = result_of("solution", b, n);
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++)
            sum += host[j * n + i] * x[j];
        EXPECT(std::fabs(sum - right[i]) < 1e-9);
    }
    for (void *memory : {(void *)a, (void *)b, (void *)pivots, (void *)work})
        OK(cudaFree(memory));
}

static void eigenvalues(int *info)
{
    int size;
    double *a = to_device(matrix()), *values = poisoned<double>(n);
    OK(cusolverDnDsyevd_bufferSize(handle, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, values, &size));
    double *work = poisoned<double>((size_t)size);
    OK(cusolverDnDsyevd(handle, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, values, work, size, info));
    EXPECT(to_host(info, 1)[0] == 0);
    result_of("eigenvalues", values, n);
    for (double *memory : {a, values, work})
        OK(cudaFree(memory));
}

int main()
{
    OK(cusolverDnCreate(&handle));
    int *info = poisoned<int>(1);
    while (again()) {
        cholesky(info);
        linear_system(info);
        eigenvalues(info);
    }
    OK(cudaFree(info));
    OK(cusolverDnDestroy(handle));
    return 0;
}
