// SPDX-License-Identifier: AGPL-3.0-or-later
// The live allocations of this process that have an address, and the physical memory that each takes.
//
// The driver packs small allocations into shared blocks, so what an allocation takes depends on its neighbours. Its address
// tells: blocks are aligned, so an allocation takes exactly the blocks in its address range that no other live allocation
// touches. Whole blocks in its middle are its own and are only counted; partly covered blocks at its ends have a reference
// count.
//
// Invariants
//  - charged bytes == HOLDINGS_BLOCK_BYTES x the number of distinct blocks touched by live allocations, after every commit and
//    return, and never less in between: begin takes the most that a request can need. One exception: at a full quota a small
//    request may still fit into a block that is paid for, as it would on a full GPU. It is tried with nothing taken; if the
//    driver opens a new block for it after all, commit refuses it.
//  - An address is in the registry from its commit until its withdrawal, which comes before the driver frees it: the driver may
//    hand the same address to another thread at once.
// Thread safe. Lock order: registry, then holdings.
#ifndef VGPU_ALLOCATOR_ALLOCATIONS_H
#define VGPU_ALLOCATOR_ALLOCATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "allocator/holdings.h"

struct allocation {
    uint64_t address;
    uint64_t bytes; // as asked
    struct holdings *holdings;
    const void *context; // the CUDA context whose end frees it; NULL: none
};

// Step 1, before the driver is asked: takes the most blocks that `bytes` can need. Step 2 settles *taken. Returns 0 or -ENOMEM.
int allocation_begin(struct holdings *holdings, uint64_t bytes, uint64_t *taken);

// Step 2, after the driver gave memory: registers it and settles `taken` against the blocks actually touched. Returns 0, or
// -ENOMEM if they are more than was taken and do not fit; then nothing is registered or charged, and the caller frees the
// memory.
int allocation_commit(const struct allocation *allocation, uint64_t taken);

// Step 2, after the driver gave nothing.
void allocation_cancel(struct holdings *holdings, uint64_t taken);

// Freeing: withdraw before the driver frees (false: unknown address, nothing to account for), then either return what it took
// or, if the driver refused, restore it.
bool allocation_withdraw(uint64_t address, struct allocation *allocation);
void allocation_return(const struct allocation *allocation);
void allocation_restore(const struct allocation *allocation);

// Returns everything that ended with a context.
void allocations_drop_context(const void *context);

// Forgets everything without touching any account: for a forked child.
void allocations_reset(void);

#endif
