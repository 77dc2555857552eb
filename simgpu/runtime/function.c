// Attributes of kernels, occupancy, and libraries that a program loads itself.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

static cudaError_t get_kernel(const void *function, CUkernel *kernel)
{
    cudaError_t error = runtime_enter();
    return error ? error : registry_kernel(function, (cudaKernel_t *)kernel);
}

static cudaError_t get_attribute(CUkernel kernel, CUfunction_attribute attribute, int *value)
{
    return (cudaError_t)LEGACY->cuKernelGetAttribute(value, attribute, kernel, context_device());
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function)
{
    static const struct {
        size_t offset;
        CUfunction_attribute attribute;
        bool is_size;
    } fields[] = {
        {offsetof(struct cudaFuncAttributes, sharedSizeBytes), CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, true},
        {offsetof(struct cudaFuncAttributes, constSizeBytes), CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, true},
        {offsetof(struct cudaFuncAttributes, localSizeBytes), CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, true},
        {offsetof(struct cudaFuncAttributes, maxThreadsPerBlock), CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, false},
        {offsetof(struct cudaFuncAttributes, numRegs), CU_FUNC_ATTRIBUTE_NUM_REGS, false},
        {offsetof(struct cudaFuncAttributes, ptxVersion), CU_FUNC_ATTRIBUTE_PTX_VERSION, false},
        {offsetof(struct cudaFuncAttributes, binaryVersion), CU_FUNC_ATTRIBUTE_BINARY_VERSION, false},
        {offsetof(struct cudaFuncAttributes, cacheModeCA), CU_FUNC_ATTRIBUTE_CACHE_MODE_CA, false},
        {offsetof(struct cudaFuncAttributes, maxDynamicSharedSizeBytes), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
         false},
        {offsetof(struct cudaFuncAttributes, preferredShmemCarveout), CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
         false},
    };
    CUkernel kernel;
    cudaError_t error = attributes ? get_kernel(function, &kernel) : cudaErrorInvalidValue;

    if (error)
        return runtime_leave(error);
    *attributes = (struct cudaFuncAttributes){0};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char *field = (char *)attributes + fields[i].offset;
        int value = 0;
        error = get_attribute(kernel, fields[i].attribute, &value);
        if (error)
            return runtime_leave(error);
        if (fields[i].is_size)
            *(size_t *)field = (size_t)value;
        else
            *(int *)field = value;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    CUkernel kernel;
    cudaError_t error = get_kernel(function, &kernel);

    if (!error)
        error = (cudaError_t)LEGACY->cuKernelSetAttribute((CUfunction_attribute)attribute, value, kernel, context_device());
    return runtime_leave(error);
}

cudaError_t cudaFuncSetCacheConfig(const void *function, enum cudaFuncCache config)
{
    CUkernel kernel;
    cudaError_t error = get_kernel(function, &kernel);

    if (!error)
        error = (cudaError_t)LEGACY->cuKernelSetCacheConfig(kernel, (CUfunc_cache)config, context_device());
    return runtime_leave(error);
}

cudaError_t cudaFuncGetName(const char **name, const void *function)
{
    CUkernel kernel;
    cudaError_t error = name ? get_kernel(function, &kernel) : cudaErrorInvalidValue;
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuKernelGetName(name, kernel));
}

#if CUDART_VERSION >= 12040
cudaError_t cudaFuncGetParamInfo(const void *function, size_t index, size_t *offset, size_t *bytes)
{
    CUkernel kernel;
    cudaError_t error = get_kernel(function, &kernel);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuKernelGetParamInfo(kernel, index, offset, bytes));
}
#endif

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int block_threads,
                                                                   size_t shared_bytes, unsigned flags)
{
    CUkernel kernel;
    cudaError_t error = get_kernel(function, &kernel);

    if (!error)
        error = (cudaError_t)LEGACY->cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, (CUfunction)kernel,
                                                                                          block_threads, shared_bytes, flags);
    return runtime_leave(error);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int block_threads,
                                                          size_t shared_bytes)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_threads, shared_bytes,
                                                                  cudaOccupancyDefault);
}

cudaError_t cudaOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, const void *function, int blocks, int block_threads)
{
    CUkernel kernel;
    cudaError_t error = get_kernel(function, &kernel);

    if (!error)
        error = (cudaError_t)LEGACY->cuOccupancyAvailableDynamicSMemPerBlock(bytes, (CUfunction)kernel, blocks, block_threads);
    return runtime_leave(error);
}

cudaError_t cudaFuncSetSharedMemConfig(const void *function, enum cudaSharedMemConfig config)
{
    CUkernel kernel;
    // Bank sizes have not been configurable since Kepler.
    (void)config;
    return runtime_leave(get_kernel(function, &kernel));
}

#if CUDART_VERSION >= 12080
cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *jit, void **jit_values,
                                unsigned jit_count, enum cudaLibraryOption *options, void **values, unsigned count)
{
    return DRIVER(LEGACY, cuLibraryLoadData, library, code, (CUjit_option *)jit, jit_values, jit_count,
                  (CUlibraryOption *)options, values, count);
}

cudaError_t cudaLibraryLoadFromFile(cudaLibrary_t *library, const char *path, enum cudaJitOption *jit, void **jit_values,
                                    unsigned jit_count, enum cudaLibraryOption *options, void **values, unsigned count)
{
    return DRIVER(LEGACY, cuLibraryLoadFromFile, library, path, (CUjit_option *)jit, jit_values, jit_count,
                  (CUlibraryOption *)options, values, count);
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library)
{
    return DRIVER(LEGACY, cuLibraryUnload, library);
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
    cudaError_t error = DRIVER(LEGACY, cuLibraryGetKernel, (CUkernel *)kernel, library, name);
    return error ? error : runtime_leave(registry_add_kernel(*kernel));
}

cudaError_t cudaLibraryGetKernelCount(unsigned *count, cudaLibrary_t library)
{
    return DRIVER(LEGACY, cuLibraryGetKernelCount, count, library);
}

cudaError_t cudaLibraryEnumerateKernels(cudaKernel_t *kernels, unsigned count, cudaLibrary_t library)
{
    return DRIVER(LEGACY, cuLibraryEnumerateKernels, (CUkernel *)kernels, count, library);
}

cudaError_t cudaLibraryGetGlobal(void **pointer, size_t *bytes, cudaLibrary_t library, const char *name)
{
    return DRIVER(LEGACY, cuLibraryGetGlobal, (CUdeviceptr *)pointer, bytes, library, name);
}
#endif
