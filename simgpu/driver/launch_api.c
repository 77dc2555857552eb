// The entry points that launch kernels.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/context.h"
#include "simgpu/driver/launch.h"
#include "simgpu/driver/module.h"
#include "simgpu/driver/stream.h"

// All blocks must fit on the device at once.
static CUresult check_cooperative(CUfunction function, struct simgpu_dim3 grid, struct simgpu_dim3 block, unsigned shared_bytes)
{
    int per_sm;
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, threads = (uint64_t)block.x * block.y * block.z;

    if (!threads || threads > DEVICE_MAX_THREADS_PER_BLOCK)
        return CUDA_SUCCESS; // the launch itself is refused for it
    CUresult rc = cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, function, (int)threads, shared_bytes);
    return !rc && blocks > (uint64_t)per_sm * DEVICE_SM_COUNT ? CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE : rc;
}

static CUresult cuLaunchKernelEx_any(bool per_thread, const CUlaunchConfig *config, CUfunction function, void **params,
                                     void **extra)
{
    struct CUctx_st *current;
    struct CUstream_st *stream;
    struct op op = {.kind = OP_KERNEL};
    bool cooperative = false;

    if (!config || (config->numAttrs && !config->attrs))
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    struct simgpu_dim3 grid = {config->gridDimX, config->gridDimY, config->gridDimZ};
    struct simgpu_dim3 block = {config->blockDimX, config->blockDimY, config->blockDimZ};
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            cooperative = config->attrs[i].value.cooperative != 0;
    if (cooperative) {
        CUresult rc = check_cooperative(function, grid, block, config->sharedMemBytes);
        if (rc)
            return rc;
    }
    CUresult rc = api_enter();
    if (rc)
        return rc;
    // A stream brings its context along, unless another one is current.
    rc = stream_resolve(per_thread, config->hStream, &stream);
    if (!rc && context_current(&current) == CUDA_SUCCESS && current != stream->ctx)
        rc = CUDA_ERROR_INVALID_HANDLE;
    if (!rc)
        rc = launch_new(function, grid, block, config->sharedMemBytes, params, extra, &op.launch);
    if (!rc && !stream->capture &&
        ((rc = function_load(stream->ctx, function)) || (rc = context_grow_for_launch(stream->ctx, op.launch->kernel))))
        launch_release(op.launch);
    if (rc)
        return api_leave(rc);
    op.priority = stream->priority;
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
            op.priority = stream_clamp_priority(config->attrs[i].value.priority);
    return api_leave(stream_submit_bounded(stream, &op));
}

static CUresult cuLaunchKernel_any(bool per_thread, CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                                   void **params, void **extra)
{
    CUlaunchConfig config = {.gridDimX = grid_x,
                             .gridDimY = grid_y,
                             .gridDimZ = grid_z,
                             .blockDimX = block_x,
                             .blockDimY = block_y,
                             .blockDimZ = block_z,
                             .sharedMemBytes = shared_bytes,
                             .hStream = stream};
    return cuLaunchKernelEx_any(per_thread, &config, function, params, extra);
}

static CUresult cuLaunchCooperativeKernel_any(bool per_thread, CUfunction function, unsigned grid_x, unsigned grid_y,
                                              unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                                              unsigned shared_bytes, CUstream stream, void **params)
{
    CUresult rc = check_cooperative(function, (struct simgpu_dim3){grid_x, grid_y, grid_z},
                                    (struct simgpu_dim3){block_x, block_y, block_z}, shared_bytes);
    return rc ? rc
              : cuLaunchKernel_any(per_thread, function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes,
                                   stream, params, NULL);
}

TWIN_API(cuLaunchKernel, _ptsz,
         (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
          unsigned block_z, unsigned shared_bytes, CUstream stream, void **params, void **extra),
         function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, params, extra)
TWIN_API(cuLaunchCooperativeKernel, _ptsz,
         (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
          unsigned block_z, unsigned shared_bytes, CUstream stream, void **params),
         function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, params)
TWIN_API(cuLaunchKernelEx, _ptsz, (const CUlaunchConfig *config, CUfunction function, void **params, void **extra), config,
         function, params, extra)

// The grids run one after the other, since there is nothing by which they could wait for each other.
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned count, unsigned flags)
{
    CUcontext contexts[16], popped;

    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!launches || !count || count > sizeof contexts / sizeof contexts[0] ||
        flags & ~(unsigned)(CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC |
                            CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (!launches[i].hStream)
            return CUDA_ERROR_INVALID_VALUE;
        CUresult rc = cuStreamGetCtx(launches[i].hStream, &contexts[i]);
        if (rc)
            return rc;
        for (unsigned j = 0; j < i; j++)
            if (contexts[j]->device == contexts[i]->device)
                return CUDA_ERROR_INVALID_DEVICE;
    }
    for (unsigned i = 0; i < count; i++) {
        const CUDA_LAUNCH_PARAMS *p = &launches[i];
        CUresult rc = cuCtxPushCurrent_v2(contexts[i]);
        if (rc)
            return rc;
        rc = cuLaunchCooperativeKernel_any(false, p->function, p->gridDimX, p->gridDimY, p->gridDimZ, p->blockDimX,
                                           p->blockDimY, p->blockDimZ, p->sharedMemBytes, p->hStream, p->kernelParams);
        cuCtxPopCurrent_v2(&popped);
        if (rc)
            return rc;
    }
    return CUDA_SUCCESS;
}
