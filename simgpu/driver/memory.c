// Device memory of contexts: whole blocks for large allocations, shared blocks for small ones.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "simgpu/driver/context.h"
#include "simgpu/state/state.h"

// The largest allocation that is packed into a shared block, and the unit of packing.
#define SMALL_BYTES (1ull << 20)
#define UNIT_BYTES 512u
#define UNITS (STATE_BLOCK_BYTES / UNIT_BYTES)

struct small_block {
    struct small_block *next; // in ctx->small_blocks
    void *base;
    unsigned used_units;
    uint8_t used[UNITS];
};

size_t blocks_round(size_t bytes)
{
    size_t rounded = (bytes + STATE_BLOCK_BYTES - 1) & ~(STATE_BLOCK_BYTES - 1);
    return rounded < bytes ? 0 : rounded;
}

CUresult blocks_alloc(struct device *device, size_t bytes, void **base)
{
    size_t rounded = blocks_round(bytes);

    if (!rounded || state_reserve(device->index, rounded))
        return CUDA_ERROR_OUT_OF_MEMORY;
    // One block more than needed, so that an aligned part can be cut out.
    char *raw =
        mmap(NULL, rounded + STATE_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        state_release(device->index, rounded);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    size_t before = -(uintptr_t)raw & (STATE_BLOCK_BYTES - 1);
    if (before)
        munmap(raw, before);
    munmap(raw + before + rounded, STATE_BLOCK_BYTES - before);
    *base = raw + before;
    madvise(*base, rounded, MADV_DONTFORK);
    return CUDA_SUCCESS;
}

void blocks_free(struct device *device, void *base, size_t bytes)
{
    size_t rounded = blocks_round(bytes);

    munmap(base, rounded);
    state_release(device->index, rounded);
}

// The first run of free units in a block that is long enough, or UNITS.
static unsigned find_units(const struct small_block *block, unsigned needed)
{
    unsigned run = 0;

    if (UNITS - block->used_units < needed)
        return UNITS;
    for (unsigned i = 0; i < UNITS; i++) {
        run = block->used[i] ? 0 : run + 1;
        if (run == needed)
            return i + 1 - needed;
    }
    return UNITS;
}

static struct small_block **small_blocks(struct CUctx_st *ctx, enum allocation_kind kind)
{
    return kind == ALLOCATION_ARRAY ? &ctx->small_array_blocks : &ctx->small_blocks;
}

static CUresult small_alloc(struct CUctx_st *ctx, struct small_block **blocks, size_t bytes, struct small_block **out,
                            uintptr_t *base)
{
    unsigned needed = (unsigned)((bytes + UNIT_BYTES - 1) / UNIT_BYTES), at = UNITS;
    struct small_block *block;

    for (block = *blocks; block; block = block->next) {
        at = find_units(block, needed);
        if (at < UNITS)
            break;
    }
    if (!block) {
        block = calloc(1, sizeof *block);
        CUresult rc = block ? blocks_alloc(ctx->device, STATE_BLOCK_BYTES, &block->base) : CUDA_ERROR_OUT_OF_MEMORY;
        if (rc) {
            free(block);
            return rc;
        }
        block->next = *blocks;
        *blocks = block;
        at = 0;
    }
    memset(block->used + at, 1, needed);
    block->used_units += needed;
    *out = block;
    *base = (uintptr_t)block->base + at * UNIT_BYTES;
    return CUDA_SUCCESS;
}

static void small_free(struct CUctx_st *ctx, struct small_block **link, struct small_block *block, uintptr_t base, size_t bytes)
{
    unsigned units = (unsigned)((bytes + UNIT_BYTES - 1) / UNIT_BYTES);

    memset(block->used + (base - (uintptr_t)block->base) / UNIT_BYTES, 0, units);
    block->used_units -= units;
    if (block->used_units)
        return;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    blocks_free(ctx->device, block->base, STATE_BLOCK_BYTES);
    free(block);
}

CUresult memory_alloc(struct CUctx_st *ctx, enum allocation_kind kind, size_t bytes, struct allocation **out)
{
    struct allocation *allocation;
    void *base;
    CUresult rc;

    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    allocation = calloc(1, sizeof *allocation);
    if (!allocation)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *allocation = (struct allocation){.bytes = bytes, .kind = kind, .device = ctx->device, .ctx = ctx};
    if (bytes <= SMALL_BYTES) {
        rc = small_alloc(ctx, small_blocks(ctx, kind), bytes, &allocation->block, &allocation->base);
    } else {
        rc = blocks_alloc(ctx->device, bytes, &base);
        if (!rc)
            allocation->base = (uintptr_t)base;
    }
    if (rc) {
        free(allocation);
        return rc;
    }
    allocation->next = ctx->allocations;
    ctx->allocations = allocation;
    rc = range_insert(allocation);
    if (rc)
        memory_free(allocation);
    else
        *out = allocation;
    return rc;
}

void memory_free(struct allocation *allocation)
{
    struct CUctx_st *ctx = allocation->ctx;
    struct allocation **link = &ctx->allocations;

    while (*link != allocation)
        link = &(*link)->next;
    *link = allocation->next;
    range_remove(allocation);
    if (allocation->kind == ALLOCATION_HOST)
        munmap((void *)allocation->base, allocation->bytes);
    else if (allocation->block)
        small_free(ctx, small_blocks(ctx, allocation->kind), allocation->block, allocation->base, allocation->bytes);
    else if (allocation->kind != ALLOCATION_REGISTERED)
        blocks_free(ctx->device, (void *)allocation->base, allocation->bytes);
    free(allocation);
}
