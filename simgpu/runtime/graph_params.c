// Reading and changing the parameters of graph nodes.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/copy.h"
#include "simgpu/runtime/graph.h"

// A kernel is told to the program as it was named by the program where that is known, and by its handle otherwise.
cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, struct cudaKernelNodeParams *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 driver_params = {0};
    cudaError_t error = params ? DRIVER(LEGACY, cuGraphKernelNodeGetParams, node, &driver_params) : cudaErrorInvalidValue;

    if (error)
        return runtime_leave(error);
    void *kernel = driver_params.kern ? (void *)driver_params.kern : (void *)driver_params.func;
    *params = (struct cudaKernelNodeParams){
        .func = (void *)registry_function((cudaKernel_t)kernel),
        .gridDim = {driver_params.gridDimX, driver_params.gridDimY, driver_params.gridDimZ},
        .blockDim = {driver_params.blockDimX, driver_params.blockDimY, driver_params.blockDimZ},
        .sharedMemBytes = driver_params.sharedMemBytes,
        .kernelParams = driver_params.kernelParams,
        .extra = driver_params.extra,
    };
    return cudaSuccess;
}

cudaError_t cudaGraphKernelNodeCopyAttributes(cudaGraphNode_t from, cudaGraphNode_t to)
{
    return DRIVER(LEGACY, cuGraphKernelNodeCopyAttributes, to, from);
}

cudaError_t cudaGraphKernelNodeGetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID attribute,
                                            cudaLaunchAttributeValue *value)
{
    return DRIVER(LEGACY, cuGraphKernelNodeGetAttribute, node, (CUlaunchAttributeID)attribute, (CUlaunchAttributeValue *)value);
}

cudaError_t cudaGraphKernelNodeSetAttribute(cudaGraphNode_t node, cudaLaunchAttributeID attribute,
                                            const cudaLaunchAttributeValue *value)
{
    return DRIVER(LEGACY, cuGraphKernelNodeSetAttribute, node, (CUlaunchAttributeID)attribute,
                  (const CUlaunchAttributeValue *)value);
}

static cudaError_t set_copy(cudaGraphNode_t node, const struct cudaMemcpy3DParms *params)
{
    CUDA_MEMCPY3D copy;
    cudaError_t error = copy_volume(params, &copy);
    return error ? runtime_leave(error) : DRIVER(LEGACY, cuGraphMemcpyNodeSetParams, node, &copy);
}

static cudaError_t set_exec_copy(cudaGraphExec_t exec, cudaGraphNode_t node, const struct cudaMemcpy3DParms *params)
{
    CUDA_MEMCPY3D copy;
    CUcontext context = NULL;
    cudaError_t error = copy_volume(params, &copy) ?: runtime_enter();

    if (!error)
        error = (cudaError_t)LEGACY->cuCtxGetCurrent(&context);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuGraphExecMemcpyNodeSetParams(exec, node, &copy, context));
}

cudaError_t cudaGraphMemcpyNodeSetParams(cudaGraphNode_t node, const struct cudaMemcpy3DParms *params)
{
    return set_copy(node, params);
}

cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void *dst, const void *src, size_t bytes,
                                           enum cudaMemcpyKind kind)
{
    struct cudaMemcpy3DParms params = copy_line(dst, src, bytes, kind);
    return set_copy(node, &params);
}

cudaError_t cudaGraphExecMemcpyNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, const struct cudaMemcpy3DParms *params)
{
    return set_exec_copy(exec, node, params);
}

cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void *dst, const void *src,
                                               size_t bytes, enum cudaMemcpyKind kind)
{
    struct cudaMemcpy3DParms params = copy_line(dst, src, bytes, kind);
    return set_exec_copy(exec, node, &params);
}

cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t node, struct cudaMemsetParams *params)
{
    CUDA_MEMSET_NODE_PARAMS fill = {0};
    cudaError_t error = params ? DRIVER(LEGACY, cuGraphMemsetNodeGetParams, node, &fill) : runtime_leave(cudaErrorInvalidValue);

    if (!error)
        *params = (struct cudaMemsetParams){.dst = (void *)fill.dst,
                                            .pitch = fill.pitch,
                                            .value = fill.value,
                                            .elementSize = fill.elementSize,
                                            .width = fill.width,
                                            .height = fill.height};
    return error;
}

cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, const struct cudaMemsetParams *params)
{
    if (!params)
        return runtime_leave(cudaErrorInvalidValue);
    CUDA_MEMSET_NODE_PARAMS fill = graph_memset_params(params);
    return DRIVER(LEGACY, cuGraphMemsetNodeSetParams, node, &fill);
}

cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, const struct cudaMemsetParams *params)
{
    CUcontext context = NULL;
    cudaError_t error = params ? runtime_enter() : cudaErrorInvalidValue;

    if (!error)
        error = (cudaError_t)LEGACY->cuCtxGetCurrent(&context);
    if (error)
        return runtime_leave(error);
    CUDA_MEMSET_NODE_PARAMS fill = graph_memset_params(params);
    return runtime_leave((cudaError_t)LEGACY->cuGraphExecMemsetNodeSetParams(exec, node, &fill, context));
}

cudaError_t cudaGraphHostNodeGetParams(cudaGraphNode_t node, struct cudaHostNodeParams *params)
{
    CUDA_HOST_NODE_PARAMS host = {0};
    cudaError_t error = params ? DRIVER(LEGACY, cuGraphHostNodeGetParams, node, &host) : runtime_leave(cudaErrorInvalidValue);

    if (!error)
        *params = (struct cudaHostNodeParams){.fn = host.fn, .userData = host.userData};
    return error;
}

cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, const struct cudaHostNodeParams *params)
{
    if (!params)
        return runtime_leave(cudaErrorInvalidValue);
    CUDA_HOST_NODE_PARAMS host = {.fn = params->fn, .userData = params->userData};
    return DRIVER(LEGACY, cuGraphHostNodeSetParams, node, &host);
}

cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, const struct cudaHostNodeParams *params)
{
    if (!params)
        return runtime_leave(cudaErrorInvalidValue);
    CUDA_HOST_NODE_PARAMS host = {.fn = params->fn, .userData = params->userData};
    return DRIVER(LEGACY, cuGraphExecHostNodeSetParams, exec, node, &host);
}

cudaError_t cudaGraphEventRecordNodeGetEvent(cudaGraphNode_t node, cudaEvent_t *event)
{
    return DRIVER(LEGACY, cuGraphEventRecordNodeGetEvent, node, event);
}

cudaError_t cudaGraphEventRecordNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphEventRecordNodeSetEvent, node, event);
}

cudaError_t cudaGraphExecEventRecordNodeSetEvent(cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphExecEventRecordNodeSetEvent, exec, node, event);
}

cudaError_t cudaGraphEventWaitNodeGetEvent(cudaGraphNode_t node, cudaEvent_t *event)
{
    return DRIVER(LEGACY, cuGraphEventWaitNodeGetEvent, node, event);
}

cudaError_t cudaGraphEventWaitNodeSetEvent(cudaGraphNode_t node, cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphEventWaitNodeSetEvent, node, event);
}

cudaError_t cudaGraphExecEventWaitNodeSetEvent(cudaGraphExec_t exec, cudaGraphNode_t node, cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphExecEventWaitNodeSetEvent, exec, node, event);
}

cudaError_t cudaGraphExecChildGraphNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node, cudaGraph_t child)
{
    return DRIVER(LEGACY, cuGraphExecChildGraphNodeSetParams, exec, node, child);
}

cudaError_t cudaGraphMemFreeNodeGetParams(cudaGraphNode_t node, void *pointer)
{
    return DRIVER(LEGACY, cuGraphMemFreeNodeGetParams, node, (CUdeviceptr *)pointer);
}

cudaError_t cudaGraphNodeFindInClone(cudaGraphNode_t *node, cudaGraphNode_t original, cudaGraph_t clone)
{
    return DRIVER(LEGACY, cuGraphNodeFindInClone, node, original, clone);
}
