// SPDX-License-Identifier: AGPL-3.0-or-later
// Verifies the heap's books: every record against every other.
#include "allocator/heap_books.h"

#define FAIL_UNLESS(condition)                                                                                                 \
    do {                                                                                                                       \
        if (!(condition))                                                                                                      \
            return #condition;                                                                                                 \
    } while (0)

// What is counted piece by piece, for comparison with the heap's sums.
struct counts {
    uint64_t live_bytes, live_count, physical_bytes, idle_bytes, waiting_bytes, free, queued, holes;
};

static const char *check_free(struct heap *heap, const struct piece *piece, struct counts *counts)
{
    uint64_t first = piece->address, end = piece_end(piece), whole = narrow_to_extents(zone_of(heap, piece), &first, &end);
    const struct piece *after = piece->after;
    FAIL_UNLESS(!after || after->kind != PIECE_FREE || after->lane != piece->lane ||
                (piece->lane == &heap->any && after->epoch != piece->epoch));
    FAIL_UNLESS(piece->epoch <= piece->lane->epoch);
    FAIL_UNLESS(piece->lane != &heap->ready || piece->whole == whole);
    FAIL_UNLESS(piece->queued == (piece->lane != &heap->ready || whole > 0));
    counts->free++;
    counts->queued += piece->queued;
    *(piece->lane == &heap->ready ? &counts->idle_bytes : &counts->waiting_bytes) +=
        piece->lane == &heap->ready ? whole : piece->bytes;
    return NULL;
}

static const char *check_piece(struct heap *heap, const struct piece *piece, struct counts *counts)
{
    const struct zone *zone = zone_of(heap, piece);
    const struct piece *after = piece->after;
    FAIL_UNLESS(piece->bytes && piece->bytes % HEAP_UNIT_BYTES == 0);
    FAIL_UNLESS(!after || (after->before == piece && after->address == piece_end(piece) && after->zone == piece->zone));
    FAIL_UNLESS(after || piece_end(piece) == zone->base + zone->bytes);
    switch (piece->kind) {
    case PIECE_USED:
        FAIL_UNLESS(piece->asked && piece->asked <= piece->bytes && piece->bytes - piece->asked < HEAP_WIDE_UNIT_BYTES);
        counts->live_bytes += piece->asked;
        counts->live_count++;
        return NULL;
    case PIECE_FREE:
        return check_free(heap, piece, counts);
    case PIECE_HOLE:
        FAIL_UNLESS(piece->address % HEAP_BLOCK_BYTES == 0 && piece->bytes % HEAP_BLOCK_BYTES == 0);
        FAIL_UNLESS(!after || after->kind != PIECE_HOLE);
        counts->holes++;
        return NULL;
    }
    return "a piece of no kind";
}

// The table of starts, up to the last mapped piece; what lies above was never touched or is empty.
static const char *check_starts(const struct zone *zone, const struct piece *piece)
{
    uint64_t expected = 0;
    for (; piece && piece->after; piece = piece->after) {
        uint64_t granule = (piece->address - zone->base) >> zone->granule_shift;
        if (granule < expected)
            continue; // not the first in its granule
        for (; expected < granule; expected++)
            FAIL_UNLESS(!zone->starts[expected]);
        FAIL_UNLESS(zone->starts[granule] == piece);
        expected++;
    }
    return NULL;
}

static const char *check_extents(const struct zone *zone, const struct piece *piece, struct counts *counts)
{
    uint64_t at = zone->base;
    for (; piece; piece = piece->after) {
        if (piece->kind == PIECE_HOLE) {
            FAIL_UNLESS(at == piece->address);
            for (; piece->after && at < piece_end(piece); at += HEAP_BLOCK_BYTES)
                FAIL_UNLESS(!zone->extents[(at - zone->base) / HEAP_BLOCK_BYTES]);
            at = piece_end(piece);
        }
        while (at < piece_end(piece)) {
            const struct extent *extent = zone->extents[(at - zone->base) / HEAP_BLOCK_BYTES];
            FAIL_UNLESS(extent && extent->address == at && extent->bytes && extent->bytes % HEAP_BLOCK_BYTES == 0);
            for (; at < extent->address + extent->bytes; at += HEAP_BLOCK_BYTES)
                FAIL_UNLESS(zone->extents[(at - zone->base) / HEAP_BLOCK_BYTES] == extent);
            counts->physical_bytes += extent->bytes;
        }
    }
    return NULL;
}

