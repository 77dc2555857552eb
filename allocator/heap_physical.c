// SPDX-License-Identifier: AGPL-3.0-or-later
// The heap's physical memory: where it grows, and what it gives back.
//
// An extent costs about the same whatever its size (H100: 49 us to make and map 2 MiB, 67 us for 64 MiB), but only a whole one
// can go back, and cuMemMap takes no offset into a handle. One extent per allocation would be quickest, but get stuck as soon
// as something small lands in it; blocks of 2 MiB are never stuck and cost 32 times as much for 64 MiB. So an allocation grows
// by extents of about an eighth of its size or, once more than 1/64 of what is in use is stuck, of a thirty-second.
// docs/architecture.md has the results of other sizes.
#include "allocator/heap_books.h"

#include <errno.h>
#include <stdlib.h>

#define GROWTH_EXTENTS 8u
#define GROWTH_EXTENTS_TIGHT 32u
#define EXTENT_MAX_BLOCKS 32u

// Where to grow: new blocks in a hole, next to the free pieces that they will join.
struct plan {
    struct piece *hole, *left, *right;
    uint64_t address, bytes; // of the new blocks
    struct lane *lane;       // of left and right, and so of the whole
    uint64_t extent_bytes;   // of the new extents, except the last ones
};

static struct piece *usable(struct piece *piece, const struct lane *lane)
{
    return piece && piece->kind == PIECE_FREE && piece->lane == lane ? piece : NULL;
}

static void consider(struct plan *best, struct plan plan)
{
    if (!best->hole || plan.bytes < best->bytes || (plan.bytes == best->bytes && plan.hole->bytes < best->hole->bytes))
        *best = plan;
}

// The new bytes that `needed` takes beside a free piece: whole blocks, at least one.
static uint64_t missing(uint64_t needed, const struct piece *beside)
{
    uint64_t bytes = beside && beside->bytes < needed ? needed - beside->bytes : beside ? 1 : needed;
    return (bytes + HEAP_BLOCK_BYTES - 1) / HEAP_BLOCK_BYTES * HEAP_BLOCK_BYTES;
}

// New blocks suit any alignment; an allocation that begins at `left` may have to skip some of it.
static void plan_in_hole(struct plan *best, struct piece *hole, uint64_t bytes, uint64_t alignment, struct lane *lane)
{
    struct piece *left = usable(hole->before, lane), *right = usable(hole->after, lane);
    uint64_t from_left = bytes + (left ? -left->address & (alignment - 1) : 0);
    uint64_t after_left = missing(from_left, left), before_right = missing(bytes, right);
    if (after_left <= hole->bytes)
        consider(best, (struct plan){hole, left, NULL, hole->address, after_left, lane, 0});
    if (right && before_right <= hole->bytes)
        consider(best, (struct plan){hole, NULL, right, piece_end(hole) - before_right, before_right, lane, 0});
    if (left && right && from_left <= left->bytes + hole->bytes + right->bytes)
        consider(best, (struct plan){hole, left, right, hole->address, hole->bytes, lane, 0});
}

static uint64_t extent_bytes(const struct heap *heap, uint64_t growth_bytes)
{
    uint64_t extents = heap_stuck(heap) > heap->live_bytes / 64 ? GROWTH_EXTENTS_TIGHT : GROWTH_EXTENTS;
    uint64_t bytes = HEAP_BLOCK_BYTES;
    while (bytes * 2 * extents <= growth_bytes && bytes < EXTENT_MAX_BLOCKS * HEAP_BLOCK_BYTES)
        bytes *= 2;
    return bytes;
}

