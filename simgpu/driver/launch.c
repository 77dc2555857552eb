// Preparing and running kernels.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/launch.h"

#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/device.h"
#include "simgpu/driver/engine.h"
#include "simgpu/driver/module.h"

// What the shortest kernel takes on a real GPU, about.
#define MINIMUM_NS 2000ull
#define PARAM_ALIGN 16u

static size_t align_up(size_t value, size_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static CUresult parse_extra(void **extra, const char **buffer, size_t *buffer_bytes)
{
    *buffer = NULL;
    *buffer_bytes = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
            *buffer = extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
            *buffer_bytes = *(size_t *)extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    return *buffer || !*buffer_bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult check_geometry(const struct function_limits *limits, struct simgpu_dim3 grid, struct simgpu_dim3 block,
                               unsigned shared_bytes)
{
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z)
        return CUDA_ERROR_INVALID_VALUE;
    if (grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return CUDA_ERROR_INVALID_VALUE;
    if ((uint64_t)block.x * block.y * block.z > DEVICE_MAX_THREADS_PER_BLOCK ||
        shared_bytes > (unsigned)limits->max_dynamic_shared)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult launch_new(CUfunction function, struct simgpu_dim3 grid, struct simgpu_dim3 block, unsigned shared_bytes,
                    void **params, void **extra, struct launch **launch)
{
    const struct simgpu_kernel *kernel;
    const struct function_limits *limits;
    const char *buffer = NULL;
    size_t bytes = 0, buffer_bytes = 0, offset = 0;
    CUresult rc = function_resolve(function, &kernel, &limits);

    if (!rc)
        rc = check_geometry(limits, grid, block, shared_bytes);
    if (!rc && extra && params)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc && extra)
        rc = parse_extra(extra, &buffer, &buffer_bytes);
    if (!rc && kernel->param_count && !params && !buffer)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (rc)
        return rc;

    size_t header = align_up(sizeof **launch + kernel->param_count * sizeof(void *), PARAM_ALIGN);
    for (uint32_t i = 0; i < kernel->param_count; i++)
        bytes += align_up(kernel->param_bytes[i], PARAM_ALIGN);
    struct launch *made = aligned_alloc(PARAM_ALIGN, header + bytes);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *made = (struct launch){.references = 1,
                            .function = function,
                            .kernel = kernel,
                            .grid = grid,
                            .block = block,
                            .dynamic_shared_bytes = shared_bytes,
                            .params = (void **)(made + 1)};
    char *storage = (char *)made + header;
    for (uint32_t i = 0; i < kernel->param_count; i++) {
        uint32_t size = kernel->param_bytes[i];
        const void *source = params ? params[i] : NULL;
        if (buffer && !function_param_info(kernel, i, &offset, NULL))
            source = offset + size <= buffer_bytes ? buffer + offset : NULL;
        if (!source) {
            free(made);
            return CUDA_ERROR_INVALID_VALUE;
        }
        made->params[i] = memcpy(storage, source, size);
        storage += align_up(size, PARAM_ALIGN);
    }
    *launch = made;
    return CUDA_SUCCESS;
}

void launch_release(struct launch *launch)
{
    if (--launch->references == 0)
        free(launch);
}

static void yield(void *arg, uint64_t ns)
{
    engine_pass(arg, ns);
}

void launch_run(const struct launch *launch, struct engine *engine)
{
    static _Thread_local void *shared;
    static _Thread_local size_t shared_capacity;
    size_t shared_bytes = launch->dynamic_shared_bytes;
    struct simgpu_block block = {.grid_dim = launch->grid,
                                 .block_dim = launch->block,
                                 .dynamic_shared_bytes = shared_bytes,
                                 .yield = yield,
                                 .yield_arg = engine};

    if (!shared || shared_capacity < shared_bytes) {
        free(shared);
        shared_capacity = align_up(shared_bytes ? shared_bytes : 1, 256);
        shared = aligned_alloc(256, shared_capacity);
        if (!shared) {
            api_log("no host memory for the shared memory of %s", launch->kernel->name);
            return;
        }
    }
    block.dynamic_shared = shared;
    engine_acquire(engine);
    uint64_t start = now_ns();
    for (block.block_idx.z = 0; block.block_idx.z < launch->grid.z; block.block_idx.z++) {
        for (block.block_idx.y = 0; block.block_idx.y < launch->grid.y; block.block_idx.y++) {
            for (block.block_idx.x = 0; block.block_idx.x < launch->grid.x; block.block_idx.x++) {
                engine_check(engine);
                memset(shared, 0, shared_bytes);
                launch->kernel->run_block(&block, launch->params);
            }
        }
    }
    uint64_t took = now_ns() - start;
    if (took < MINIMUM_NS)
        engine_pass(engine, MINIMUM_NS - took);
}
