// Green contexts: handles of their own for the primary context, which they retain; multiprocessors are not divided.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <string.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/stream.h"

// What the program sees of a description of resources: which device they are of.
struct CUdevResourceDesc_st {
    struct device *device;
};

struct CUgreenCtx_st {
    struct device *device;
    struct CUctx_st *context; // what cuCtxFromGreenCtx gives; never freed, as other contexts
};

// Per device, as descriptions are never destroyed.
static struct CUdevResourceDesc_st descriptions[16];

CUresult cuDeviceGetDevResource(CUdevice dev, CUdevResource *out, CUdevResourceType type)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!out || !device)
        return api_leave(out ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE);
    if (type != CU_DEV_RESOURCE_TYPE_SM)
        return api_leave(CUDA_ERROR_INVALID_RESOURCE_TYPE);
    memset(out, 0, sizeof *out);
    out->type = type;
    out->sm.smCount = DEVICE_SM_COUNT;
    memcpy(out->_internal_padding, &device->index, sizeof device->index);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *out, CUdevResource *resources, unsigned count)
{
    uint32_t index;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !resources || !count)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    memcpy(&index, resources->_internal_padding, sizeof index);
    struct device *device = device_get((CUdevice)index);
    if (!device || resources->type != CU_DEV_RESOURCE_TYPE_SM)
        return api_leave(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION);
    descriptions[index].device = device;
    *out = &descriptions[index];
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGreenCtxCreate(CUgreenCtx *out, CUdevResourceDesc description, CUdevice dev, unsigned flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!out || !device || flags != CU_GREEN_CTX_DEFAULT_STREAM || !description || description->device != device)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = context_activate(device->primary, device->primary->flags);
    if (rc)
        return api_leave(rc);
    struct CUgreenCtx_st *green = malloc(sizeof *green);
    struct CUctx_st *context = context_new(device, false);
    if (!green || !context || !handle_add(green, HANDLE_GREEN) || !handle_add(context, HANDLE_CONTEXT)) {
        handle_remove(green);
        free(green);
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    context->base = device->primary;
    context->live = true;
    *green = (struct CUgreenCtx_st){.device = device, .context = context};
    device->primary->retained++;
    *out = green;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(green, HANDLE_GREEN))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    struct CUctx_st *primary = green->device->primary;
    green->context->live = false;
    handle_remove(green->context);
    handle_remove(green);
    free(green);
    if (primary->retained && --primary->retained == 0)
        context_shut_down(primary);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGreenCtxStreamCreate(CUstream *out, CUgreenCtx green, unsigned flags, int priority)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    // Such a stream never synchronises with the legacy stream, and must say so.
    if (!out || !handle_is(green, HANDLE_GREEN) || flags != CU_STREAM_NON_BLOCKING)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = stream_new(green->device->primary, flags, priority);
    if (*out)
        (*out)->green = green->context;
    return api_leave(*out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuCtxFromGreenCtx(CUcontext *out, CUgreenCtx green)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(green, HANDLE_GREEN))
        return api_leave(out ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE);
    *out = green->context;
    return api_leave(CUDA_SUCCESS);
}
