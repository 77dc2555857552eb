// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_try [retry|keep]: calls cuInit and prints "cuInit CODE". Where it fails, everything that takes something of the GPU must fail
// as well, and prints "closed" then. retry: unsets VGPU_MEMORY and tries again; keep: stays until killed.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

static void expect_closed(void)
{
    CUcontext context;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    EXPECT(cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(create_context(&context, 0), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuMemAlloc(&address, MIB), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuMemAllocManaged(&address, MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuMemAllocAsync(&address, MIB, NULL), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuMemCreate(&handle, 2 * MIB, &prop, 0), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuMemPoolCreate(&pool, &props), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT(cuGraphLaunch(NULL, NULL), CUDA_ERROR_NOT_INITIALIZED);
    puts("closed");
}

int main(int argc, char **argv)
{
    errno = 77;
    CUresult rc = cuInit(0);
    if (errno != 77 && rc != CUDA_SUCCESS)
        fail("errno became %d (%s)", errno, strerror(errno));
    printf("cuInit %d\n", (int)rc);
    if (rc != CUDA_SUCCESS)
        expect_closed();
    if (argc > 1 && strcmp(argv[1], "retry") == 0) {
        unsetenv("VGPU_MEMORY");
        start();
        printf("again %d\n", (int)cuInit(0));
    }
    fflush(stdout);
    while (argc > 1 && strcmp(argv[1], "keep") == 0)
        pause();
    return 0;
}
