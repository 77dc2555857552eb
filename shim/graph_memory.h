// SPDX-License-Identifier: AGPL-3.0-or-later
// Graphs that allocate: memory nodes, made as such or by capturing cuMemAllocAsync.
//
// The driver takes memory for them when an executable graph is launched or uploaded, keeps it for later launches of this or
// another graph, and gives it back at cuDeviceGraphMemTrim. So the charge is what it has reserved for the device's graphs
// (shim/memory_pools.c). Before a launch, the most that the graph's nodes can need is taken; a launch whose memory does not fit
// is refused with CUDA_ERROR_OUT_OF_MEMORY.
//
// An executable graph that has been launched since memory was last given back needs nothing more, unless cuGraphExecUpdate has
// made it larger. While no executable graph has memory nodes, a launch or an update costs one load more.
//
// Thread safe. Lock order: no other lock is taken under the mutex here.
#ifndef VGPU_SHIM_GRAPH_MEMORY_H
#define VGPU_SHIM_GRAPH_MEMORY_H

#include <stdatomic.h>

#include "shim/memory_pools.h"

// Executable graphs with memory nodes.
extern _Atomic int graph_memory_graphs __attribute__((visibility("hidden")));

// A launch or upload in progress.
struct graph_launch {
    struct pools_graph memory[DEVICE_MAX]; // set with `graph`; by device
    CUgraphExec graph;                     // NULL: it allocates nothing
};

CUresult graph_memory_find(struct graph_launch *launch, CUgraphExec graph, CUstream stream);
CUresult graph_memory_settle(struct graph_launch *launch, CUresult result, CUstream stream);

// Before the driver is asked to launch a graph into a stream: CUDA_SUCCESS, or the refusal.
static inline CUresult graph_memory_begin(struct graph_launch *launch, CUgraphExec graph, CUstream stream)
{
    launch->graph = NULL;
    // Relaxed: a thread that launches a graph got its handle from the thread that made it, and what orders that orders this.
    if (__builtin_expect(atomic_load_explicit(&graph_memory_graphs, memory_order_relaxed) == 0, 1))
        return CUDA_SUCCESS;
    return graph_memory_find(launch, graph, stream);
}

// After the driver was asked. Returns `result`.
static inline CUresult graph_memory_end(struct graph_launch *launch, CUresult result, CUstream stream)
{
    return __builtin_expect(launch->graph == NULL, 1) ? result : graph_memory_settle(launch, result, stream);
}

// Forgets everything, for a forked child.
void graph_memory_reset(void);

#endif
