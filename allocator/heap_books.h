// SPDX-License-Identifier: AGPL-3.0-or-later
// Inside the heap: its records of pieces, lanes, zones and extents. Only allocator/heap*.c include this.
//
// A free piece is in a lane: `ready` (any allocation may have it), `any` (waits for a mark behind all work), or the lane of the
// stream it was freed on. Each lane keeps its free pieces twice: by size class, for allocations, and in the order in which they
// became free. The ready lane's order has only pieces that contain whole extents, which can go back.
//
// The piece that was freed last is `fresh`: its lane is known, but it has not been entered there, and to everything else it looks
// as if a call were still using it. A program that frees a piece is likely to want as much again, and then gets this one as it
// is; any other call first enters it into its lane. It is entered at once if no allocation could have it there (the lane `any`),
// or if more would be spare than is allowed.
//
// Everything here needs the `books` lock. Extents and holes change only with `grow` held as well, so a holder of `grow` may
// rely on them.
#ifndef VGPU_ALLOCATOR_HEAP_BOOKS_H
#define VGPU_ALLOCATOR_HEAP_BOOKS_H

#include <pthread.h>
#include <stddef.h>

#include "allocator/heap.h"
#include "base/lock.h"

enum { ZONE_SMALL, ZONE_MEDIUM, ZONE_LARGE, ZONE_COUNT };

// Size classes: one for each multiple of the unit up to 8 KiB, from there on sixteen for each doubling.
#define CLASS_COUNT 512u
// What cuMemAlloc aligns to.
#define HEAP_WIDE_UNIT_BYTES (2 * HEAP_UNIT_BYTES)
// The largest capacity: what the classes reach, less two doublings.
#define HEAP_MAX_CAPACITY (1ull << 41)

enum piece_kind { PIECE_USED, PIECE_FREE, PIECE_HOLE };

struct piece {
    uint64_t address;
    uint64_t bytes;
    uint64_t asked;                // used: bytes asked for; 0: not an allocation, but held by a call that is under way
    uint64_t id;                   // used
    struct piece *before, *after;  // by address
    struct piece *previous, *next; // free: in its class; hole: among the zone's holes
    struct piece *older, *newer;   // free and queued: in the lane's order
    struct lane *lane;             // free, or fresh
    uint64_t epoch;                // free: the lane's when it was freed
    uint64_t whole;                // free and ready: bytes of the whole extents in it
    uint8_t kind, zone;
    bool queued;
};

struct bins {
    uint64_t filled[CLASS_COUNT / 64];
    struct piece *heads[CLASS_COUNT];
};

// A mark put now stands behind everything freed until now, so one outstanding mark per lane is enough: epochs say what it
// covers.
struct lane {
    void *stream;
    bool ended;      // the stream is gone; no allocation finds this lane
    uint64_t epoch;  // of what is being freed
    void *mark;      // NULL: none put
    uint64_t marked; // the last epoch that the mark covers
    uint64_t serial; // of the mark, among all that were put
    uint64_t bytes;
    struct piece *oldest, *newest;
    struct lane *following;
    struct bins bins[ZONE_COUNT];
};

// Physical memory: one handle, mapped whole.
struct extent {
    uint64_t address;
    uint64_t bytes;
    uint64_t handle;
    struct extent *next; // on a list of new ones
};

struct zone {
    uint64_t base, bytes;
    unsigned granule_shift;
    struct piece **starts;   // for each granule of addresses the lowest piece that begins in it
    struct extent **extents; // for each block
    struct piece *holes;
};

struct piece_batch;

struct heap {
    const struct heap_gpu *ops;
    void *gpu;
    uint64_t capacity_bytes, floor_bytes;
    uint64_t base, bytes; // of all zones
    void *tables;
    size_t tables_bytes;

    pthread_mutex_t grow;
    struct lock books;
    struct zone zones[ZONE_COUNT];
    struct lane ready, any;
    struct lane *lanes;  // of streams
    struct lane *recent; // one of them, or NULL
    uint64_t marks_put;
    int failure;         // why the heap did not grow the last time; under `grow`
    struct piece *fresh; // or NULL
    uint64_t last_id;
    struct piece *spare; // by next
    unsigned spares;
    struct piece_batch *batches;
    uint64_t live_bytes, live_count, physical_bytes, idle_bytes, waiting_bytes, created, released;
    uint64_t look_bytes; // when waiting_bytes reaches this, marks are looked at without a need
};

static inline uint64_t piece_end(const struct piece *piece)
{
    return piece->address + piece->bytes;
}

