// Between the driver's descriptions of graph nodes and our operations.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/copy.h"
#include "simgpu/driver/event.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/launch.h"
#include "simgpu/driver/value.h"

CUresult node_kernel(const void *params, struct op *op)
{
    const CUDA_KERNEL_NODE_PARAMS_v2 *p = params;

    *op = (struct op){.kind = OP_KERNEL};
    return launch_new(p->func ? p->func : (CUfunction)(void *)p->kern,
                      (struct simgpu_dim3){p->gridDimX, p->gridDimY, p->gridDimZ},
                      (struct simgpu_dim3){p->blockDimX, p->blockDimY, p->blockDimZ}, p->sharedMemBytes, p->kernelParams,
                      p->extra, &op->launch);
}

CUresult node_kernel_v1(const void *params, struct op *op)
{
    const CUDA_KERNEL_NODE_PARAMS_v1 *p = params;
    CUDA_KERNEL_NODE_PARAMS_v2 wider = {
        .func = p->func,
        .gridDimX = p->gridDimX,
        .gridDimY = p->gridDimY,
        .gridDimZ = p->gridDimZ,
        .blockDimX = p->blockDimX,
        .blockDimY = p->blockDimY,
        .blockDimZ = p->blockDimZ,
        .sharedMemBytes = p->sharedMemBytes,
        .kernelParams = p->kernelParams,
        .extra = p->extra,
    };
    return node_kernel(&wider, op);
}

CUresult node_copy(const void *params, struct op *op)
{
    *op = (struct op){.kind = OP_COPY};
    return copy_from_3d(params, &op->copy);
}

CUresult node_fill(const void *params, struct op *op)
{
    const CUDA_MEMSET_NODE_PARAMS *p = params;

    *op = (struct op){.kind = OP_FILL};
    if (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4)
        return CUDA_ERROR_INVALID_VALUE;
    return fill_describe(p->dst, p->pitch, p->value, p->elementSize, p->width, p->height, &op->fill);
}

CUresult node_host(const void *params, struct op *op)
{
    const CUDA_HOST_NODE_PARAMS *p = params;

    *op = (struct op){.kind = OP_HOST, .host = {.function = p->fn, .data = p->userData}};
    return p->fn ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult event_node(const void *params, enum op_kind kind, struct op *op)
{
    CUevent event = *(const CUevent *)params;

    *op = (struct op){.kind = kind, .event = event};
    if (!handle_is(event, HANDLE_EVENT))
        return CUDA_ERROR_INVALID_VALUE;
    op_retain(op);
    return CUDA_SUCCESS;
}

CUresult node_event_record(const void *params, struct op *op)
{
    return event_node(params, OP_EVENT_RECORD, op);
}

CUresult node_event_wait(const void *params, struct op *op)
{
    return event_node(params, OP_EVENT_WAIT, op);
}

CUresult node_nothing(const void *params, struct op *op)
{
    (void)params;
    *op = (struct op){.kind = OP_NOTHING};
    return CUDA_SUCCESS;
}

// A node of one operation is what capturing makes; longer batches would need a node of several.
CUresult node_memory_ops(const void *params, struct op *op)
{
    const CUDA_BATCH_MEM_OP_NODE_PARAMS *p = params;

    if (p->count != 1 || !p->paramArray)
        return p->count ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    return value_describe(&p->paramArray[0], op);
}

CUresult node_params(const CUgraphNodeParams *all, node_describe **describe, const void **params)
{
    switch (all->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        *describe = node_kernel;
        *params = &all->kernel;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        *describe = node_copy;
        *params = &all->memcpy.copyParams;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEMSET:
        *describe = node_fill;
        *params = &all->memset;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_HOST:
        *describe = node_host;
        *params = &all->host;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EMPTY:
        *describe = node_nothing;
        *params = all;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        *describe = node_event_wait;
        *params = &all->eventWait;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        *describe = node_event_record;
        *params = &all->eventRecord;
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        *describe = node_memory_ops;
        *params = &all->memOp;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

// The node, if it is one of the given type.
static CUresult check(CUgraphNode node, CUgraphNodeType type, const void *out)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(node, HANDLE_NODE) || node->type != type)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return CUDA_SUCCESS;
}

CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_KERNEL, out);

    if (rc)
        return rc;
    const struct launch *launch = node->op.launch;
    bool kernel = handle_is(launch->function, HANDLE_KERNEL);
    *out = (CUDA_KERNEL_NODE_PARAMS){
        .func = kernel ? NULL : launch->function,
        .kern = kernel ? (CUkernel)(void *)launch->function : NULL,
        .gridDimX = launch->grid.x,
        .gridDimY = launch->grid.y,
        .gridDimZ = launch->grid.z,
        .blockDimX = launch->block.x,
        .blockDimY = launch->block.y,
        .blockDimZ = launch->block.z,
        .sharedMemBytes = launch->dynamic_shared_bytes,
        .kernelParams = launch->params,
    };
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *out)
{
    CUDA_KERNEL_NODE_PARAMS wider;
    CUresult rc = out ? cuGraphKernelNodeGetParams_v2(node, &wider) : CUDA_ERROR_INVALID_VALUE;

    if (!rc)
        *out = (CUDA_KERNEL_NODE_PARAMS_v1){wider.func,         wider.gridDimX,
                                            wider.gridDimY,     wider.gridDimZ,
                                            wider.blockDimX,    wider.blockDimY,
                                            wider.blockDimZ,    wider.sharedMemBytes,
                                            wider.kernelParams, NULL};
    return rc;
}

CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_MEMCPY, out);

    if (rc)
        return rc;
    const struct copy *copy = &node->op.copy;
    *out = (CUDA_MEMCPY3D){
        .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
        .srcDevice = (CUdeviceptr)(uintptr_t)copy->src,
        .srcPitch = copy->src_pitch,
        .srcHeight = copy->src_pitch ? copy->src_slice / copy->src_pitch : 0,
        .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
        .dstDevice = (CUdeviceptr)(uintptr_t)copy->dst,
        .dstPitch = copy->dst_pitch,
        .dstHeight = copy->dst_pitch ? copy->dst_slice / copy->dst_pitch : 0,
        .WidthInBytes = copy->width,
        .Height = copy->height,
        .Depth = copy->depth,
    };
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_MEMSET, out);

    if (rc)
        return rc;
    const struct fill *fill = &node->op.fill;
    *out = (CUDA_MEMSET_NODE_PARAMS){.dst = (CUdeviceptr)(uintptr_t)fill->dst,
                                     .pitch = fill->pitch,
                                     .value = fill->value,
                                     .elementSize = fill->element_bytes,
                                     .width = fill->width,
                                     .height = fill->height};
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_HOST, out);

    if (rc)
        return rc;
    *out = (CUDA_HOST_NODE_PARAMS){.fn = node->op.host.function, .userData = node->op.host.data};
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode node, CUevent *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, out);

    if (rc)
        return rc;
    *out = node->op.event;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode node, CUevent *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, out);

    if (rc)
        return rc;
    *out = node->op.event;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *out)
{
    CUresult rc = check(node, CU_GRAPH_NODE_TYPE_GRAPH, out);

    if (rc)
        return rc;
    *out = node->child;
    return api_leave(CUDA_SUCCESS);
}