// Finds the best place and takes it out of the holes and free pieces, so that nobody else does. The plan's hole is then just
// the new part. If there is no place, plan.hole is NULL.
static struct plan plan_growth(struct heap *heap, unsigned zone, uint64_t bytes, uint64_t alignment, struct lane *lane)
{
    struct plan best = {0};
    if (!pieces_reserve(heap, 2))
        return best;
    for (struct piece *hole = heap->zones[zone].holes; hole; hole = hole->next) {
        plan_in_hole(&best, hole, bytes, alignment, &heap->ready);
        if (lane != &heap->ready)
            plan_in_hole(&best, hole, bytes, alignment, lane);
    }
    if (!best.hole)
        return best;
    struct piece *lower = best.hole;
    hole_leave(heap, lower);
    if (best.address > lower->address) {
        best.hole = piece_split(heap, lower, best.address);
        hole_enter(heap, lower);
    }
    if (best.bytes < best.hole->bytes)
        hole_enter(heap, piece_split(heap, best.hole, best.address + best.bytes));
    if (best.left)
        free_leave(heap, best.left);
    if (best.right)
        free_leave(heap, best.right);
    best.extent_bytes = extent_bytes(heap, best.bytes);
    return best;
}

static void note_extent(struct heap *heap, struct zone *zone, const struct extent *range, struct extent *extent)
{
    uint64_t first = (range->address - zone->base) / HEAP_BLOCK_BYTES;
    for (uint64_t i = 0; i < range->bytes / HEAP_BLOCK_BYTES; i++)
        zone->extents[first + i] = extent;
    if (extent)
        heap->physical_bytes += range->bytes;
    else
        heap->physical_bytes -= range->bytes;
}

// Takes the longest idle extent out of the free memory, as a piece used by the caller. NULL: nothing is idle.
static struct piece *idle_take(struct heap *heap)
{
    fresh_enter(heap);
    struct piece *piece = heap->ready.oldest;
    if (!piece || !pieces_reserve(heap, 2))
        return NULL;
    const struct zone *zone = zone_of(heap, piece);
    uint64_t first = piece->address, end = piece_end(piece);
    narrow_to_extents(zone, &first, &end);
    // The last one: what stays begins where it did.
    const struct extent *extent = zone->extents[(end - 1 - zone->base) / HEAP_BLOCK_BYTES];
    if (extent->address > piece->address)
        piece = free_split(heap, piece, extent->address);
    if (end < piece_end(piece))
        free_split(heap, piece, end);
    free_leave(heap, piece);
    return piece;
}

// Joins a hole with its neighbours.
static void make_hole(struct heap *heap, struct piece *piece)
{
    if (piece->after && piece->after->kind == PIECE_HOLE) {
        hole_leave(heap, piece->after);
        piece_join(heap, piece);
    }
    if (piece->before && piece->before->kind == PIECE_HOLE) {
        piece = piece->before;
        hole_leave(heap, piece);
        piece_join(heap, piece);
    }
    hole_enter(heap, piece);
}

// Unmaps one idle extent and hands it over. NULL: there is none.
static struct extent *idle_unmap(struct heap *heap)
{
    lock_take(&heap->books);
    struct piece *piece = idle_take(heap);
    struct zone *zone = piece ? zone_of(heap, piece) : NULL;
    struct extent *extent = piece ? zone->extents[(piece->address - zone->base) / HEAP_BLOCK_BYTES] : NULL;
    lock_drop(&heap->books);
    if (!piece)
        return NULL;
    bool unmapped = heap->ops->unmap(heap->gpu, extent->address, extent->bytes) == 0;
    lock_take(&heap->books);
    if (unmapped) {
        note_extent(heap, zone, extent, NULL);
        make_hole(heap, piece);
        heap->released++;
    } else {
        free_enter(heap, piece, &heap->ready);
    }
    lock_drop(&heap->books);
    return unmapped ? extent : NULL;
}

static void extent_release(struct heap *heap, struct extent *extent)
{
    heap->ops->memory_release(heap->gpu, extent->handle, extent->bytes);
    free(extent);
}

uint64_t physical_trim(struct heap *heap, uint64_t keep_bytes)
{
    uint64_t given = 0;
    for (;;) {
        lock_take(&heap->books);
        fresh_enter(heap);
        bool enough = heap->idle_bytes <= keep_bytes;
        lock_drop(&heap->books);
        struct extent *extent = enough ? NULL : idle_unmap(heap);
        if (!extent)
            return given;
        given += extent->bytes;
        extent_release(heap, extent);
    }
}

