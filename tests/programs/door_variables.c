// SPDX-License-Identifier: AGPL-3.0-or-later
// Like programs that load CUDA by themselves and keep its functions in exported variables of the same names: none of them is what the
// library means by these names.
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

int (*cuInit)(unsigned);
int (*cuDeviceGet)(int *, int);
int (*cuDevicePrimaryCtxRetain)(void **, int);
int (*cuCtxSetCurrent)(void *);
int (*cuMemAlloc_v2)(unsigned long long *, size_t);

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20;
    int device;
    void *context, *library = dlopen("libcuda.so.1", RTLD_NOW);
    unsigned long long pointer;
    if (!library)
        return 1;
    cuInit = (int (*)(unsigned))dlsym(library, "cuInit");
    cuDeviceGet = (int (*)(int *, int))dlsym(library, "cuDeviceGet");
    cuDevicePrimaryCtxRetain = (int (*)(void **, int))dlsym(library, "cuDevicePrimaryCtxRetain");
    cuCtxSetCurrent = (int (*)(void *))dlsym(library, "cuCtxSetCurrent");
    cuMemAlloc_v2 = (int (*)(unsigned long long *, size_t))dlsym(library, "cuMemAlloc_v2");
    if (cuInit(0) || cuDeviceGet(&device, 0) || cuDevicePrimaryCtxRetain(&context, device) || cuCtxSetCurrent(context))
        return 1;
    int result = cuMemAlloc_v2(&pointer, bytes);
    if (result == 0)
        puts("granted");
    else
        printf("refused %d\n", result);
    return 0;
}
