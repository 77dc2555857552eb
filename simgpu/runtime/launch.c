// Kernel launches.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/registry.h"
#include "simgpu/runtime/runtime.h"

// `kernel<<<…>>>(…)` is a push, and a call of the host stub that pops. Calls nest while arguments are evaluated.
struct configuration {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
};

#define MAX_NESTING 16
static _Thread_local struct configuration configurations[MAX_NESTING];
static _Thread_local unsigned nesting;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream)
{
    if (nesting == MAX_NESTING)
        return 1;
    configurations[nesting++] = (struct configuration){grid, block, shared_bytes, stream};
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes, void *stream)
{
    if (!nesting)
        return runtime_leave(cudaErrorMissingConfiguration);
    const struct configuration *configuration = &configurations[--nesting];
    *grid = configuration->grid;
    *block = configuration->block;
    *shared_bytes = configuration->shared_bytes;
    *(cudaStream_t *)stream = configuration->stream;
    return cudaSuccess;
}

// Shapes that no GPU takes.
static bool is_bad_shape(dim3 grid, dim3 block)
{
    return !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z || grid.x > INT32_MAX || grid.y > UINT16_MAX ||
           grid.z > UINT16_MAX || block.z > 64 || (uint64_t)block.x * block.y > 1024 ||
           (uint64_t)block.x * block.y * block.z > 1024;
}

// What the driver calls an invalid value is an invalid configuration here, if the shape is to blame.
static cudaError_t launch_error(CUresult rc, dim3 grid, dim3 block)
{
    return rc == CUDA_ERROR_INVALID_VALUE && is_bad_shape(grid, block) ? cudaErrorInvalidConfiguration : (cudaError_t)rc;
}

static cudaError_t __cudaLaunchKernel_any(const struct driver *table, cudaKernel_t kernel, dim3 grid, dim3 block, void **args,
                                          size_t shared_bytes, cudaStream_t stream)
{
    cudaError_t error = runtime_enter();

    if (!error && !kernel)
        error = cudaErrorInvalidDeviceFunction;
    if (!error && shared_bytes > UINT32_MAX)
        error = cudaErrorInvalidValue;
    if (!error)
        error = launch_error(table->cuLaunchKernel((CUfunction)kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                                                   (unsigned)shared_bytes, stream, args, NULL),
                             grid, block);
    return runtime_leave(error);
}
TWIN(__cudaLaunchKernel, _ptsz,
     (cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared_bytes, cudaStream_t stream), kernel, grid, block,
     args, shared_bytes, stream)

static cudaError_t cudaLaunchKernel_any(const struct driver *table, const void *function, dim3 grid, dim3 block, void **args,
                                        size_t shared_bytes, cudaStream_t stream)
{
    cudaKernel_t kernel;
    cudaError_t error = registry_kernel(function, &kernel);
    return error ? runtime_leave(error) : __cudaLaunchKernel_any(table, kernel, grid, block, args, shared_bytes, stream);
}
TWIN(cudaLaunchKernel, _ptsz,
     (const void *function, dim3 grid, dim3 block, void **args, size_t shared_bytes, cudaStream_t stream), function, grid,
     block, args, shared_bytes, stream)

static cudaError_t cudaLaunchCooperativeKernel_any(const struct driver *table, const void *function, dim3 grid, dim3 block,
                                                   void **args, size_t shared_bytes, cudaStream_t stream)
{
    cudaKernel_t kernel;
    cudaError_t error = runtime_enter();

    if (!error)
        error = registry_kernel(function, &kernel);
    if (!error)
        error = launch_error(table->cuLaunchCooperativeKernel((CUfunction)kernel, grid.x, grid.y, grid.z, block.x, block.y,
                                                              block.z, (unsigned)shared_bytes, stream, args),
                             grid, block);
    return runtime_leave(error);
}
TWIN(cudaLaunchCooperativeKernel, _ptsz,
     (const void *function, dim3 grid, dim3 block, void **args, size_t shared_bytes, cudaStream_t stream), function, grid,
     block, args, shared_bytes, stream)

_Static_assert(sizeof(cudaLaunchAttribute) == sizeof(CUlaunchAttribute),
               "the driver takes the runtime's attributes as they are");

static cudaError_t cudaLaunchKernelExC_any(const struct driver *table, const cudaLaunchConfig_t *config, const void *function,
                                           void **args)
{
    cudaKernel_t kernel;
    cudaError_t error = config ? runtime_enter() : cudaErrorInvalidValue;

    if (!error)
        error = registry_kernel(function, &kernel);
    if (error)
        return runtime_leave(error);
    CUlaunchConfig driver_config = {.gridDimX = config->gridDim.x,
                                    .gridDimY = config->gridDim.y,
                                    .gridDimZ = config->gridDim.z,
                                    .blockDimX = config->blockDim.x,
                                    .blockDimY = config->blockDim.y,
                                    .blockDimZ = config->blockDim.z,
                                    .sharedMemBytes = (unsigned)config->dynamicSmemBytes,
                                    .hStream = config->stream,
                                    .attrs = (CUlaunchAttribute *)config->attrs,
                                    .numAttrs = config->numAttrs};
    CUresult rc = table->cuLaunchKernelEx(&driver_config, (CUfunction)kernel, args, NULL);
    return runtime_leave(launch_error(rc, config->gridDim, config->blockDim));
}
TWIN(cudaLaunchKernelExC, _ptsz, (const cudaLaunchConfig_t *config, const void *function, void **args), config, function, args)
