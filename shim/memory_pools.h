// SPDX-License-Identifier: AGPL-3.0-or-later
// What the driver's stream-ordered memory pools hold, and what it keeps for graphs that allocate (shim/graph_memory.c).
//
// A pool takes physical memory from the GPU in large steps and keeps what is freed until a synchronisation, so it is charged
// what it has reserved (CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), not what the program asked for.
//
// Invariants
//  - While no allocation from a pool is under way, its charge is what it had reserved at the last look. While some are, it is
//    never less than what the pool can have reserved; after each of them, no more than it can have once the others are made.
//  - A pool is looked at after every allocation from it, at every synchronisation, and before any request is refused.
//  - A pool that the program has destroyed while memory of it is in use is kept until that is freed, but does not exist for the
//    program any more. (cuMemSetMemPool, access and export, which no hook sees, find it as long as it is kept.)
// Thread safe. Lock order: the mutex here, then holdings. The driver is never asked for memory under the mutex.
#ifndef VGPU_SHIM_MEMORY_POOLS_H
#define VGPU_SHIM_MEMORY_POOLS_H

#include "shim/device.h"

// Brings all charges up to date. Costs one load while no pool is charged.
void pools_settle(void);

// Returns to the driver what the pools of this device hold without using it. Returns whether any chunk came free.
bool pools_reclaim(struct device *device);

// The memory of a device's graphs, which may be about to grow by `bytes`, unless the graph has its memory already: `backed` is
// the value of ->trims after its last successful launch, 0 for none. begin returns CUDA_SUCCESS or a refusal. end, after the
// driver was asked, returns 0, or -ENOMEM if the memory has grown by more than was foreseen and more than the quota has left.
struct pools_graph {
    struct memory_pool *pool;
    uint64_t bytes, growth_bytes;
    uint64_t trims;
};
CUresult pools_graph_begin(struct pools_graph *graph, struct device *device, uint64_t bytes, uint64_t backed);
int pools_graph_end(const struct pools_graph *graph);

// Forgets all pools, for a forked child.
void pools_reset(void);

#endif
