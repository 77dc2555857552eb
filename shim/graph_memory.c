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

// Adds to `parts` what the nodes of a graph allocate, child graphs included. Returns whether they allocate at all, or -ENOMEM.
static int add_allocations(CUgraph graph, struct part *parts)
{
    int allocates = 0;
    size_t count = 0;
    if (REAL(cuGraphGetNodes)(graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return 0;
    CUgraphNode *nodes = calloc(count, sizeof(CUgraphNode));
    if (!nodes)
        return -ENOMEM;
    if (REAL(cuGraphGetNodes)(graph, nodes, &count) != CUDA_SUCCESS)
        count = 0;
    for (size_t i = 0; i < count && allocates >= 0; i++) {
        CUgraphNodeType type;
        CUDA_MEM_ALLOC_NODE_PARAMS allocation;
        CUgraph child;
        if (REAL(cuGraphNodeGetType)(nodes[i], &type) != CUDA_SUCCESS)
            continue;
        if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(nodes[i], &allocation) == CUDA_SUCCESS &&
            device_of(allocation.poolProps.location.id)) {
            parts[allocation.poolProps.location.id].bytes += holdings_round_up(allocation.bytesize, HOLDINGS_BLOCK_BYTES);
            allocates = 1;
        } else if (type == CU_GRAPH_NODE_TYPE_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(nodes[i], &child) == CUDA_SUCCESS) {
            int more = add_allocations(child, parts);
            allocates = more ? more : allocates;
        }
    }
    free(nodes);
    return allocates;
}

// The same for parts that are still empty, whatever is being captured.
static int find_allocations(CUgraph graph, struct part *parts)
{
    CUstreamCaptureMode mode = capture_relax();
    int allocates = add_allocations(graph, parts);
    capture_restore(mode);
    return allocates;
}

// Notes an executable graph that the driver has made.
static CUresult instantiated(CUresult result, const CUgraphExec *handle, CUgraph source)
{
    if (result != CUDA_SUCCESS || !device_attached())
        return result;
    int saved = errno;
    struct part parts[DEVICE_MAX] = {0};
    int allocates = find_allocations(source, parts);
    if (allocates) {
        struct graph *graph = allocates > 0 ? calloc(1, sizeof *graph) : NULL;
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

// Takes what the parts can need: CUDA_SUCCESS, or the refusal, with nothing taken.
static CUresult take(struct graph_launch *launch, const struct part *parts)
{
    CUresult rc = CUDA_SUCCESS;
    int ordinal = 0;
    memset(launch->memory, 0, sizeof launch->memory);
    for (; ordinal < DEVICE_MAX && rc == CUDA_SUCCESS; ordinal++)
        if (parts[ordinal].bytes)
            rc = pools_graph_begin(&launch->memory[ordinal], device_of(ordinal), parts[ordinal].bytes, parts[ordinal].backed);
    while (rc != CUDA_SUCCESS && ordinal-- > 0)
        if (launch->memory[ordinal].pool)
            pools_graph_end(&launch->memory[ordinal]);
    return rc;
}

CUresult graph_memory_find(struct graph_launch *launch, CUgraphExec handle, CUstream stream)
{
    struct part parts[DEVICE_MAX];
    struct graph *graph;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(graphs, &handle, graph);
    if (graph)
        memcpy(parts, graph->parts, sizeof parts);
    pthread_mutex_unlock(&mutex);
    if (!graph || capture_under_way(stream)) // captured, it becomes part of another graph
        return CUDA_SUCCESS;
    CUresult rc = take(launch, parts);
    if (rc == CUDA_SUCCESS)
        launch->graph = handle;
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

// An instantiation that uploads takes memory as cuGraphUpload does.
struct upload {
    struct graph_launch launch;
    bool taken;
};

static CUresult upload_begin(struct upload *upload, CUgraph source, unsigned long long flags)
{
    struct part parts[DEVICE_MAX] = {0};
    upload->taken = false;
    if (!(flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) || !device_attached())
        return CUDA_SUCCESS;
    int saved = errno;
    int allocates = find_allocations(source, parts);
    CUresult rc = allocates < 0 ? CUDA_ERROR_OUT_OF_MEMORY : allocates ? take(&upload->launch, parts) : CUDA_SUCCESS;
    upload->taken = allocates && rc == CUDA_SUCCESS;
    errno = saved;
    return rc;
}

static CUresult upload_end(struct upload *upload, CUresult result, const CUgraphExec *exec, CUgraph source, CUstream stream)
{
    result = instantiated(result, exec, source);
    upload->launch.graph = result == CUDA_SUCCESS ? *exec : NULL;
    return upload->taken ? graph_memory_settle(&upload->launch, result, stream) : result;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    struct upload upload;
    CUresult rc = upload_begin(&upload, graph, flags);
    return rc == CUDA_SUCCESS ? upload_end(&upload, REAL(cuGraphInstantiateWithFlags)(exec, graph, flags), exec, graph, NULL)
                              : rc;
}

// WITH_PARAMS(name, upload stream)
#define WITH_PARAMS(name, stream)                                                                                              \
    CUresult name(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)                                     \
    {                                                                                                                          \
        struct upload upload;                                                                                                  \
        CUresult rc = upload_begin(&upload, graph, params ? params->flags : 0);                                                \
        if (rc == CUDA_SUCCESS)                                                                                                \
            return upload_end(&upload, REAL(name)(exec, graph, params), exec, graph, params ? (stream) : NULL);                \
        params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;                                                                     \
        return rc;                                                                                                             \
    }

WITH_PARAMS(cuGraphInstantiateWithParams, params->hUploadStream)
WITH_PARAMS(cuGraphInstantiateWithParams_ptsz, own_stream(params->hUploadStream))

// An executable graph that allocates does what another graph's nodes say from now on. If that takes more than before, it has
// no memory to speak of.
static CUresult updated(CUresult result, CUgraphExec handle, CUgraph source)
{
    if (result != CUDA_SUCCESS || atomic_load_explicit(&graph_memory_graphs, memory_order_relaxed) == 0)
        return result;
    int saved = errno;
    struct part parts[DEVICE_MAX] = {0};
    int allocates = find_allocations(source, parts);
    struct graph *graph;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(graphs, &handle, graph);
    for (int ordinal = 0; graph && ordinal < DEVICE_MAX; ordinal++) {
        struct part *part = &graph->parts[ordinal];
        if (parts[ordinal].bytes > part->bytes || allocates < 0)
            part->backed = 0;
        if (allocates >= 0)
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