static inline struct zone *zone_of(struct heap *heap, const struct piece *piece)
{
    return &heap->zones[piece->zone];
}

// Memory that is free in whole extents or waits for work.
static inline uint64_t heap_spare(const struct heap *heap)
{
    return heap->idle_bytes + heap->waiting_bytes;
}

// Memory that is neither in use nor free in whole extents.
static inline uint64_t heap_stuck(const struct heap *heap)
{
    uint64_t rest = heap->physical_bytes - heap_spare(heap);
    return rest > heap->live_bytes ? rest - heap->live_bytes : 0;
}

// How much may lie idle or wait before something is done about it: together with the stuck memory a sixteenth of what is in
// use, or the floor.
static inline uint64_t heap_bound(const struct heap *heap)
{
    uint64_t stuck = heap_stuck(heap), room = heap->live_bytes / 16;
    return room > stuck + heap->floor_bytes ? room - stuck : heap->floor_bytes;
}

unsigned class_of(uint64_t bytes);

// Makes sure that `count` splits can be made. false: no memory.
bool pieces_reserve(struct heap *heap, unsigned count);
void pieces_free(struct heap *heap);
// The first piece of a zone, a hole over all of it.
void pieces_begin(struct heap *heap, unsigned zone);

// Splits a piece that is in no class and no order. Returns the upper part, of the same kind.
struct piece *piece_split(struct heap *heap, struct piece *piece, uint64_t at);
// Joins a piece, which like its upper neighbour is in no class and no order, with that neighbour.
void piece_join(struct heap *heap, struct piece *piece);
// The piece that contains an address of the heap.
struct piece *piece_at(struct heap *heap, uint64_t address);
// Narrows mapped addresses [*first, *end) to the whole extents among them. Returns how many bytes these have.
uint64_t narrow_to_extents(const struct zone *zone, uint64_t *first, uint64_t *end);

// Makes a piece free in a lane, as its newest, together with free neighbours of the same lane. Returns the whole.
struct piece *free_enter(struct heap *heap, struct piece *piece, struct lane *lane);
// The opposite: the piece is used, by a call that is under way.
void free_leave(struct heap *heap, struct piece *piece);
// The same for its first `bytes`; the rest stays free and keeps the place in the order.
void free_take(struct heap *heap, struct piece *piece, uint64_t bytes);
// Splits a free piece; both parts stay free and keep their place in the order. Returns the upper one.
struct piece *free_split(struct heap *heap, struct piece *piece, uint64_t at);
// By how much a free_enter of this piece would raise what is spare.
uint64_t free_growth(struct heap *heap, const struct piece *piece, const struct lane *lane);
// Enters the fresh piece, if there is one, into its lane.
void fresh_enter(struct heap *heap);
// The best free piece of a lane for an allocation, NULL if none is large enough.
struct piece *free_fit(struct lane *lane, unsigned zone, uint64_t bytes, uint64_t alignment);

void hole_enter(struct heap *heap, struct piece *piece);
void hole_leave(struct heap *heap, struct piece *piece);

// allocator/heap_lanes.c
// The lane of a stream, NULL if it has none (with `make`: if there is no memory to make one).
struct lane *lane_find(struct heap *heap, void *stream, bool make);
void lanes_free(struct heap *heap);
// With both locks: what marks have shown to be complete becomes ready. Returns whether any was done.
bool lanes_look(struct heap *heap);
// With `grow` only: puts marks for what waits without one.
void lanes_mark(struct heap *heap);
// With `grow` only: puts a lane's mark behind everything freed until now, even where it has one. false: cannot now.
bool lane_mark(struct heap *heap, struct lane *lane);
// With both: everything in the lane is complete.
void lane_complete(struct heap *heap, struct lane *lane);
// With `books`: whether any mark is outstanding, of those up to a serial number.
bool lanes_marked(const struct heap *heap, uint64_t serial);

// allocator/heap_physical.c. With both locks; `books` is dropped meanwhile. Grows the zone where a piece of `bytes` at
// `alignment` costs the fewest blocks. Gives back what is idle elsewhere if there is no room otherwise. Returns a free piece
// that is large enough, in `lane` or ready, or NULL.
struct piece *physical_grow(struct heap *heap, unsigned zone, uint64_t bytes, uint64_t alignment, struct lane *lane);
// With `grow` only.
// Gives idle extents back, the longest idle first, until at most `keep_bytes` are. Returns what was given back.
uint64_t physical_trim(struct heap *heap, uint64_t keep_bytes);
// For the end of the heap: gives everything back, used or not.
void physical_free(struct heap *heap);

#endif
