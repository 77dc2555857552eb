// SPDX-License-Identifier: AGPL-3.0-or-later
// Door d: the runtime's cudaGetDriverEntryPoint, or with "version" in argv[2] its ByVersion form. The allocation is the driver's.
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" // programs that still call the older one are many

typedef int allocate_t(unsigned long long *pointer, size_t bytes);

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20;
    void *function = NULL;
    unsigned long long pointer = 0;
    cudaDriverEntryPointQueryResult status;
    cudaError_t error = cudaFree(NULL);
    if (error == cudaSuccess) {
#if CUDART_VERSION >= 12050
        if (argc > 2 && strcmp(argv[2], "version") == 0)
            error = cudaGetDriverEntryPointByVersion("cuMemAlloc", &function, 12000, cudaEnableDefault, &status);
        else
#endif
            error = cudaGetDriverEntryPoint("cuMemAlloc", &function, cudaEnableDefault, &status);
    }
    if (error != cudaSuccess || !function) {
        printf("cuda error %d\n", (int)error);
        return 1;
    }
    int result = reinterpret_cast<allocate_t *>(function)(&pointer, bytes);
    if (result == 0)
        puts("granted");
    else
        printf("refused %d\n", result);
    return 0;
}
