// SPDX-License-Identifier: AGPL-3.0-or-later
// The heap's books: pieces by address, by size and by age.
#include "allocator/heap_books.h"

#include <errno.h>
#include <stdlib.h>

// How many pieces of a class are compared before the best one is taken.
#define FIT_LOOKS 16
#define BATCH_PIECES 256u

struct piece_batch {
    struct piece_batch *next;
    struct piece pieces[BATCH_PIECES];
};

unsigned class_of(uint64_t bytes)
{
    uint64_t units = bytes / HEAP_UNIT_BYTES;
    if (units < 32)
        return (unsigned)units;
    unsigned log = 63 - (unsigned)__builtin_clzll(units);
    return 32 + (log - 5) * 16 + (unsigned)((units >> (log - 4)) & 15);
}

bool pieces_reserve(struct heap *heap, unsigned count)
{
    if (heap->spares >= count)
        return true;
    int saved = errno;
    struct piece_batch *batch = malloc(sizeof *batch);
    errno = saved;
    if (!batch)
        return false;
    batch->next = heap->batches;
    heap->batches = batch;
    for (unsigned i = 0; i < BATCH_PIECES; i++) {
        batch->pieces[i].next = heap->spare;
        heap->spare = &batch->pieces[i];
    }
    heap->spares += BATCH_PIECES;
    return true;
}

void pieces_free(struct heap *heap)
{
    while (heap->batches) {
        struct piece_batch *batch = heap->batches;
        heap->batches = batch->next;
        free(batch);
    }
}

static struct piece **start_of(struct zone *zone, uint64_t address)
{
    return &zone->starts[(address - zone->base) >> zone->granule_shift];
}

// Takes a record, which the caller has reserved.
static struct piece *piece_make(struct heap *heap, struct piece from)
{
    struct piece *piece = heap->spare;
    heap->spare = piece->next;
    heap->spares--;
    *piece = from;
    struct piece **start = start_of(zone_of(heap, piece), piece->address);
    if (!*start || (*start)->address > piece->address)
        *start = piece;
    return piece;
}

void pieces_begin(struct heap *heap, unsigned zone)
{
    const struct zone *all = &heap->zones[zone];
    hole_enter(heap, piece_make(heap, (struct piece){.address = all->base, .bytes = all->bytes, .zone = (uint8_t)zone}));
}

struct piece *piece_split(struct heap *heap, struct piece *piece, uint64_t at)
{
    struct piece *upper = piece_make(heap, (struct piece){.address = at,
                                                          .bytes = piece_end(piece) - at,
                                                          .kind = piece->kind,
                                                          .zone = piece->zone,
                                                          .lane = piece->lane,
                                                          .epoch = piece->epoch,
                                                          .before = piece,
                                                          .after = piece->after});
    if (piece->after)
        piece->after->before = upper;
    piece->after = upper;
    piece->bytes = at - piece->address;
    return upper;
}

void piece_join(struct heap *heap, struct piece *piece)
{
    struct piece *upper = piece->after;
    struct zone *zone = zone_of(heap, piece);
    struct piece **start = start_of(zone, upper->address);
    if (*start == upper)
        *start = upper->after && start_of(zone, upper->after->address) == start ? upper->after : NULL;
    piece->bytes += upper->bytes;
    piece->after = upper->after;
    if (piece->after)
        piece->after->before = piece;
    upper->next = heap->spare;
    heap->spare = upper;
    heap->spares++;
}

struct piece *piece_at(struct heap *heap, uint64_t address)
{
    struct zone *zone = heap->zones;
    while (address - zone->base >= zone->bytes)
        zone++;
    struct piece **start = start_of(zone, address);
    while (!*start || (*start)->address > address)
        start--; // the zone's first granule has the zone's first piece
    struct piece *piece = *start;
    while (piece_end(piece) <= address)
        piece = piece->after;
    return piece;
}

static const struct extent *extent_at(const struct zone *zone, uint64_t address)
{
    return zone->extents[(address - zone->base) / HEAP_BLOCK_BYTES];
}

uint64_t narrow_to_extents(const struct zone *zone, uint64_t *first, uint64_t *end)
{
    if (*end - *first < HEAP_BLOCK_BYTES)
        return 0;
    const struct extent *head = extent_at(zone, *first), *tail = extent_at(zone, *end - 1);
    if (head->address < *first)
        *first = head->address + head->bytes;
    if (tail->address + tail->bytes > *end)
        *end = tail->address;
    return *end > *first ? *end - *first : 0;
}

static void list_push(struct piece **head, struct piece *piece)
{
    piece->previous = NULL;
    piece->next = *head;
    if (piece->next)
        piece->next->previous = piece;
    *head = piece;
}

static void list_remove(struct piece **head, struct piece *piece)
{
    if (piece->next)
        piece->next->previous = piece->previous;
    if (piece->previous)
        piece->previous->next = piece->next;
    else
        *head = piece->next;
}

void hole_enter(struct heap *heap, struct piece *piece)
{
    piece->kind = PIECE_HOLE;
    list_push(&zone_of(heap, piece)->holes, piece);
}

void hole_leave(struct heap *heap, struct piece *piece)
{
    list_remove(&zone_of(heap, piece)->holes, piece);
    piece->kind = PIECE_USED;
    piece->asked = 0;
}

// Adds a free piece to the class of its size, or removes it, and updates the sums.
static void class_enter(struct heap *heap, struct piece *piece)
{
    struct lane *lane = piece->lane;
    struct bins *bins = &lane->bins[piece->zone];
    unsigned class = class_of(piece->bytes);
    uint64_t first = piece->address, end = piece_end(piece);
    list_push(&bins->heads[class], piece);
    bins->filled[class / 64] |= 1ull << class % 64;
    lane->bytes += piece->bytes;
    if (lane == &heap->ready)
        heap->idle_bytes += piece->whole = narrow_to_extents(zone_of(heap, piece), &first, &end);
    else
        heap->waiting_bytes += piece->bytes;
}

