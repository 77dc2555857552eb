// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/graph_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "shim/stream_table.h"

// What an executable graph allocates on one device.
struct part {
    uint64_t bytes;  // of all its allocations, if none reused the memory of another
    uint64_t backed; // see pools_graph_begin
};

// An executable graph that allocates.
struct graph {
    CUgraphExec handle;
    struct part parts[DEVICE_MAX];
    UT_hash_handle hh;
};

_Atomic int graph_memory_graphs;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct graph *graphs;

void graph_memory_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    graphs = NULL;
    atomic_store(&graph_memory_graphs, 0);
}

// Adds to `parts` what the nodes of a graph allocate, child graphs included. Returns whether they allocate at all.
static bool add_allocations(CUgraph graph, struct part *parts)
{
    bool allocates = false;
    size_t count = 0;
    if (REAL(cuGraphGetNodes)(graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return false;
    CUgraphNode *nodes = calloc(count, sizeof(CUgraphNode));
    if (!nodes || REAL(cuGraphGetNodes)(graph, nodes, &count) != CUDA_SUCCESS)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        CUgraphNodeType type;
        CUDA_MEM_ALLOC_NODE_PARAMS allocation;
        CUgraph child;
        if (REAL(cuGraphNodeGetType)(nodes[i], &type) != CUDA_SUCCESS)
            continue;
        if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(nodes[i], &allocation) == CUDA_SUCCESS &&
            device_of(allocation.poolProps.location.id)) {
            parts[allocation.poolProps.location.id].bytes += holdings_round_up(allocation.bytesize, HOLDINGS_BLOCK_BYTES);
            allocates = true;
        } else if (type == CU_GRAPH_NODE_TYPE_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(nodes[i], &child) == CUDA_SUCCESS) {
            allocates |= add_allocations(child, parts);
        }
    }
    free(nodes);
    return allocates;
}

