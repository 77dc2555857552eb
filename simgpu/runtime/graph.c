// Graphs and their nodes.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/copy.h"
#include "simgpu/runtime/graph.h"

cudaError_t graph_kernel_params(const struct cudaKernelNodeParams *params, CUDA_KERNEL_NODE_PARAMS_v2 *out)
{
    cudaKernel_t kernel;
    cudaError_t error = params ? registry_kernel(params->func, &kernel) : cudaErrorInvalidValue;

    if (!error)
        *out = (CUDA_KERNEL_NODE_PARAMS_v2){.gridDimX = params->gridDim.x,
                                            .gridDimY = params->gridDim.y,
                                            .gridDimZ = params->gridDim.z,
                                            .blockDimX = params->blockDim.x,
                                            .blockDimY = params->blockDim.y,
                                            .blockDimZ = params->blockDim.z,
                                            .sharedMemBytes = params->sharedMemBytes,
                                            .kernelParams = params->kernelParams,
                                            .extra = params->extra,
                                            .kern = (CUkernel)kernel};
    return error;
}

CUDA_MEMSET_NODE_PARAMS graph_memset_params(const struct cudaMemsetParams *params)
{
    return (CUDA_MEMSET_NODE_PARAMS){.dst = (CUdeviceptr)params->dst,
                                     .pitch = params->pitch,
                                     .value = params->value,
                                     .elementSize = params->elementSize,
                                     .width = params->width,
                                     .height = params->height};
}

cudaError_t cudaGraphCreate(cudaGraph_t *graph, unsigned flags)
{
    return DRIVER(LEGACY, cuGraphCreate, graph, flags);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return DRIVER(LEGACY, cuGraphDestroy, graph);
}

cudaError_t cudaGraphClone(cudaGraph_t *clone, cudaGraph_t graph)
{
    return DRIVER(LEGACY, cuGraphClone, clone, graph);
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                   const struct cudaKernelNodeParams *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 driver_params;
    cudaError_t error = graph_kernel_params(params, &driver_params);
    return error ? runtime_leave(error) : DRIVER(LEGACY, cuGraphAddKernelNode, node, graph, before, count, &driver_params);
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, const struct cudaKernelNodeParams *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 driver_params;
    cudaError_t error = graph_kernel_params(params, &driver_params);
    return error ? runtime_leave(error) : DRIVER(LEGACY, cuGraphKernelNodeSetParams, node, &driver_params);
}

static cudaError_t add_copy(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                            const struct cudaMemcpy3DParms *params)
{
    CUDA_MEMCPY3D copy;
    CUcontext context = NULL;
    cudaError_t error = runtime_enter();

    if (!error)
        error = copy_volume(params, &copy);
    if (!error)
        error = (cudaError_t)LEGACY->cuCtxGetCurrent(&context);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuGraphAddMemcpyNode(node, graph, before, count, &copy, context));
}

cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                   const struct cudaMemcpy3DParms *params)
{
    return add_copy(node, graph, before, count, params);
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                     void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    struct cudaMemcpy3DParms params = copy_line(dst, src, bytes, kind);
    return add_copy(node, graph, before, count, &params);
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                   const struct cudaMemsetParams *params)
{
    CUcontext context = NULL;
    cudaError_t error = params ? runtime_enter() : cudaErrorInvalidValue;

    if (!error)
        error = (cudaError_t)LEGACY->cuCtxGetCurrent(&context);
    if (error)
        return runtime_leave(error);
    CUDA_MEMSET_NODE_PARAMS driver_params = graph_memset_params(params);
    return runtime_leave((cudaError_t)LEGACY->cuGraphAddMemsetNode(node, graph, before, count, &driver_params, context));
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                 const struct cudaHostNodeParams *params)
{
    if (!params)
        return runtime_leave(cudaErrorInvalidValue);
    CUDA_HOST_NODE_PARAMS driver_params = {.fn = params->fn, .userData = params->userData};
    return DRIVER(LEGACY, cuGraphAddHostNode, node, graph, before, count, &driver_params);
}

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count)
{
    return DRIVER(LEGACY, cuGraphAddEmptyNode, node, graph, before, count);
}

cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                       cudaGraph_t child)
{
    return DRIVER(LEGACY, cuGraphAddChildGraphNode, node, graph, before, count, child);
}

cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t node, cudaGraph_t *child)
{
    return DRIVER(LEGACY, cuGraphChildGraphNodeGetGraph, node, child);
}

cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                        cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphAddEventRecordNode, node, graph, before, count, event);
}

cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                      cudaEvent_t event)
{
    return DRIVER(LEGACY, cuGraphAddEventWaitNode, node, graph, before, count, event);
}

_Static_assert(sizeof(struct cudaMemAllocNodeParams) == sizeof(CUDA_MEM_ALLOC_NODE_PARAMS),
               "the driver fills in the program's own");

cudaError_t cudaGraphAddMemAllocNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                     struct cudaMemAllocNodeParams *params)
{
    return DRIVER(LEGACY, cuGraphAddMemAllocNode, node, graph, before, count, (CUDA_MEM_ALLOC_NODE_PARAMS *)params);
}

cudaError_t cudaGraphMemAllocNodeGetParams(cudaGraphNode_t node, struct cudaMemAllocNodeParams *params)
{
    return DRIVER(LEGACY, cuGraphMemAllocNodeGetParams, node, (CUDA_MEM_ALLOC_NODE_PARAMS *)params);
}

cudaError_t cudaGraphAddMemFreeNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *before, size_t count,
                                    void *pointer)
{
    return DRIVER(LEGACY, cuGraphAddMemFreeNode, node, graph, before, count, (CUdeviceptr)pointer);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return DRIVER(LEGACY, cuGraphGetNodes, graph, nodes, count);
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return DRIVER(LEGACY, cuGraphGetRootNodes, graph, nodes, count);
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, enum cudaGraphNodeType *type)
{
    return DRIVER(LEGACY, cuGraphNodeGetType, node, (CUgraphNodeType *)type);
}

cudaError_t cudaGraphDestroyNode(cudaGraphNode_t node)
{
    return DRIVER(LEGACY, cuGraphDestroyNode, node);
}

#if CUDART_VERSION >= 13000
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, const cudaGraphNode_t *from, const cudaGraphNode_t *to,
                                     const cudaGraphEdgeData *edges, size_t count)
{
    return DRIVER(LEGACY, cuGraphAddDependencies, graph, from, to, (const CUgraphEdgeData *)edges, count);
}

cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, const cudaGraphNode_t *from, const cudaGraphNode_t *to,
                                        const cudaGraphEdgeData *edges, size_t count)
{
    return DRIVER(LEGACY, cuGraphRemoveDependencies, graph, from, to, (const CUgraphEdgeData *)edges, count);
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t *from, cudaGraphNode_t *to, cudaGraphEdgeData *edges,
                              size_t *count)
{
    return DRIVER(LEGACY, cuGraphGetEdges, graph, from, to, (CUgraphEdgeData *)edges, count);
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t *nodes, cudaGraphEdgeData *edges, size_t *count)
{
    return DRIVER(LEGACY, cuGraphNodeGetDependencies, node, nodes, (CUgraphEdgeData *)edges, count);
}

cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t node, cudaGraphNode_t *nodes, cudaGraphEdgeData *edges,
                                           size_t *count)
{
    return DRIVER(LEGACY, cuGraphNodeGetDependentNodes, node, nodes, (CUgraphEdgeData *)edges, count);
}
#endif

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char *path, unsigned flags)
{
    return DRIVER(LEGACY, cuGraphDebugDotPrint, graph, path, flags);
}