static void class_leave(struct heap *heap, struct piece *piece)
{
    struct lane *lane = piece->lane;
    struct bins *bins = &lane->bins[piece->zone];
    unsigned class = class_of(piece->bytes);
    list_remove(&bins->heads[class], piece);
    if (!bins->heads[class])
        bins->filled[class / 64] &= ~(1ull << class % 64);
    lane->bytes -= piece->bytes;
    if (lane == &heap->ready)
        heap->idle_bytes -= piece->whole;
    else
        heap->waiting_bytes -= piece->bytes;
}

// Queues a piece behind another, or as the oldest.
static void queue_insert(struct piece *piece, struct piece *older)
{
    struct lane *lane = piece->lane;
    piece->older = older;
    piece->newer = older ? older->newer : lane->oldest;
    *(piece->older ? &piece->older->newer : &lane->oldest) = piece;
    *(piece->newer ? &piece->newer->older : &lane->newest) = piece;
    piece->queued = true;
}

static void queue_remove(struct piece *piece)
{
    struct lane *lane = piece->lane;
    if (!piece->queued)
        return;
    *(piece->older ? &piece->older->newer : &lane->oldest) = piece->newer;
    *(piece->newer ? &piece->newer->older : &lane->newest) = piece->older;
    piece->queued = false;
}

static bool queue_wants(struct heap *heap, const struct piece *piece)
{
    return piece->lane != &heap->ready || piece->whole > 0;
}

void free_take(struct heap *heap, struct piece *piece, uint64_t bytes)
{
    class_leave(heap, piece);
    if (piece->bytes > bytes) {
        struct piece *rest = piece_split(heap, piece, piece->address + bytes);
        class_enter(heap, rest);
        if (piece->queued && queue_wants(heap, rest))
            queue_insert(rest, piece);
    }
    queue_remove(piece);
    piece->kind = PIECE_USED;
    piece->asked = 0;
}

void free_leave(struct heap *heap, struct piece *piece)
{
    free_take(heap, piece, piece->bytes);
}

// Nothing is allocated from the lane `any`: what a mark covers must not be joined there with what has to wait for the next one.
static bool joins(const struct heap *heap, const struct piece *piece, const struct lane *lane)
{
    return piece && piece->kind == PIECE_FREE && piece->lane == lane && (lane != &heap->any || piece->epoch == lane->epoch);
}

struct piece *free_enter(struct heap *heap, struct piece *piece, struct lane *lane)
{
    if (joins(heap, piece->after, lane)) {
        free_leave(heap, piece->after);
        piece_join(heap, piece);
    }
    if (joins(heap, piece->before, lane)) {
        piece = piece->before;
        free_leave(heap, piece);
        piece_join(heap, piece);
    }
    piece->kind = PIECE_FREE;
    piece->lane = lane;
    piece->epoch = lane->epoch;
    piece->queued = false;
    class_enter(heap, piece);
    if (queue_wants(heap, piece))
        queue_insert(piece, lane->newest);
    return piece;
}

uint64_t free_growth(struct heap *heap, const struct piece *piece, const struct lane *lane)
{
    uint64_t first = piece->address, end = piece_end(piece), counted = 0;
    if (lane != &heap->ready)
        return piece->bytes;
    if (joins(heap, piece->before, lane)) {
        first = piece->before->address;
        counted += piece->before->whole;
    }
    if (joins(heap, piece->after, lane)) {
        end = piece_end(piece->after);
        counted += piece->after->whole;
    }
    return narrow_to_extents(zone_of(heap, piece), &first, &end) - counted;
}

void fresh_enter(struct heap *heap)
{
    struct piece *piece = heap->fresh;
    heap->fresh = NULL;
    if (piece)
        free_enter(heap, piece, piece->lane);
}

struct piece *free_split(struct heap *heap, struct piece *piece, uint64_t at)
{
    class_leave(heap, piece);
    struct piece *upper = piece_split(heap, piece, at);
    class_enter(heap, piece);
    class_enter(heap, upper);
    if (piece->queued && queue_wants(heap, upper))
        queue_insert(upper, piece);
    if (piece->queued && !queue_wants(heap, piece))
        queue_remove(piece);
    return upper;
}

static bool fits(const struct piece *piece, uint64_t bytes, uint64_t alignment)
{
    uint64_t waste = -piece->address & (alignment - 1);
    return piece->bytes >= bytes && piece->bytes - bytes >= waste;
}

static struct piece *best_of(struct piece *piece, uint64_t bytes, uint64_t alignment)
{
    struct piece *best = NULL;
    for (int looks = 0; piece && looks < FIT_LOOKS; piece = piece->next, looks++)
        if (fits(piece, bytes, alignment) && (!best || piece->bytes < best->bytes))
            best = piece;
    return best;
}

struct piece *free_fit(struct lane *lane, unsigned zone, uint64_t bytes, uint64_t alignment)
{
    const struct bins *bins = &lane->bins[zone];
    unsigned class = class_of(bytes);
    uint64_t word = bins->filled[class / 64] & ~0ull << class % 64;
    for (unsigned i = class / 64;;) {
        while (word) {
            struct piece *best = best_of(bins->heads[i * 64 + (unsigned)__builtin_ctzll(word)], bytes, alignment);
            if (best)
                return best;
            word &= word - 1;
        }
        if (++i == CLASS_COUNT / 64)
            return NULL;
        word = bins->filled[i];
    }
}
