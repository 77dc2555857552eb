// SPDX-License-Identifier: AGPL-3.0-or-later
// Door b: the CUDA runtime, shared or static. Prints what cudaMalloc of argv[1] MiB says, and that cudaGetLastError says the same.
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20;
    void *pointer = NULL;
    cudaError_t error = cudaMalloc(&pointer, bytes);
    if (error == cudaSuccess)
        puts("granted");
    else
        printf("refused %d\n", (int)error);
    return cudaGetLastError() == error && cudaGetLastError() == cudaSuccess ? 0 : 1;
}
