// Executable graphs: a topological order of operations, and queueing them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/event.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/graph_memory.h"
#include "simgpu/driver/handle.h"

static size_t count_nodes(const struct CUgraph_st *graph)
{
    size_t count = 0;
    for (struct CUgraphNode_st *node = graph->first; node; node = node->next)
        count += node->child ? count_nodes(node->child) : 1;
    return count;
}

static bool all_placed(const struct CUgraphNode_st *node, uint64_t mark)
{
    for (size_t i = 0; i < node->dep_count; i++)
        if (node->deps[i]->visited != mark)
            return false;
    return true;
}

// Appends the nodes of a graph to the order. Its marks are drawn from another range than those of graph.c, so that neither
// mistakes the other's for its own.
static void place(struct CUgraphExec_st *exec, const struct CUgraph_st *graph)
{
    static uint64_t last_mark = 1ull << 63;
    uint64_t mark = ++last_mark;
    bool progress = true;

    // Nodes mostly come in an order that works already, so that one pass is the rule.
    while (progress) {
        progress = false;
        for (struct CUgraphNode_st *node = graph->first; node; node = node->next) {
            if (node->visited == mark || !all_placed(node, mark))
                continue;
            node->visited = mark;
            progress = true;
            if (node->child && !node->never)
                place(exec, node->child);
            if (node->child)
                continue;
            op_retain(&node->op);
            exec->nodes[exec->count++] = (struct exec_node){.node = node, .type = node->type, .op = node->op};
        }
    }
}

CUresult exec_new(const struct CUgraph_st *graph, uint64_t flags, struct CUgraphExec_st **out)
{
    struct CUgraphExec_st *exec = calloc(1, sizeof *exec);
    struct exec_node *nodes = calloc(count_nodes(graph) + 1, sizeof *nodes);

    if (!exec || !nodes || !handle_add(exec, HANDLE_EXEC)) {
        free(exec);
        free(nodes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    exec->flags = flags;
    exec->nodes = nodes;
    place(exec, graph);
    *out = exec;
    return CUDA_SUCCESS;
}

void exec_free(struct CUgraphExec_st *exec)
{
    for (size_t i = 0; i < exec->count; i++)
        op_release(&exec->nodes[i].op);
    handle_remove(exec);
    free(exec->nodes);
    free(exec);
}

struct exec_node *exec_find(const struct CUgraphExec_st *exec, CUgraphNode node)
{
    for (size_t i = 0; i < exec->count; i++)
        if (exec->nodes[i].node == node)
            return &exec->nodes[i];
    return NULL;
}

static bool allocates(const struct CUgraphExec_st *exec)
{
    for (size_t i = 0; i < exec->count; i++)
        if (exec->nodes[i].op.kind == OP_GRAPH_ALLOC || exec->nodes[i].op.kind == OP_GRAPH_FREE)
            return true;
    return false;
}

CUresult exec_launch(struct CUgraphExec_st *exec, struct CUstream_st *stream)
{
    CUresult rc = CUDA_SUCCESS;

    if (allocates(exec))
        rc = stream->capture ? CUDA_ERROR_NOT_SUPPORTED : graph_memory_back(exec, true);

    for (size_t i = 0; i < exec->count && !rc; i++) {
        const struct exec_node *node = &exec->nodes[i];
        if (node->disabled || node->op.kind == OP_NOTHING || node->op.kind == OP_GRAPH_ALLOC)
            continue;
        if (!stream->capture && node->op.kind == OP_EVENT_RECORD) {
            rc = event_record(node->op.event, stream);
        } else if (!stream->capture && node->op.kind == OP_EVENT_WAIT) {
            rc = event_wait(node->op.event, stream);
        } else {
            op_retain(&node->op);
            rc = stream_submit(stream, &node->op);
        }
    }
    return rc;
}
