// What can be asked about functions, and how many blocks of them fit on a multiprocessor.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/module.h"

CUresult function_resolve(CUfunction handle, const struct simgpu_kernel **kernel, const struct function_limits **limits)
{
    const struct CUkern_st *as_kernel = (const struct CUkern_st *)(const void *)handle;

    if (handle_is(handle, HANDLE_FUNCTION)) {
        *kernel = handle->kernel;
        *limits = &handle->limits;
        return CUDA_SUCCESS;
    }
    if (!handle_is(as_kernel, HANDLE_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    *kernel = as_kernel->kernel;
    *limits = &as_kernel->limits;
    return CUDA_SUCCESS;
}

CUresult function_get_attribute(const struct simgpu_kernel *kernel, const struct function_limits *limits,
                                CUfunction_attribute attribute, int *value)
{
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = DEVICE_MAX_THREADS_PER_BLOCK;
        break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = 32;
        break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)kernel->frame_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = 90;
        break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = limits->max_dynamic_shared;
        break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = limits->shared_carveout;
        break;
    default:
        if ((unsigned)attribute >= CU_FUNC_ATTRIBUTE_MAX)
            return CUDA_ERROR_INVALID_VALUE;
        *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult function_set_attribute(struct function_limits *limits, CUfunction_attribute attribute, int value)
{
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || (unsigned)value > DEVICE_SHARED_PER_BLOCK_OPTIN)
            return CUDA_ERROR_INVALID_VALUE;
        limits->max_dynamic_shared = value;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100)
            return CUDA_ERROR_INVALID_VALUE;
        limits->shared_carveout = value;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult function_param_info(const struct simgpu_kernel *kernel, size_t index, size_t *offset, size_t *bytes)
{
    size_t at = 0;

    if (!offset || index >= kernel->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0;; i++) {
        size_t size = kernel->param_bytes[i];
        // The largest power of two that divides the size, up to 8, is the alignment of every type that device code passes.
        size_t alignment = size ? size & -size : 1;
        alignment = alignment > 8 ? 8 : alignment;
        at = (at + alignment - 1) & ~(alignment - 1);
        if (i == index)
            break;
        at += size;
    }
    *offset = at;
    if (bytes)
        *bytes = kernel->param_bytes[index];
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = function_resolve(function, &kernel, &limits);
    return api_leave(rc ? rc : function_get_attribute(kernel, limits, attribute, value));
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(function, HANDLE_FUNCTION))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(function_set_attribute(&function->limits, attribute, value));
}

// Calls that only need to know that the function exists.
static CUresult check_function(CUfunction function)
{
    CUresult rc = api_enter();
    return rc ? rc : api_leave(handle_is(function, HANDLE_FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config)
{
    (void)config;
    return check_function(function);
}

CUresult cuFuncSetSharedMemConfig(CUfunction function, CUsharedconfig config)
{
    (void)config;
    return check_function(function);
}

CUresult cuFuncLoad(CUfunction function)
{
    return check_function(function);
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = check_function(function);
    if (!rc)
        *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return rc;
}

CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!module)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(function, HANDLE_FUNCTION))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    *module = function->module;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuFuncGetName(const char **name, CUfunction function)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = function_resolve(function, &kernel, &limits);
    if (!rc)
        *name = kernel->name;
    return api_leave(rc);
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *bytes)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = function_resolve(function, &kernel, &limits);
    return api_leave(rc ? rc : function_param_info(kernel, index, offset, bytes));
}

static int blocks_per_sm(int block_size, size_t shared_bytes)
{
    int by_threads = DEVICE_THREADS_PER_SM / ((block_size + 31) / 32 * 32);
    // The hardware keeps 1 KiB of shared memory per block for itself.
    size_t by_shared = DEVICE_SHARED_PER_SM / (shared_bytes + 1024);

    if (by_threads > DEVICE_BLOCKS_PER_SM)
        by_threads = DEVICE_BLOCKS_PER_SM;
    return by_shared < (size_t)by_threads ? (int)by_shared : by_threads;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int block_size,
                                                              size_t shared_bytes, unsigned flags)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = function_resolve(function, &kernel, &limits);
    if (!rc && (!blocks || block_size <= 0 || flags > CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE))
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        *blocks = block_size > DEVICE_MAX_THREADS_PER_BLOCK || shared_bytes > DEVICE_SHARED_PER_BLOCK_OPTIN
                      ? 0
                      : blocks_per_sm(block_size, shared_bytes);
    return api_leave(rc);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int block_size, size_t shared_bytes)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_size, shared_bytes, 0);
}

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *min_grid, int *block_size, CUfunction function,
                                                   CUoccupancyB2DSize to_shared, size_t shared_bytes, int limit, unsigned flags)
{
    int best = 0, best_threads = 0;

    if (!min_grid || !block_size || limit < 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (limit == 0 || limit > DEVICE_MAX_THREADS_PER_BLOCK)
        limit = DEVICE_MAX_THREADS_PER_BLOCK;
    for (int size = limit; size > 0; size = (size - 1) & ~31) {
        int blocks = 0;
        CUresult rc = cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, function, size,
                                                                           to_shared ? to_shared(size) : shared_bytes, flags);
        if (rc)
            return rc;
        if (blocks * size > best_threads) {
            best_threads = blocks * size;
            best = size;
            *min_grid = blocks * DEVICE_SM_COUNT;
        }
    }
    *block_size = best;
    return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuOccupancyMaxPotentialBlockSize(int *min_grid, int *block_size, CUfunction function, CUoccupancyB2DSize to_shared,
                                          size_t shared_bytes, int limit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(min_grid, block_size, function, to_shared, shared_bytes, limit, 0);
}

CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, CUfunction function, int blocks, int block_size)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = function_resolve(function, &kernel, &limits);
    if (!rc && (!bytes || blocks <= 0 || block_size <= 0 || blocks_per_sm(block_size, 0) < blocks))
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc) {
        size_t share = DEVICE_SHARED_PER_SM / (unsigned)blocks - 1024;
        *bytes = share < DEVICE_SHARED_PER_BLOCK_OPTIN ? share : DEVICE_SHARED_PER_BLOCK_OPTIN;
    }
    return api_leave(rc);
}
