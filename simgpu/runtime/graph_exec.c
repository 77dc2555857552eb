// Executable graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/graph.h"

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    return DRIVER(LEGACY, cuGraphInstantiateWithFlags, exec, graph, flags);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    return DRIVER(LEGACY, cuGraphInstantiateWithFlags, exec, graph, flags);
}

_Static_assert(sizeof(cudaGraphInstantiateParams) == sizeof(CUDA_GRAPH_INSTANTIATE_PARAMS),
               "the driver fills in the program's own");

static cudaError_t cudaGraphInstantiateWithParams_any(const struct driver *table, cudaGraphExec_t *exec, cudaGraph_t graph,
                                                      cudaGraphInstantiateParams *params)
{
    return DRIVER(table, cuGraphInstantiateWithParams, exec, graph, (CUDA_GRAPH_INSTANTIATE_PARAMS *)params);
}
TWIN(cudaGraphInstantiateWithParams, _ptsz, (cudaGraphExec_t * exec, cudaGraph_t graph, cudaGraphInstantiateParams *params),
     exec, graph, params)

static cudaError_t cudaGraphLaunch_any(const struct driver *table, cudaGraphExec_t exec, cudaStream_t stream)
{
    return DRIVER(table, cuGraphLaunch, exec, stream);
}
TWIN(cudaGraphLaunch, _ptsz, (cudaGraphExec_t exec, cudaStream_t stream), exec, stream)

static cudaError_t cudaGraphUpload_any(const struct driver *table, cudaGraphExec_t exec, cudaStream_t stream)
{
    return DRIVER(table, cuGraphUpload, exec, stream);
}
TWIN(cudaGraphUpload, _ptsz, (cudaGraphExec_t exec, cudaStream_t stream), exec, stream)

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return DRIVER(LEGACY, cuGraphExecDestroy, exec);
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t exec, unsigned long long *flags)
{
    return DRIVER(LEGACY, cuGraphExecGetFlags, exec, (cuuint64_t *)flags);
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const struct cudaKernelNodeParams *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 driver_params;
    cudaError_t error = graph_kernel_params(params, &driver_params);
    return error ? runtime_leave(error) : DRIVER(LEGACY, cuGraphExecKernelNodeSetParams, exec, node, &driver_params);
}

_Static_assert(sizeof(cudaGraphExecUpdateResultInfo) == sizeof(CUgraphExecUpdateResultInfo),
               "the driver fills in the program's own");

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph, cudaGraphExecUpdateResultInfo *info)
{
    return DRIVER(LEGACY, cuGraphExecUpdate, exec, graph, (CUgraphExecUpdateResultInfo *)info);
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t exec, cudaGraphNode_t node, unsigned enabled)
{
    return DRIVER(LEGACY, cuGraphNodeSetEnabled, exec, node, enabled);
}

cudaError_t cudaGraphNodeGetEnabled(cudaGraphExec_t exec, cudaGraphNode_t node, unsigned *enabled)
{
    return DRIVER(LEGACY, cuGraphNodeGetEnabled, exec, node, enabled);
}

cudaError_t cudaDeviceGraphMemTrim(int device)
{
    return DRIVER(LEGACY, cuDeviceGraphMemTrim, device);
}

cudaError_t cudaDeviceGetGraphMemAttribute(int device, enum cudaGraphMemAttributeType attribute, void *value)
{
    return DRIVER(LEGACY, cuDeviceGetGraphMemAttribute, device, (CUgraphMem_attribute)attribute, value);
}

cudaError_t cudaDeviceSetGraphMemAttribute(int device, enum cudaGraphMemAttributeType attribute, void *value)
{
    return DRIVER(LEGACY, cuDeviceSetGraphMemAttribute, device, (CUgraphMem_attribute)attribute, value);
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t *object, void *pointer, cudaHostFn_t destroy, unsigned references,
                                 unsigned flags)
{
    return DRIVER(LEGACY, cuUserObjectCreate, object, pointer, destroy, references, flags);
}

cudaError_t cudaUserObjectRetain(cudaUserObject_t object, unsigned count)
{
    return DRIVER(LEGACY, cuUserObjectRetain, object, count);
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned count)
{
    return DRIVER(LEGACY, cuUserObjectRelease, object, count);
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned count, unsigned flags)
{
    return DRIVER(LEGACY, cuGraphRetainUserObject, graph, object, count, flags);
}

cudaError_t cudaGraphReleaseUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned count)
{
    return DRIVER(LEGACY, cuGraphReleaseUserObject, graph, object, count);
}
