// The entry points that build and inspect graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/graph.h"
#include "simgpu/driver/handle.h"

CUresult cuGraphCreate(CUgraph *out, unsigned flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || flags)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = graph_new();
    return api_leave(*out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuGraphDestroy(CUgraph graph)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(graph, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    graph_free(graph);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphClone(CUgraph *out, CUgraph graph)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(graph, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = graph_clone(graph);
    return api_leave(*out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode original, CUgraph clone)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(clone, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUgraphNode_st *node = clone->first;
    while (node && node->original != original)
        node = node->next;
    if (node)
        *out = node;
    return api_leave(node ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, node_describe *describe,
                    const void *params)
{
    struct op op;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !params || !handle_is(graph, HANDLE_GRAPH) || !graph_has_nodes(graph, deps, count))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = describe(params, &op);
    return api_leave(rc ? rc : graph_add(graph, &op, deps, count, out));
}

static CUresult set(CUgraphNode node, CUgraphNodeType type, node_describe *describe, const void *params)
{
    struct op op;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!params || !handle_is(node, HANDLE_NODE) || node->type != type)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = describe(params, &op);
    if (!rc)
        node_set_op(node, &op);
    return api_leave(rc);
}

CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                                 const CUDA_KERNEL_NODE_PARAMS *params)
{
    return add(out, graph, deps, count, node_kernel, params);
}

CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                              const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    return add(out, graph, deps, count, node_kernel_v1, params);
}

CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params)
{
    return set(node, CU_GRAPH_NODE_TYPE_KERNEL, node_kernel, params);
}

CUresult cuGraphKernelNodeSetParams(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    return set(node, CU_GRAPH_NODE_TYPE_KERNEL, node_kernel_v1, params);
}

CUresult cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                              const CUDA_MEMCPY3D *params, CUcontext ctx)
{
    (void)ctx; // every context reaches all memory
    return add(out, graph, deps, count, node_copy, params);
}

CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *params)
{
    return set(node, CU_GRAPH_NODE_TYPE_MEMCPY, node_copy, params);
}

CUresult cuGraphAddMemsetNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                              const CUDA_MEMSET_NODE_PARAMS *params, CUcontext ctx)
{
    (void)ctx;
    return add(out, graph, deps, count, node_fill, params);
}

CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params)
{
    return set(node, CU_GRAPH_NODE_TYPE_MEMSET, node_fill, params);
}

CUresult cuGraphAddHostNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                            const CUDA_HOST_NODE_PARAMS *params)
{
    return add(out, graph, deps, count, node_host, params);
}

CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params)
{
    return set(node, CU_GRAPH_NODE_TYPE_HOST, node_host, params);
}

CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count)
{
    return add(out, graph, deps, count, node_nothing, graph);
}

CUresult cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event)
{
    return add(out, graph, deps, count, node_event_record, &event);
}

CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event)
{
    return set(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, node_event_record, &event);
}

CUresult cuGraphAddEventWaitNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event)
{
    return add(out, graph, deps, count, node_event_wait, &event);
}

CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event)
{
    return set(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, node_event_wait, &event);
}

CUresult cuGraphAddBatchMemOpNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                                  const CUDA_BATCH_MEM_OP_NODE_PARAMS *params)
{
    return add(out, graph, deps, count, node_memory_ops, params);
}

CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraph child)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(graph, HANDLE_GRAPH) || !handle_is(child, HANDLE_GRAPH) || !graph_has_nodes(graph, deps, count))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(graph_add_child(graph, child, deps, count, out));
}

// Nothing changes a condition after the launch, since kernels here know no handles: a handle is the value at the launch, and odd.
CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *out, CUgraph graph, CUcontext context, unsigned value,
                                        unsigned flags)
{
    CUresult rc = api_enter();

    (void)context;
    if (rc)
        return rc;
    if (!out || !handle_is(graph, HANDLE_GRAPH) || flags & ~(unsigned)CU_GRAPH_COND_ASSIGN_DEFAULT)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = (flags & CU_GRAPH_COND_ASSIGN_DEFAULT ? (CUgraphConditionalHandle)value << 1 : 0) | 1;
    return api_leave(CUDA_SUCCESS);
}

static CUresult add_conditional(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                                CUDA_CONDITIONAL_NODE_PARAMS *params)
{
    struct CUgraph_st *body = NULL;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(graph, HANDLE_GRAPH) || !graph_has_nodes(graph, deps, count) || !(params->handle & 1))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (params->type != CU_GRAPH_COND_TYPE_IF || params->size != 1)
        return api_leave(CUDA_ERROR_NOT_SUPPORTED);
    body = graph_new();
    rc = body ? graph_add_child(graph, body, deps, count, out) : CUDA_ERROR_OUT_OF_MEMORY;
    if (body)
        graph_free(body);
    if (!rc) {
        (*out)->type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
        (*out)->never = params->handle == 1;
        params->phGraph_out = &(*out)->child;
    }
    return api_leave(rc);
}

CUresult cuGraphAddNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, const CUgraphEdgeData *edges, size_t count,
                           CUgraphNodeParams *params)
{
    node_describe *describe;
    const void *inner;

    (void)edges; // all dependencies are full ones here
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    if (params->type == CU_GRAPH_NODE_TYPE_GRAPH)
        return cuGraphAddChildGraphNode(out, graph, deps, count, params->graph.graph);
    if (params->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
        return add_conditional(out, graph, deps, count, &params->conditional);
    CUresult rc = node_params(params, &describe, &inner);
    return rc ? rc : add(out, graph, deps, count, describe, inner);
}

CUresult cuGraphAddNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraphNodeParams *params)
{
    return cuGraphAddNode_v2(out, graph, deps, NULL, count, params);
}

CUresult cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *params)
{
    node_describe *describe;
    const void *inner;

    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = node_params(params, &describe, &inner);
    return rc ? rc : set(node, params->type, describe, inner);
}

CUresult cuGraphDestroyNode(CUgraphNode node)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(node, HANDLE_NODE))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    graph_remove(node);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!type || !handle_is(node, HANDLE_NODE))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *type = node->type;
    return api_leave(CUDA_SUCCESS);
}

static bool is_kernel_node(CUgraphNode node)
{
    return handle_is(node, HANDLE_NODE) && node->type == CU_GRAPH_NODE_TYPE_KERNEL;
}

// Launch attributes make no difference to how a kernel runs here; all are accepted, and its priority is kept.
CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, CUkernelNodeAttrID attribute, const CUkernelNodeAttrValue *value)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!value || !is_kernel_node(node))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (attribute == CU_KERNEL_NODE_ATTRIBUTE_PRIORITY)
        node->op.priority = stream_clamp_priority(value->priority);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphKernelNodeGetAttribute(CUgraphNode node, CUkernelNodeAttrID attribute, CUkernelNodeAttrValue *value)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!value || !is_kernel_node(node))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *value = (CUkernelNodeAttrValue){0};
    if (attribute == CU_KERNEL_NODE_ATTRIBUTE_PRIORITY)
        value->priority = node->op.priority;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!is_kernel_node(dst) || !is_kernel_node(src))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    dst->op.priority = src->op.priority;
    return api_leave(CUDA_SUCCESS);
}
