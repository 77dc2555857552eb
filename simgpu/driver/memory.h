// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory that the driver knows by address, and where device memory comes from. Needs the API lock.
//
// Device memory is anonymous memory of the process, reserved but not touched, so that large allocations cost nothing until a
// kernel uses them. What makes it device memory is the reservation in the shared state: every 2 MiB-aligned block that an
// allocation touches is paid for exactly once. Allocations above 1 MiB own whole blocks; smaller ones share blocks within their
// context, arrays with arrays and other memory with other memory.
//
// The range index holds every allocation with an address, ordered and without overlaps.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_MEMORY_H
#define SIMGPU_DRIVER_MEMORY_H

#include "simgpu/driver/api.h"

struct CUctx_st;
struct CUmemPoolHandle_st;
struct device;
struct graph_memory;
struct physical;
struct small_block;

enum allocation_kind {
    ALLOCATION_DEVICE,
    ALLOCATION_MANAGED,
    ALLOCATION_HOST,       // allocated by the driver
    ALLOCATION_REGISTERED, // the program's own, page-locked
    ALLOCATION_POOL,
    ALLOCATION_MAPPING, // of memory made with cuMemCreate
    ALLOCATION_ARRAY,
    ALLOCATION_GRAPH,    // a memory node's
    ALLOCATION_IMPORTED, // another process's
};

struct allocation {
    uintptr_t base;
    size_t bytes; // as asked for
    enum allocation_kind kind;
    unsigned flags; // of the call that made it
    uint64_t id;
    struct device *device;
    struct CUctx_st *ctx;      // owner, NULL for pool memory and mappings
    struct allocation *next;   // in ctx->allocations
    struct small_block *block; // of a packed allocation
    struct CUmemPoolHandle_st *pool;
    struct physical *physical; // what a mapping shows
    size_t physical_offset;
    struct graph_memory *graph;
    int access; // PROT_ bits that cuMemSetAccess gave a mapping
};

// The allocation that contains an address, NULL if none does.
struct allocation *range_find(uintptr_t address);
// The first allocation at or above an address, in order of address.
struct allocation *range_next(uintptr_t address);
// Enters an allocation. CUDA_ERROR_INVALID_VALUE if it overlaps another.
CUresult range_insert(struct allocation *allocation);
void range_remove(struct allocation *allocation);

// True if the device reaches all of [address, address + bytes): its own memory, or page-locked host memory. Everything else is
// pageable host memory as far as the driver can tell.
bool range_is_device(uintptr_t address, size_t bytes);

// Reserves physical memory and address space in whole 2 MiB blocks, aligned to them; or gives both back. `bytes` is any size.
CUresult blocks_alloc(struct device *device, size_t bytes, void **base);
void blocks_free(struct device *device, void *base, size_t bytes);
// `bytes` rounded up to whole blocks; 0 if that overflows.
size_t blocks_round(size_t bytes);

// Lets go of memory of another process.
CUresult imported_free(struct allocation *allocation);

// Allocates device memory of a context.
CUresult memory_alloc(struct CUctx_st *ctx, enum allocation_kind kind, size_t bytes, struct allocation **allocation);
// Frees any allocation that belongs to a context, host memory included.
void memory_free(struct allocation *allocation);

#endif
