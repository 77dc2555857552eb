// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_books LIBRARY: whichever of the library's requests for host memory fails, a call succeeds or says that it is out of memory, and
// leaves errno alone; and once what it made is gone, as much is free as before.
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "driver.h"

#define POINTS 40 // no call makes as many requests

void *__libc_calloc(size_t count, size_t bytes);
void *__libc_malloc(size_t bytes);

static const char *library;
static __thread int countdown; // 0: none fails

static bool fails(const void *caller)
{
    Dl_info info;
    if (countdown == 0 || !dladdr(caller, &info) || strcmp(info.dli_fname, library) != 0 || --countdown > 0)
        return false;
    errno = ENOMEM;
    return true;
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, bytes);
}

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

static CUstream stream;
static CUdeviceptr range;
static const CUmemAllocationProp memory = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                           .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
static const CUmemPoolProps pool_props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                          .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};

static CUresult linear(void)
{
    CUdeviceptr address;
    CUresult rc = cuMemAlloc(&address, 3 * MIB);
    if (rc == CUDA_SUCCESS)
        OK(cuMemFree(address));
    return rc;
}

static CUresult pooled(void)
{
    CUmemoryPool pool;
    CUdeviceptr address;
    CUresult rc = cuMemPoolCreate(&pool, &pool_props);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = cuMemAllocFromPoolAsync(&address, 3 * MIB, pool, stream);
    if (rc == CUDA_SUCCESS)
        OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemPoolDestroy(pool));
    return rc;
}

static CUresult physical(void)
{
    CUmemGenericAllocationHandle handle;
    CUresult rc = cuMemCreate(&handle, 4 * MIB, &memory, 0);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = cuMemMap(range, 4 * MIB, 0, handle, 0);
    OK(cuMemRelease(handle));
    if (rc == CUDA_SUCCESS)
        OK(cuMemUnmap(range, 4 * MIB));
    return rc;
}

static CUresult array(void)
{
    CUarray handle;
    const CUDA_ARRAY3D_DESCRIPTOR descriptor = {.Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUresult rc = cuArray3DCreate(&handle, &descriptor);
    if (rc == CUDA_SUCCESS)
        OK(cuArrayDestroy(handle));
    return rc;
}

static CUresult graph(void)
{
    CUgraph source;
    CUgraphExec exec;
    CUgraphNode made, freed;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_props, .bytesize = 4 * MIB};
    OK(cuGraphCreate(&source, 0));
    OK(cuGraphAddMemAllocNode(&made, source, NULL, 0, &params));
    OK(cuGraphAddMemFreeNode(&freed, source, &made, 1, params.dptr));
    CUresult rc = cuGraphInstantiateWithFlags(&exec, source, 0);
    if (rc == CUDA_SUCCESS) {
        size_t before = told_free();
        rc = cuGraphLaunch(exec, stream);
        OK(cuStreamSynchronize(stream));
        if (rc == CUDA_SUCCESS && told_free() == before)
            fail("the memory of a graph was not noticed");
        OK(cuGraphExecDestroy(exec));
    }
    OK(cuGraphDestroy(source));
    OK(cuDeviceGraphMemTrim(0));
    return rc;
}

static CUresult streams(void)
{
    CUstream made;
    CUresult rc = cuStreamCreate(&made, CU_STREAM_NON_BLOCKING);
    if (rc == CUDA_SUCCESS)
        OK(cuStreamDestroy(made));
    return rc;
}

static CUresult contexts(void)
{
    CUcontext made, before, after;
    CUdeviceptr address;
    OK(cuCtxGetCurrent(&before));
    CUresult rc = create_context(&made, 0);
    if (rc == CUDA_SUCCESS) {
        rc = cuMemAlloc(&address, MIB);
        OK(cuCtxDestroy(made));
    }
    OK(cuCtxGetCurrent(&after));
    if (after != before)
        fail("another context is current");
    return rc;
}

static void try(CUresult (*family)(void), const char *name)
{
    OK(family());
    size_t whole = told_free();
    for (int point = 1; point < POINTS; point++) {
        countdown = point;
        errno = 77;
        CUresult rc = family();
        int seen = errno, left = countdown;
        countdown = 0;
        if (rc != CUDA_SUCCESS && rc != CUDA_ERROR_OUT_OF_MEMORY)
            fail("%s, request %d: error %d", name, point, (int)rc);
        if (seen != 77)
            fail("%s, request %d: errno became %d", name, point, seen);
        expect_free(whole, name);
        if (left > 0)
            return;
    }
    fail("%s makes more than %d requests", name, POINTS);
}

int main(int argc, char **argv)
{
    library = argc > 1 ? argv[1] : "";
    start();
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemAddressReserve(&range, 4 * MIB, 0, 0, 0));
    try(linear, "linear");
    try(pooled, "pooled");
    try(physical, "physical");
    try(array, "array");
    try(graph, "graph");
    try(streams, "streams");
    try(contexts, "contexts");
    return 0;
}
