// Segments and blocks of memory pools.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/pool.h"

#include <stdlib.h>

#include "simgpu/driver/device.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool_internal.h"
#include "simgpu/driver/stream.h"

// What the driver takes from the device at a time.
#define SEGMENT_STEP (32ull << 20)
#define BLOCK_ALIGN 512u

struct CUmemPoolHandle_st *pool_new(struct device *device)
{
    struct CUmemPoolHandle_st *pool = calloc(1, sizeof *pool);

    if (!pool || !handle_add(pool, HANDLE_POOL)) {
        free(pool);
        return NULL;
    }
    pool->device = device;
    pool->references = 1;
    pool->reuse[0] = pool->reuse[1] = pool->reuse[2] = 1;
    pool->next = device->pools;
    device->pools = pool;
    return pool;
}

void pool_retain(struct CUmemPoolHandle_st *pool)
{
    pool->references++;
}

static void free_segment(struct CUmemPoolHandle_st *pool, struct pool_segment **link)
{
    struct pool_segment *segment = *link;

    *link = segment->next;
    for (struct pool_block *block = segment->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    pool->reserved -= segment->bytes;
    blocks_free(pool->device, (void *)segment->base, segment->bytes);
    free(segment);
}

void pool_release(struct CUmemPoolHandle_st *pool)
{
    struct CUmemPoolHandle_st **link = &pool->device->pools;

    if (--pool->references)
        return;
    while (pool->segments)
        free_segment(pool, &pool->segments);
    while (*link != pool)
        link = &(*link)->next;
    *link = pool->next;
    handle_remove(pool);
    free(pool);
}

static bool usable(const struct pool_block *block, const struct CUstream_st *stream, size_t bytes)
{
    return block->bytes >= bytes && (block->state == POOL_FREE || (block->state == POOL_PENDING && block->stream == stream));
}

// The smallest block that will do.
static struct pool_block *find_block(const struct CUmemPoolHandle_st *pool, const struct CUstream_st *stream, size_t bytes,
                                     struct pool_segment **segment)
{
    struct pool_block *best = NULL;

    for (struct pool_segment *s = pool->segments; s; s = s->next) {
        for (struct pool_block *block = s->blocks; block; block = block->next) {
            if (usable(block, stream, bytes) && (!best || block->bytes < best->bytes)) {
                best = block;
                *segment = s;
            }
        }
    }
    return best;
}

static CUresult add_segment(struct CUmemPoolHandle_st *pool, size_t bytes, struct pool_segment **out)
{
    size_t rounded = (bytes + SEGMENT_STEP - 1) & ~(size_t)(SEGMENT_STEP - 1);
    struct pool_segment *segment = calloc(1, sizeof *segment);
    struct pool_block *block = calloc(1, sizeof *block);
    void *base;

    bool too_large = rounded < bytes || (pool->max_bytes && rounded > pool->max_bytes - pool->reserved);
    if (!segment || !block || too_large || blocks_alloc(pool->device, rounded, &base)) {
        free(segment);
        free(block);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *segment = (struct pool_segment){.base = (uintptr_t)base, .bytes = rounded, .blocks = block, .next = pool->segments};
    block->bytes = rounded;
    pool->segments = segment;
    pool->reserved += rounded;
    if (pool->reserved > pool->reserved_high)
        pool->reserved_high = pool->reserved;
    *out = segment;
    return CUDA_SUCCESS;
}

// Cuts a block so that its first part has `bytes`; the rest keeps its state.
static void split(struct pool_block *block, size_t bytes)
{
    if (block->bytes == bytes)
        return;
    struct pool_block *rest = malloc(sizeof *rest);
    if (!rest)
        return;
    *rest = *block;
    rest->offset += bytes;
    rest->bytes -= bytes;
    block->bytes = bytes;
    block->next = rest;
}

CUresult pool_alloc(struct CUmemPoolHandle_st *pool, struct CUstream_st *stream, size_t bytes, CUdeviceptr *ptr)
{
    size_t rounded = (bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    struct pool_segment *segment;

    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (rounded < bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct pool_block *block = find_block(pool, stream, rounded, &segment);
    if (!block) {
        CUresult rc = add_segment(pool, rounded, &segment);
        if (rc)
            return rc;
        block = segment->blocks;
    }
    struct allocation *allocation = calloc(1, sizeof *allocation);
    if (!allocation)
        return CUDA_ERROR_OUT_OF_MEMORY;
    split(block, rounded);
    *allocation = (struct allocation){
        .base = segment->base + block->offset, .bytes = bytes, .kind = ALLOCATION_POOL, .device = pool->device, .pool = pool};
    CUresult rc = range_insert(allocation);
    if (rc) {
        free(allocation);
        return rc;
    }
    block->state = POOL_USED;
    pool_retain(pool);
    pool->used += block->bytes;
    if (pool->used > pool->used_high)
        pool->used_high = pool->used;
    *ptr = allocation->base;
    return CUDA_SUCCESS;
}

static void merge(struct pool_segment *segment)
{
    for (struct pool_block *block = segment->blocks; block && block->next;) {
        struct pool_block *next = block->next;
        if (block->state == POOL_FREE && next->state == POOL_FREE) {
            block->bytes += next->bytes;
            block->next = next->next;
            free(next);
        } else {
            block = next;
        }
    }
}

// Takes the allocation out of the index and returns its block.
static struct pool_block *remove_allocation(struct allocation *allocation, struct pool_segment **segment)
{
    struct CUmemPoolHandle_st *pool = allocation->pool;
    struct pool_block *block;

    for (*segment = pool->segments; allocation->base - (*segment)->base >= (*segment)->bytes;)
        *segment = (*segment)->next;
    for (block = (*segment)->blocks; (*segment)->base + block->offset != allocation->base;)
        block = block->next;
    pool->used -= block->bytes;
    range_remove(allocation);
    free(allocation);
    return block;
}

void pool_free_now(struct allocation *allocation)
{
    struct CUmemPoolHandle_st *pool = allocation->pool;
    struct pool_segment *segment;

    remove_allocation(allocation, &segment)->state = POOL_FREE;
    merge(segment);
    pool_release(pool);
}

CUresult pool_free_async(struct allocation *allocation, struct CUstream_st *stream)
{
    struct CUmemPoolHandle_st *pool = allocation->pool;
    struct op op = {.kind = OP_POOL_FREE, .pool = pool};
    struct pool_segment *segment;

    if (stream_is_idle(stream)) {
        pool_free_now(allocation);
        return CUDA_SUCCESS;
    }
    op_retain(&op);
    CUresult rc = stream_submit(stream, &op);
    if (rc)
        return rc;
    struct pool_block *block = remove_allocation(allocation, &segment);
    block->state = POOL_PENDING;
    block->stream = stream;
    block->sequence = stream->tail->sequence;
    pool_release(pool);
    return CUDA_SUCCESS;
}

void pool_free_reached(struct CUmemPoolHandle_st *pool, struct CUstream_st *stream, uint64_t sequence)
{
    for (struct pool_segment *segment = pool->segments; segment; segment = segment->next) {
        for (struct pool_block *block = segment->blocks; block; block = block->next)
            if (block->state == POOL_PENDING && block->stream == stream && block->sequence <= sequence)
                block->state = POOL_FREE;
        merge(segment);
    }
}

void pool_trim(struct CUmemPoolHandle_st *pool, uint64_t keep)
{
    for (struct pool_segment **link = &pool->segments; *link && pool->reserved > keep;) {
        struct pool_segment *segment = *link;
        if (segment->blocks->state == POOL_FREE && !segment->blocks->next)
            free_segment(pool, link);
        else
            link = &segment->next;
    }
}

void pool_trim_device(struct device *device)
{
    for (struct CUmemPoolHandle_st *pool = device->pools; pool; pool = pool->next)
        pool_trim(pool, pool->release_threshold);
}

void pool_reset_device(struct device *device)
{
    for (struct allocation *allocation = range_next(0), *next; allocation; allocation = next) {
        next = range_next(allocation->base + allocation->bytes);
        if (allocation->kind == ALLOCATION_POOL && allocation->device == device)
            pool_free_now(allocation);
    }
    for (struct CUmemPoolHandle_st *pool = device->pools; pool; pool = pool->next)
        pool_trim(pool, 0);
}
