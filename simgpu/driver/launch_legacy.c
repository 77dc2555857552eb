// Launches as before CUDA 4.0: block shape and parameters are set in the function, one by one.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <string.h>

#include "simgpu/driver/handle.h"
#include "simgpu/driver/launch.h"
#include "simgpu/driver/module.h"

// Takes the lock where the function is one.
static CUresult enter(CUfunction function)
{
    CUresult rc = api_enter();
    if (rc)
        return rc;
    return handle_is(function, HANDLE_FUNCTION) ? CUDA_SUCCESS : api_leave(CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z)
{
    CUresult rc = enter(function);
    if (rc)
        return rc;
    if (x <= 0 || y <= 0 || z <= 0)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    function->shape.block = (struct simgpu_dim3){(unsigned)x, (unsigned)y, (unsigned)z};
    return api_leave(CUDA_SUCCESS);
}

CUresult cuFuncSetSharedSize(CUfunction function, unsigned bytes)
{
    CUresult rc = enter(function);
    if (rc)
        return rc;
    function->shape.shared_bytes = bytes;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuParamSetSize(CUfunction function, unsigned bytes)
{
    CUresult rc = enter(function);
    if (rc)
        return rc;
    if (bytes > sizeof function->shape.params)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    function->shape.param_bytes = bytes;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuParamSetv(CUfunction function, int offset, void *value, unsigned bytes)
{
    CUresult rc = enter(function);
    if (rc)
        return rc;
    const size_t room = sizeof function->shape.params;
    if (!value || offset < 0 || (size_t)offset > room || bytes > room - (size_t)offset)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    memcpy(function->shape.params + offset, value, bytes);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuParamSeti(CUfunction function, int offset, unsigned value)
{
    return cuParamSetv(function, offset, &value, sizeof value);
}

CUresult cuParamSetf(CUfunction function, int offset, float value)
{
    return cuParamSetv(function, offset, &value, sizeof value);
}

CUresult cuLaunchGridAsync(CUfunction function, int width, int height, CUstream stream)
{
    CUresult rc = enter(function);
    if (rc)
        return rc;
    struct function_shape shape = function->shape;
    api_leave(CUDA_SUCCESS);
    size_t bytes = shape.param_bytes;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, shape.params, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    if (width <= 0 || height <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    return cuLaunchKernel(function, (unsigned)width, (unsigned)height, 1, shape.block.x, shape.block.y, shape.block.z,
                          shape.shared_bytes, stream, NULL, extra);
}

CUresult cuLaunchGrid(CUfunction function, int width, int height)
{
    return cuLaunchGridAsync(function, width, height, NULL);
}

CUresult cuLaunch(CUfunction function)
{
    return cuLaunchGridAsync(function, 1, 1, NULL);
}
