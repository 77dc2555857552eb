// The entry points for executable graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/context.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/handle.h"

#define INSTANTIATE_FLAGS                                                                                                      \
    (CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |                                    \
     CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY)

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(graph, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (flags & ~(unsigned long long)INSTANTIATE_FLAGS)
        return api_leave(flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH ? CUDA_ERROR_NOT_SUPPORTED
                                                                           : CUDA_ERROR_INVALID_VALUE);
    rc = exec_new(graph, flags, out);
    if (!rc && flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD)
        rc = graph_memory_back(*out, false);
    return api_leave(rc);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes)
{
    if (error_node)
        *error_node = NULL;
    if (log && log_bytes)
        *log = '\0';
    return cuGraphInstantiateWithFlags(out, graph, 0);
}

CUresult cuGraphInstantiate(CUgraphExec *out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes)
{
    return cuGraphInstantiate_v2(out, graph, error_node, log, log_bytes);
}

static CUresult cuGraphInstantiateWithParams_any(bool per_thread, CUgraphExec *out, CUgraph graph,
                                                 CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    (void)per_thread; // an upload is done at once, whatever the stream
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = cuGraphInstantiateWithFlags(out, graph, params->flags);
    params->hErrNode_out = NULL;
    params->result_out = rc ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return rc;
}

TWIN_API(cuGraphInstantiateWithParams, _ptsz, (CUgraphExec * exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params), exec,
         graph, params)

// A launch into a capturing stream becomes part of the captured graph: its operations are captured one by one.
static CUresult cuGraphLaunch_any(bool per_thread, CUgraphExec exec, CUstream handle)
{
    struct CUstream_st *stream;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc)
        rc = stream_wait_room(stream);
    if (!rc && !handle_is(exec, HANDLE_EXEC))
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc ? rc : exec_launch(exec, stream));
}

static CUresult cuGraphUpload_any(bool per_thread, CUgraphExec exec, CUstream handle)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    if (!rc && !handle_is(exec, HANDLE_EXEC))
        rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc ? rc : graph_memory_back(exec, false));
}

TWIN_API(cuGraphLaunch, _ptsz, (CUgraphExec exec, CUstream stream), exec, stream)
TWIN_API(cuGraphUpload, _ptsz, (CUgraphExec exec, CUstream stream), exec, stream)

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(exec, HANDLE_EXEC))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    exec_free(exec);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphExecGetFlags(CUgraphExec exec, cuuint64_t *flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!flags || !handle_is(exec, HANDLE_EXEC))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = exec->flags;
    return api_leave(CUDA_SUCCESS);
}

static CUresult set(CUgraphExec exec, CUgraphNode node, CUgraphNodeType type, node_describe *describe, const void *params)
{
    struct op op;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct exec_node *entry = handle_is(exec, HANDLE_EXEC) ? exec_find(exec, node) : NULL;
    if (!params || !entry || entry->type != type)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = describe(params, &op);
    if (!rc) {
        // Launches that are queued already hold what they need.
        op_release(&entry->op);
        entry->op = op;
    }
    return api_leave(rc);
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params)
{
    return set(exec, node, CU_GRAPH_NODE_TYPE_KERNEL, node_kernel, params);
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    return set(exec, node, CU_GRAPH_NODE_TYPE_KERNEL, node_kernel_v1, params);
}

CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *params, CUcontext ctx)
{
    (void)ctx;
    return set(exec, node, CU_GRAPH_NODE_TYPE_MEMCPY, node_copy, params);
}

CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params,
                                        CUcontext ctx)
{
    (void)ctx;
    return set(exec, node, CU_GRAPH_NODE_TYPE_MEMSET, node_fill, params);
}

CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params)
{
    return set(exec, node, CU_GRAPH_NODE_TYPE_HOST, node_host, params);
}

CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
    return set(exec, node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, node_event_record, &event);
}

CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
    return set(exec, node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, node_event_wait, &event);
}

CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *params)
{
    node_describe *describe;
    const void *inner;

    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult rc = node_params(params, &describe, &inner);
    return rc ? rc : set(exec, node, params->type, describe, inner);
}

CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned enabled)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct exec_node *entry = handle_is(exec, HANDLE_EXEC) ? exec_find(exec, node) : NULL;
    if (!entry || (entry->op.kind != OP_KERNEL && entry->op.kind != OP_COPY && entry->op.kind != OP_FILL))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    entry->disabled = !enabled;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned *enabled)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct exec_node *entry = handle_is(exec, HANDLE_EXEC) ? exec_find(exec, node) : NULL;
    if (!entry || !enabled)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *enabled = !entry->disabled;
    return api_leave(CUDA_SUCCESS);
}

// The update succeeds if the two have the same kinds of nodes in the same order, which is what graphs made by the same code
// have.
CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info)
{
    struct CUgraphExec_st *fresh;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!info || !handle_is(exec, HANDLE_EXEC) || !handle_is(graph, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *info = (CUgraphExecUpdateResultInfo){.result = CU_GRAPH_EXEC_UPDATE_SUCCESS};
    rc = exec_new(graph, exec->flags, &fresh);
    if (rc)
        return api_leave(rc);
    bool same = fresh->count == exec->count;
    for (size_t i = 0; i < exec->count && same; i++) {
        same = fresh->nodes[i].type == exec->nodes[i].type;
        if (!same)
            info->errorNode = fresh->nodes[i].node;
    }
    if (!same) {
        info->result =
            info->errorNode ? CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        exec_free(fresh);
        return api_leave(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    }
    // Only what the nodes do changes; which nodes they are known by stays.
    for (size_t i = 0; i < exec->count; i++) {
        struct op old = exec->nodes[i].op;
        exec->nodes[i].op = fresh->nodes[i].op;
        fresh->nodes[i].op = old;
    }
    exec_free(fresh);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error_node, CUgraphExecUpdateResult *result)
{
    CUgraphExecUpdateResultInfo info = {.result = CU_GRAPH_EXEC_UPDATE_ERROR};
    CUresult rc = cuGraphExecUpdate_v2(exec, graph, &info);

    if (error_node)
        *error_node = info.errorNode;
    if (result)
        *result = info.result;
    return rc;
}