static const char *check_bins(const struct lane *lane, unsigned zone, struct counts *counts, uint64_t *bytes)
{
    const struct bins *bins = &lane->bins[zone];
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        FAIL_UNLESS(!bins->heads[class] == !(bins->filled[class / 64] >> class % 64 & 1));
        const struct piece *previous = NULL;
        for (const struct piece *piece = bins->heads[class]; piece; previous = piece, piece = piece->next) {
            FAIL_UNLESS(piece->previous == previous);
            FAIL_UNLESS(piece->kind == PIECE_FREE && piece->lane == lane && piece->zone == zone);
            FAIL_UNLESS(class_of(piece->bytes) == class);
            *bytes += piece->bytes;
            counts->free--;
        }
    }
    return NULL;
}

static const char *check_lane(const struct lane *lane, struct counts *counts)
{
    uint64_t bytes = 0;
    const char *fault = NULL;
    for (unsigned zone = 0; zone < ZONE_COUNT && !fault; zone++)
        fault = check_bins(lane, zone, counts, &bytes);
    if (fault)
        return fault;
    FAIL_UNLESS(bytes == lane->bytes);
    const struct piece *older = NULL;
    for (const struct piece *piece = lane->oldest; piece; older = piece, piece = piece->newer) {
        FAIL_UNLESS(piece->queued && piece->lane == lane && piece->older == older);
        FAIL_UNLESS(!older || older->epoch <= piece->epoch);
        counts->queued--;
    }
    FAIL_UNLESS(lane->newest == older);
    return NULL;
}

static const char *check_zone(struct heap *heap, struct zone *zone, struct counts *counts)
{
    const struct piece *first = piece_at(heap, zone->base);
    const char *fault = NULL;
    FAIL_UNLESS(!first->before && first->address == zone->base);
    for (const struct piece *piece = first; piece && !fault; piece = piece->after)
        fault = check_piece(heap, piece, counts);
    if (!fault)
        fault = check_starts(zone, first);
    if (!fault)
        fault = check_extents(zone, first, counts);
    if (fault)
        return fault;
    for (const struct piece *hole = zone->holes; hole; hole = hole->next) {
        FAIL_UNLESS(hole->kind == PIECE_HOLE && zone_of(heap, hole) == zone);
        FAIL_UNLESS(!hole->next || hole->next->previous == hole);
        counts->holes--;
    }
    return NULL;
}

const char *heap_check(struct heap *heap)
{
    struct counts counts = {0};
    const char *fault = NULL;
    fresh_enter(heap);
    for (unsigned zone = 0; zone < ZONE_COUNT && !fault; zone++)
        fault = check_zone(heap, &heap->zones[zone], &counts);
    if (!fault)
        fault = check_lane(&heap->ready, &counts);
    if (!fault)
        fault = check_lane(&heap->any, &counts);
    for (const struct lane *lane = heap->lanes; lane && !fault; lane = lane->following)
        fault = check_lane(lane, &counts);
    if (fault)
        return fault;
    FAIL_UNLESS(counts.holes == 0 && counts.free == 0 && counts.queued == 0);
    FAIL_UNLESS(counts.live_bytes == heap->live_bytes && counts.live_count == heap->live_count);
    FAIL_UNLESS(counts.physical_bytes == heap->physical_bytes);
    FAIL_UNLESS(counts.idle_bytes == heap->idle_bytes && counts.waiting_bytes == heap->waiting_bytes);
    return NULL;
}