// Makes one extent, without an address. If there is no room otherwise, what lies idle elsewhere gives way; one of the right
// size is taken as it is.
static struct extent *extent_make(struct heap *heap, uint64_t bytes)
{
    struct extent *extent = calloc(1, sizeof *extent), *idle;
    heap->failure = -ENOMEM;
    if (!extent)
        return NULL;
    extent->bytes = bytes;
    while ((heap->failure = heap->ops->memory_create(heap->gpu, bytes, &extent->handle))) {
        idle = idle_unmap(heap);
        if (!idle || idle->bytes == bytes) {
            free(extent);
            return idle;
        }
        extent_release(heap, idle);
    }
    return extent;
}

static void unmake(struct heap *heap, struct extent *list)
{
    while (list) {
        struct extent *extent = list;
        list = extent->next;
        if (heap->ops->unmap(heap->gpu, extent->address, extent->bytes) == 0)
            heap->ops->memory_release(heap->gpu, extent->handle, extent->bytes);
        free(extent);
    }
}

// Maps extents over the new part. NULL if that fails; then nothing is mapped.
static struct extent *make_and_map(struct heap *heap, const struct plan *plan)
{
    struct extent *list = NULL;
    uint64_t bytes = plan->extent_bytes;
    for (uint64_t done = 0; done < plan->bytes; done += bytes) {
        while (bytes > plan->bytes - done)
            bytes /= 2;
        struct extent *extent = extent_make(heap, bytes);
        if (!extent)
            goto fail;
        extent->address = plan->address + done;
        heap->failure = heap->ops->map(heap->gpu, extent->address, extent->bytes, extent->handle);
        if (heap->failure) {
            extent_release(heap, extent);
            goto fail;
        }
        extent->next = list;
        list = extent;
    }
    heap->failure = heap->ops->map_open(heap->gpu, plan->address, plan->bytes);
    if (heap->failure == 0)
        return list;
fail:
    unmake(heap, list);
    return NULL;
}

struct piece *physical_grow(struct heap *heap, unsigned zone, uint64_t bytes, uint64_t alignment, struct lane *lane)
{
    struct plan plan = plan_growth(heap, zone, bytes, alignment, lane);
    heap->failure = -ENOMEM;
    if (!plan.hole)
        return NULL;
    uint64_t missing_bytes = plan.bytes > heap->idle_bytes ? plan.bytes - heap->idle_bytes : 0;
    lock_drop(&heap->books);
    bool fits = !heap->ops->memory_fits || heap->ops->memory_fits(heap->gpu, missing_bytes);
    struct extent *list = fits ? make_and_map(heap, &plan) : NULL;
    lock_take(&heap->books);
    if (!list) {
        make_hole(heap, plan.hole);
        if (plan.left)
            free_enter(heap, plan.left, plan.lane);
        if (plan.right)
            free_enter(heap, plan.right, plan.lane);
        return NULL;
    }
    for (; list; list = list->next) {
        note_extent(heap, &heap->zones[zone], list, list);
        heap->created++;
    }
    struct piece *piece = plan.hole;
    if (plan.right)
        piece_join(heap, piece);
    if (plan.left) {
        piece = plan.left;
        piece_join(heap, piece);
    }
    return free_enter(heap, piece, plan.lane);
}

void physical_free(struct heap *heap)
{
    for (unsigned i = 0; i < ZONE_COUNT; i++) {
        struct zone *zone = &heap->zones[i];
        uint64_t at = zone->base;
        for (struct piece *piece = piece_at(heap, zone->base); piece; piece = piece->after) {
            // An extent may begin in an earlier piece and end in a later one.
            if (piece->kind == PIECE_HOLE)
                at = piece_end(piece);
            while (at < piece_end(piece)) {
                struct extent *extent = zone->extents[(at - zone->base) / HEAP_BLOCK_BYTES];
                at = extent->address + extent->bytes;
                extent->next = NULL;
                unmake(heap, extent);
            }
        }
    }
}
