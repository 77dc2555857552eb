// Nodes and edges of graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/graph.h"

#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/handle.h"

static uint64_t last_visit;

struct CUgraph_st *graph_new(void)
{
    struct CUgraph_st *graph = calloc(1, sizeof *graph);

    if (!graph || !handle_add(graph, HANDLE_GRAPH)) {
        free(graph);
        return NULL;
    }
    return graph;
}

static void free_node(struct CUgraphNode_st *node)
{
    handle_remove(node);
    op_release(&node->op);
    if (node->child)
        graph_free(node->child);
    free(node->deps);
    free(node);
}

void graph_free(struct CUgraph_st *graph)
{
    for (struct CUgraphNode_st *node = graph->first, *next; node; node = next) {
        next = node->next;
        free_node(node);
    }
    handle_remove(graph);
    free(graph);
}

static CUgraphNodeType type_of(enum op_kind kind)
{
    switch (kind) {
    case OP_KERNEL:
        return CU_GRAPH_NODE_TYPE_KERNEL;
    case OP_COPY:
        return CU_GRAPH_NODE_TYPE_MEMCPY;
    case OP_FILL:
        return CU_GRAPH_NODE_TYPE_MEMSET;
    case OP_HOST:
        return CU_GRAPH_NODE_TYPE_HOST;
    case OP_EVENT_RECORD:
        return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    case OP_EVENT_WAIT:
        return CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    case OP_GRAPH_ALLOC:
        return CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    case OP_GRAPH_FREE:
        return CU_GRAPH_NODE_TYPE_MEM_FREE;
    case OP_WRITE_VALUE:
    case OP_WAIT_VALUE:
        return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
    default:
        return CU_GRAPH_NODE_TYPE_EMPTY;
    }
}

CUresult graph_add(struct CUgraph_st *graph, const struct op *op, const CUgraphNode *deps, size_t dep_count, CUgraphNode *out)
{
    struct CUgraphNode_st *node = calloc(1, sizeof *node);
    CUgraphNode *copied = malloc((dep_count ? dep_count : 1) * sizeof *copied);

    if (!node || !copied || !handle_add(node, HANDLE_NODE)) {
        free(node);
        free(copied);
        op_release(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (dep_count)
        memcpy(copied, deps, dep_count * sizeof *copied);
    *node =
        (struct CUgraphNode_st){.graph = graph, .type = type_of(op->kind), .op = *op, .deps = copied, .dep_count = dep_count};
    if (graph->last)
        graph->last->next = node;
    else
        graph->first = node;
    graph->last = node;
    *out = node;
    return CUDA_SUCCESS;
}

CUresult graph_add_child(struct CUgraph_st *graph, const struct CUgraph_st *child, const CUgraphNode *deps, size_t dep_count,
                         CUgraphNode *out)
{
    struct op nothing = {.kind = OP_NOTHING};
    struct CUgraph_st *copy = graph_clone(child);

    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = graph_add(graph, &nothing, deps, dep_count, out);
    if (rc) {
        graph_free(copy);
        return rc;
    }
    (*out)->type = CU_GRAPH_NODE_TYPE_GRAPH;
    (*out)->child = copy;
    return CUDA_SUCCESS;
}

void graph_remove(struct CUgraphNode_st *node)
{
    struct CUgraph_st *graph = node->graph;
    struct CUgraphNode_st *previous = NULL;

    for (struct CUgraphNode_st *other = graph->first; other; other = other->next) {
        size_t kept = 0;
        for (size_t i = 0; i < other->dep_count; i++)
            if (other->deps[i] != node)
                other->deps[kept++] = other->deps[i];
        other->dep_count = kept;
        if (other->next == node)
            previous = other;
    }
    if (previous)
        previous->next = node->next;
    else
        graph->first = node->next;
    if (graph->last == node)
        graph->last = previous;
    free_node(node);
}

static struct CUgraphNode_st *copy_of(const struct CUgraph_st *graph, const struct CUgraphNode_st *original)
{
    struct CUgraphNode_st *node = graph->first;
    while (node && node->original != original)
        node = node->next;
    return node;
}

struct CUgraph_st *graph_clone(const struct CUgraph_st *graph)
{
    struct CUgraph_st *clone = graph_new();
    struct CUgraphNode_st *copy;

    if (!clone)
        return NULL;
    for (struct CUgraphNode_st *node = graph->first; node; node = node->next) {
        op_retain(&node->op);
        if (graph_add(clone, &node->op, node->deps, node->dep_count, &copy))
            goto failed;
        copy->original = node;
        copy->type = node->type;
        copy->never = node->never;
        copy->child = node->child ? graph_clone(node->child) : NULL;
        if (node->child && !copy->child)
            goto failed;
    }
    // The edges can only be turned over to the copies when all of these exist.
    for (copy = clone->first; copy; copy = copy->next)
        for (size_t i = 0; i < copy->dep_count; i++)
            copy->deps[i] = copy_of(clone, copy->deps[i]);
    return clone;
failed:
    graph_free(clone);
    return NULL;
}

bool graph_has_nodes(const struct CUgraph_st *graph, const CUgraphNode *nodes, size_t count)
{
    if (count && !nodes)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!handle_is(nodes[i], HANDLE_NODE) || nodes[i]->graph != graph)
            return false;
    return true;
}

// Marks a node and everything before it. Depth-first with the program's own stack: graphs are rarely deep, but a captured chain
// of launches is, so the single-dependency case is a loop.
static void mark_before(struct CUgraphNode_st *node, uint64_t visit)
{
    while (node->visited != visit) {
        node->visited = visit;
        if (!node->dep_count)
            return;
        for (size_t i = 1; i < node->dep_count; i++)
            mark_before(node->deps[i], visit);
        node = node->deps[0];
    }
}

bool graph_leads_to(const CUgraphNode *from, size_t from_count, const CUgraphNode *to, size_t to_count)
{
    uint64_t visit = ++last_visit;

    for (size_t i = 0; i < to_count; i++)
        mark_before(to[i], visit);
    for (size_t i = 0; i < from_count; i++)
        if (from[i]->visited != visit)
            return false;
    return true;
}

CUresult graph_add_edge(CUgraphNode from, CUgraphNode to)
{
    for (size_t i = 0; i < to->dep_count; i++)
        if (to->deps[i] == from)
            return CUDA_ERROR_INVALID_VALUE;
    if (graph_leads_to(&to, 1, &from, 1))
        return CUDA_ERROR_INVALID_VALUE;
    CUgraphNode *deps = realloc(to->deps, (to->dep_count + 1) * sizeof *deps);
    if (!deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    deps[to->dep_count++] = from;
    to->deps = deps;
    return CUDA_SUCCESS;
}

void node_set_op(struct CUgraphNode_st *node, const struct op *op)
{
    op_release(&node->op);
    node->op = *op;
}
