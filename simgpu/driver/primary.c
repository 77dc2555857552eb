// The entry points for primary contexts.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/context.h"

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!out || !device)
        return api_leave(out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE);
    // Another thread may be just about to finish destroying it.
    while (device->primary->dying)
        api_wait_progress();
    rc = context_activate(device->primary, device->primary->flags);
    if (!rc) {
        device->primary->retained++;
        *out = device->primary;
    }
    return api_leave(rc);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    if (!device->primary->retained)
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (--device->primary->retained == 0)
        context_shut_down(device->primary);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    device->primary->retained = 0;
    context_shut_down(device->primary);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    if (flags & ~(unsigned)CU_CTX_FLAGS_MASK)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    device->primary->flags = flags;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned *flags, int *active)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device)
        return api_leave(CUDA_ERROR_INVALID_DEVICE);
    if (!flags || !active)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = device->primary->flags;
    *active = device->primary->live && !device->primary->dying;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return cuDevicePrimaryCtxReset_v2(dev);
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}
