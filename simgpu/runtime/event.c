// Events.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return DRIVER(LEGACY, cuEventCreate, event, CU_EVENT_DEFAULT);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    return DRIVER(LEGACY, cuEventCreate, event, flags);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return DRIVER(LEGACY, cuEventDestroy, event);
}

static cudaError_t cudaEventRecord_any(const struct driver *table, cudaEvent_t event, cudaStream_t stream)
{
    return DRIVER(table, cuEventRecord, event, stream);
}
TWIN(cudaEventRecord, _ptsz, (cudaEvent_t event, cudaStream_t stream), event, stream)

static cudaError_t cudaEventRecordWithFlags_any(const struct driver *table, cudaEvent_t event, cudaStream_t stream,
                                                unsigned flags)
{
    return DRIVER(table, cuEventRecordWithFlags, event, stream, flags);
}
TWIN(cudaEventRecordWithFlags, _ptsz, (cudaEvent_t event, cudaStream_t stream, unsigned flags), event, stream, flags)

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return DRIVER(LEGACY, cuEventSynchronize, event);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return DRIVER(LEGACY, cuEventQuery, event);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    return DRIVER(LEGACY, cuEventElapsedTime, ms, start, end);
}

cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t *handle, cudaEvent_t event)
{
    return DRIVER(LEGACY, cuIpcGetEventHandle, (CUipcEventHandle *)handle, event);
}

cudaError_t cudaIpcOpenEventHandle(cudaEvent_t *event, cudaIpcEventHandle_t handle)
{
    CUipcEventHandle driver_handle;
    __builtin_memcpy(&driver_handle, &handle, sizeof driver_handle);
    return DRIVER(LEGACY, cuIpcOpenEventHandle, event, driver_handle);
}
