// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/graph_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "shim/stream_table.h"

#define HASH_NONFATAL_OOM 1 // the library never exits
#include <uthash.h>

// An executable graph that allocates.
struct graph {
    CUgraphExec handle;
    struct device *device;
    uint64_t bytes;  // of all its allocations, were none to use the memory of another
    uint64_t backed; // see pools_graph_begin
    UT_hash_handle hh;
};

_Atomic int graph_memory_graphs;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct graph *graphs;

void graph_memory_reset(void)
{
    // Not freed: another thread of the parent may have been halfway through a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    graphs = NULL;
    atomic_store(&graph_memory_graphs, 0);
}

// What the nodes of a graph allocate, child graphs included; *device is where.
static uint64_t allocated_bytes(CUgraph graph, struct device **device)
{
    uint64_t bytes = 0;
    size_t count = 0;
    if (REAL(cuGraphGetNodes)(graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return 0;
    CUgraphNode *nodes = calloc(count, sizeof(CUgraphNode));
    if (!nodes || REAL(cuGraphGetNodes)(graph, nodes, &count) != CUDA_SUCCESS)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        CUgraphNodeType type;
        CUDA_MEM_ALLOC_NODE_PARAMS allocation;
        CUgraph child;
        if (REAL(cuGraphNodeGetType)(nodes[i], &type) != CUDA_SUCCESS)
            continue;
        if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(nodes[i], &allocation) == CUDA_SUCCESS) {
            *device = device_of(allocation.poolProps.location.id);
            bytes += holdings_round_up(allocation.bytesize, HOLDINGS_BLOCK_BYTES);
        } else if (type == CU_GRAPH_NODE_TYPE_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(nodes[i], &child) == CUDA_SUCCESS) {
            bytes += allocated_bytes(child, device);
        }
    }
    free(nodes);
    return bytes;
}

// Takes note of an executable graph that the driver has made. Instantiation may upload it, so the charge is settled.
static CUresult instantiated(CUresult result, const CUgraphExec *handle, CUgraph source)
{
    if (result != CUDA_SUCCESS || !device_attached())
        return result;
    int saved = errno;
    struct device *device = NULL;
    CUstreamCaptureMode mode = capture_relax();
    uint64_t bytes = allocated_bytes(source, &device);
    capture_restore(mode);
    if (bytes && device) {
        struct graph *graph = calloc(1, sizeof *graph);
        if (graph) {
            *graph = (struct graph){.handle = *handle, .device = device, .bytes = bytes};
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
    struct graph *graph;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(graphs, &handle, graph);
    struct device *device = graph ? graph->device : NULL;
    uint64_t bytes = graph ? graph->bytes : 0, backed = graph ? graph->backed : 0;
    pthread_mutex_unlock(&mutex);
    if (!device || capture_under_way(stream)) // captured, it becomes a part of another graph
        return CUDA_SUCCESS;
    CUresult rc = pools_graph_begin(&launch->memory, device, bytes, backed);
    if (rc == CUDA_SUCCESS)
        launch->graph = handle;
    return rc;
}

CUresult graph_memory_settle(struct graph_launch *launch, CUresult result, CUstream stream)
{
    struct device *device = NULL;
    int rc = pools_graph_end(&launch->memory);
    pthread_mutex_lock(&mutex);
    struct graph *graph;
    HASH_FIND_PTR(graphs, &launch->graph, graph);
    if (graph) {
        device = graph->device;
        if (result == CUDA_SUCCESS)
            graph->backed = launch->memory.trims;
    }
    pthread_mutex_unlock(&mutex);
    // Two graphs that took turns on the same memory, launched side by side, need more than they did. What was launched can't be taken
    // back; what it does not need any more, it gives back at once.
    if (rc && result == CUDA_SUCCESS && device) {
        REAL(cuStreamSynchronize)(stream);
        pools_reclaim(device);
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
