// The entry points that list nodes and list, add and remove edges.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <string.h>

#include "simgpu/driver/graph.h"
#include "simgpu/driver/handle.h"

// All lists come out alike: with no array the count is asked for; with one, `*count` is its room, and what lies behind is
// zeroed.
struct list {
    CUgraphNode *first, *second;
    size_t room, count;
};

static void put(struct list *list, CUgraphNode first, CUgraphNode second)
{
    if (list->count < list->room) {
        if (list->first)
            list->first[list->count] = first;
        if (list->second)
            list->second[list->count] = second;
    }
    list->count++;
}

static void finish(struct list *list, CUgraphEdgeData *edges, size_t *count)
{
    bool asked = !list->first && !list->second;

    for (size_t i = list->count; i < list->room; i++) {
        if (list->first)
            list->first[i] = NULL;
        if (list->second)
            list->second[i] = NULL;
    }
    if (edges && !asked)
        memset(edges, 0, (list->count < list->room ? list->count : list->room) * sizeof *edges);
    *count = asked || list->count < list->room ? list->count : list->room;
}

static CUresult list_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count, bool roots_only)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count || !handle_is(graph, HANDLE_GRAPH))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct list list = {.first = nodes, .room = nodes ? *count : 0};
    for (struct CUgraphNode_st *node = graph->first; node; node = node->next)
        if (!roots_only || !node->dep_count)
            put(&list, node, NULL);
    finish(&list, NULL, count);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    return list_nodes(graph, nodes, count, false);
}

CUresult cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    return list_nodes(graph, nodes, count, true);
}

CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edges, size_t *count)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count || !handle_is(graph, HANDLE_GRAPH) || !from != !to)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct list list = {.first = from, .second = to, .room = from ? *count : 0};
    for (struct CUgraphNode_st *node = graph->first; node; node = node->next)
        for (size_t i = 0; i < node->dep_count; i++)
            put(&list, node->deps[i], node);
    finish(&list, edges, count);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
    return cuGraphGetEdges_v2(graph, from, to, NULL, count);
}

CUresult cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *deps, CUgraphEdgeData *edges, size_t *count)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count || !handle_is(node, HANDLE_NODE))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct list list = {.first = deps, .room = deps ? *count : 0};
    for (size_t i = 0; i < node->dep_count; i++)
        put(&list, node->deps[i], NULL);
    finish(&list, edges, count);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *deps, size_t *count)
{
    return cuGraphNodeGetDependencies_v2(node, deps, NULL, count);
}

CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *nodes, CUgraphEdgeData *edges, size_t *count)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count || !handle_is(node, HANDLE_NODE))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct list list = {.first = nodes, .room = nodes ? *count : 0};
    for (struct CUgraphNode_st *other = node->graph->first; other; other = other->next)
        for (size_t i = 0; i < other->dep_count; i++)
            if (other->deps[i] == node)
                put(&list, other, NULL);
    finish(&list, edges, count);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
    return cuGraphNodeGetDependentNodes_v2(node, nodes, NULL, count);
}

static CUresult check_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    return handle_is(graph, HANDLE_GRAPH) && graph_has_nodes(graph, from, count) && graph_has_nodes(graph, to, count)
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *edges,
                                   size_t count)
{
    CUresult rc = api_enter();

    (void)edges;
    if (rc)
        return rc;
    rc = check_edges(graph, from, to, count);
    for (size_t i = 0; i < count && !rc; i++)
        rc = graph_add_edge(from[i], to[i]);
    return api_leave(rc);
}

CUresult cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    return cuGraphAddDependencies_v2(graph, from, to, NULL, count);
}

static bool remove_edge(CUgraphNode from, CUgraphNode to)
{
    for (size_t i = 0; i < to->dep_count; i++) {
        if (to->deps[i] == from) {
            to->deps[i] = to->deps[--to->dep_count];
            return true;
        }
    }
    return false;
}

CUresult cuGraphRemoveDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                                      const CUgraphEdgeData *edges, size_t count)
{
    CUresult rc = api_enter();

    (void)edges;
    if (rc)
        return rc;
    rc = check_edges(graph, from, to, count);
    for (size_t i = 0; i < count && !rc; i++)
        if (!remove_edge(from[i], to[i]))
            rc = CUDA_ERROR_INVALID_VALUE;
    return api_leave(rc);
}

CUresult cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    return cuGraphRemoveDependencies_v2(graph, from, to, NULL, count);
}