// Notes an executable graph that the driver has made. Instantiation may upload it, so the charge is settled.
static CUresult instantiated(CUresult result, const CUgraphExec *handle, CUgraph source)
{
    if (result != CUDA_SUCCESS || !device_attached())
        return result;
    int saved = errno;
    struct part parts[DEVICE_MAX] = {0};
    CUstreamCaptureMode mode = capture_relax();
    bool allocates = add_allocations(source, parts);
    capture_restore(mode);
    if (allocates) {
        struct graph *graph = calloc(1, sizeof *graph);
        if (graph) {
            graph->handle = *handle;
            memcpy(graph->parts, parts, sizeof parts);
            pthread_mutex_lock(&mutex);
            HASH_ADD_PTR(graphs, handle, graph);
            if (graph->hh.tbl)
                atomic_fetch_add(&graph_memory_graphs, 1);
            pthread_mutex_unlock(&mutex);
        }
        if (!graph || !graph->hh.tbl) {
            free(graph);
            REAL(cuGraphExecDestroy)(*handle);
            result = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    errno = saved;
    return result;
}

CUresult graph_memory_find(struct graph_launch *launch, CUgraphExec handle, CUstream stream)
{
    struct part parts[DEVICE_MAX];
    struct graph *graph;
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(graphs, &handle, graph);
    if (graph)
        memcpy(parts, graph->parts, sizeof parts);
    pthread_mutex_unlock(&mutex);
    if (!graph || capture_under_way(stream)) // captured, it becomes part of another graph
        return CUDA_SUCCESS;
    memset(launch->memory, 0, sizeof launch->memory);
    int ordinal = 0;
    for (; ordinal < DEVICE_MAX && rc == CUDA_SUCCESS; ordinal++)
        if (parts[ordinal].bytes)
            rc = pools_graph_begin(&launch->memory[ordinal], device_of(ordinal), parts[ordinal].bytes, parts[ordinal].backed);
    if (rc == CUDA_SUCCESS)
        launch->graph = handle;
    while (rc != CUDA_SUCCESS && ordinal-- > 0)
        if (launch->memory[ordinal].pool)
            pools_graph_end(&launch->memory[ordinal]);
    return rc;
}

CUresult graph_memory_settle(struct graph_launch *launch, CUresult result, CUstream stream)
{
    bool exceeded[DEVICE_MAX] = {false};
    for (int ordinal = 0; ordinal < DEVICE_MAX; ordinal++)
        exceeded[ordinal] = launch->memory[ordinal].pool && pools_graph_end(&launch->memory[ordinal]) && result == CUDA_SUCCESS;
    pthread_mutex_lock(&mutex);
    struct graph *graph;
    HASH_FIND_PTR(graphs, &launch->graph, graph);
    for (int ordinal = 0; graph && result == CUDA_SUCCESS && ordinal < DEVICE_MAX; ordinal++)
        graph->parts[ordinal].backed = launch->memory[ordinal].trims;
    pthread_mutex_unlock(&mutex);
    // Two graphs that alternated on the same memory need more when launched side by side. What was launched can't be taken
    // back; what it no longer needs, it gives back at once.
    for (int ordinal = 0; ordinal < DEVICE_MAX; ordinal++) {
        if (!exceeded[ordinal])
            continue;
        REAL(cuStreamSynchronize)(stream);
        pools_reclaim(device_of(ordinal));
    }
    return result;
}

CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes)
{
    return instantiated(REAL(cuGraphInstantiate)(exec, graph, error_node, log, log_bytes), exec, graph);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes)
{
    return instantiated(REAL(cuGraphInstantiate_v2)(exec, graph, error_node, log, log_bytes), exec, graph);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    return instantiated(REAL(cuGraphInstantiateWithFlags)(exec, graph, flags), exec, graph);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return instantiated(REAL(cuGraphInstantiateWithParams)(exec, graph, params), exec, graph);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return instantiated(REAL(cuGraphInstantiateWithParams_ptsz)(exec, graph, params), exec, graph);
}

// An executable graph that allocates does what another graph's nodes say from now on. If that takes more than before, it has
// no memory to speak of.
static CUresult updated(CUresult result, CUgraphExec handle, CUgraph source)
{
    if (result != CUDA_SUCCESS || atomic_load_explicit(&graph_memory_graphs, memory_order_relaxed) == 0)
        return result;
    int saved = errno;
    struct part parts[DEVICE_MAX] = {0};
    CUstreamCaptureMode mode = capture_relax();
    add_allocations(source, parts);
    capture_restore(mode);
    struct graph *graph;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(graphs, &handle, graph);
    for (int ordinal = 0; graph && ordinal < DEVICE_MAX; ordinal++) {
        struct part *part = &graph->parts[ordinal];
        if (parts[ordinal].bytes > part->bytes)
            part->backed = 0;
        part->bytes = parts[ordinal].bytes;
    }
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return result;
}

CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error_node, CUgraphExecUpdateResult *result)
{
    return updated(REAL(cuGraphExecUpdate)(exec, graph, error_node, result), exec, graph);
}

CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *result)
{
    return updated(REAL(cuGraphExecUpdate_v2)(exec, graph, result), exec, graph);
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    struct graph *graph = NULL;
    if (atomic_load_explicit(&graph_memory_graphs, memory_order_relaxed)) {
        pthread_mutex_lock(&mutex);
        HASH_FIND_PTR(graphs, &exec, graph);
        if (graph) {
            HASH_DEL(graphs, graph);
            atomic_fetch_sub(&graph_memory_graphs, 1);
        }
        pthread_mutex_unlock(&mutex);
    }
    free(graph);
    return REAL(cuGraphExecDestroy)(exec);
}

CUresult cuGraphUpload(CUgraphExec graph, CUstream stream)
{
    struct graph_launch launch;
    CUresult rc = graph_memory_begin(&launch, graph, stream);
    return rc == CUDA_SUCCESS ? graph_memory_end(&launch, REAL(cuGraphUpload)(graph, stream), stream) : rc;
}

CUresult cuGraphUpload_ptsz(CUgraphExec graph, CUstream stream)
{
    struct graph_launch launch;
    CUresult rc = graph_memory_begin(&launch, graph, own_stream(stream));
    return rc == CUDA_SUCCESS ? graph_memory_end(&launch, REAL(cuGraphUpload_ptsz)(graph, stream), own_stream(stream)) : rc;
}
