// SPDX-License-Identifier: AGPL-3.0-or-later
#include "allocator/heap_books.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/cancel.h"
#include "base/clock.h"

// How often a thread that waits for freed memory looks: a mark is seen at most this late.
#define WAIT_LOOK_NS 20000
// What growing, and later giving back, costs; a GPU that keeps up reaches a mark sooner.
#define WAIT_SPIN_NS 50000
// The marks that are found or put, and those put once these are done, together stand behind all that was freed before. What
// others free meanwhile is not waited for: a request that can't be met would not be refused as long as they go on.
#define WAIT_ROUNDS 2
// If more lies idle or waits than may, this part of the bound is given back as well, or every further free would find it full.
#define RELIEF_PART 64

// A zone: sizes up to max_bytes. The table of starts has an entry for each granule of its addresses, so that finding a piece
// takes few steps; the addresses are `times` the capacity, since pieces of many blocks leave holes that suit none of the next.
static const struct {
    uint64_t max_bytes;
    unsigned granule_shift;
    unsigned times;
} zone_kinds[ZONE_COUNT] = {
    [ZONE_SMALL] = {64ull << 10, 12, 1},
    [ZONE_MEDIUM] = {16ull << 20, 16, 4},
    [ZONE_LARGE] = {UINT64_MAX, 21, 16},
};

// Heaps take the ids of their allocations from here, this many at a time.
#define IDS 4096
static _Atomic uint64_t ids_taken;

static size_t starts_bytes(const struct heap *heap, unsigned zone)
{
    return (heap->zones[zone].bytes >> heap->zones[zone].granule_shift) * sizeof(struct piece *);
}

static size_t extents_bytes(const struct heap *heap, unsigned zone)
{
    return heap->zones[zone].bytes / HEAP_BLOCK_BYTES * sizeof(struct extent *);
}

// The tables are as large as the address space demands, and take memory only where used.
static int make_tables(struct heap *heap)
{
    for (unsigned i = 0; i < ZONE_COUNT; i++)
        heap->tables_bytes += starts_bytes(heap, i) + extents_bytes(heap, i);
    char *at = mmap(NULL, heap->tables_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -ENOMEM;
    heap->tables = at;
    for (unsigned i = 0; i < ZONE_COUNT; i++) {
        heap->zones[i].starts = (struct piece **)(void *)at;
        at += starts_bytes(heap, i);
        heap->zones[i].extents = (struct extent **)(void *)at;
        at += extents_bytes(heap, i);
    }
    return 0;
}

static void free_books(struct heap *heap)
{
    if (heap->tables)
        munmap(heap->tables, heap->tables_bytes);
    pieces_free(heap);
    pthread_mutex_destroy(&heap->grow);
    free(heap);
}

int heap_create(const struct heap_config *config, struct heap **out)
{
    int saved = errno;
    uint64_t capacity = config->capacity_bytes / HEAP_BLOCK_BYTES * HEAP_BLOCK_BYTES;
    if (!capacity || capacity > HEAP_MAX_CAPACITY)
        return -EINVAL;
    struct heap *heap = calloc(1, sizeof *heap);
    int rc = heap ? 0 : -ENOMEM;
    if (rc)
        goto out;
    heap->ops = config->ops;
    heap->gpu = config->gpu;
    heap->capacity_bytes = capacity;
    heap->floor_bytes = config->reserve_bytes ? config->reserve_bytes : HEAP_RESERVE_BYTES;
    heap->any.stream = HEAP_ANY_STREAM;
    pthread_mutex_init(&heap->grow, NULL);
    for (unsigned i = 0; i < ZONE_COUNT; i++) {
        heap->zones[i].granule_shift = zone_kinds[i].granule_shift;
        heap->zones[i].bytes = capacity * zone_kinds[i].times;
        heap->bytes += heap->zones[i].bytes;
    }
    rc = pieces_reserve(heap, ZONE_COUNT) ? make_tables(heap) : -ENOMEM;
    if (rc == 0)
        rc = heap->ops->range_reserve(heap->gpu, heap->bytes, &heap->base);
    if (rc) {
        free_books(heap);
        goto out;
    }
    for (uint64_t i = 0, at = heap->base; i < ZONE_COUNT; at += heap->zones[i++].bytes) {
        heap->zones[i].base = at;
        pieces_begin(heap, (unsigned)i);
    }
    *out = heap;
out:
    errno = saved;
    return rc;
}

void heap_destroy(struct heap *heap)
{
    lanes_free(heap);
    physical_free(heap);
    heap->ops->range_release(heap->gpu, heap->base, heap->bytes);
    free_books(heap);
}

bool heap_owns(const struct heap *heap, uint64_t address)
{
    return address - heap->base < heap->bytes;
}

// What an allocation wants.
struct want {
    uint64_t asked, bytes, alignment;
    unsigned zone;
    void *stream;
};

// The best piece for it in the lane of its stream and among those free for all.
static struct piece *find(struct heap *heap, const struct want *want, struct lane *lane)
{
    struct piece *piece = free_fit(&heap->ready, want->zone, want->bytes, want->alignment);
    struct piece *own = lane ? free_fit(lane, want->zone, want->bytes, want->alignment) : NULL;
    return own && (!piece || own->bytes <= piece->bytes) ? own : piece;
}

static struct lane *lane_of(struct heap *heap, void *stream)
{
    return stream == HEAP_ANY_STREAM ? NULL : lane_find(heap, stream, false);
}

// Turns a piece held by this call into the allocation.
static void give_out(struct heap *heap, const struct want *want, struct piece *piece, uint64_t *address)
{
    if (heap->last_id % IDS == 0)
        heap->last_id = atomic_fetch_add_explicit(&ids_taken, IDS, memory_order_relaxed);
    piece->id = ++heap->last_id;
    piece->asked = want->asked;
    heap->live_bytes += want->asked;
    heap->live_count++;
    *address = piece->address;
}

// The same with a free piece that is large enough. Two records are in reserve.
static void take(struct heap *heap, const struct want *want, struct piece *piece, uint64_t *address)
{
    uint64_t waste = -piece->address & (want->alignment - 1);
    if (waste)
        piece = free_split(heap, piece, piece->address + waste);
    free_take(heap, piece, want->bytes);
    give_out(heap, want, piece, address);
}

static bool suits(const struct heap *heap, const struct piece *fresh, const struct want *want)
{
    return fresh && fresh->bytes == want->bytes && !(fresh->address & (want->alignment - 1)) &&
           (fresh->lane == &heap->ready || fresh->lane->stream == want->stream);
}

// With `books`: 0, or -EAGAIN if nothing free is large enough.
static int take_free(struct heap *heap, const struct want *want, uint64_t *address)
{
    if (suits(heap, heap->fresh, want)) {
        give_out(heap, want, heap->fresh, address);
        heap->fresh = NULL;
        return 0;
    }
    fresh_enter(heap);
    if (!pieces_reserve(heap, 2))
        return -ENOMEM;
    struct piece *piece = find(heap, want, lane_of(heap, want->stream));
    if (!piece)
        return -EAGAIN;
    take(heap, want, piece, address);
    return 0;
}

static void nap(void)
{
    int cancel = cancel_disable();
    nanosleep(&(struct timespec){.tv_nsec = WAIT_LOOK_NS}, NULL);
    cancel_restore(cancel);
}

// With both locks: waits for a mark, letting others have `books` in between. Returns whether one was done.
static bool wait_a_little(struct heap *heap)
{
    uint64_t deadline = clock_now_ns() + WAIT_SPIN_NS;
    bool any;
    while (!(any = lanes_look(heap)) && clock_now_ns() < deadline) {
        lock_drop(&heap->books);
        lock_take(&heap->books);
    }
    return any;
}

static void wait_longer(struct heap *heap)
{
    lock_drop(&heap->books);
    pthread_mutex_unlock(&heap->grow);
    nap();
    pthread_mutex_lock(&heap->grow);
    lock_take(&heap->books);
}

// With both locks: 0, -EAGAIN if there is no room, -ENOMEM if there is none for the books, or what the GPU failed with.
static int take_grown(struct heap *heap, const struct want *want, uint64_t *address)
{
    struct lane *lane = lane_of(heap, want->stream);
    struct piece *piece = physical_grow(heap, want->zone, want->bytes, want->alignment, lane ? lane : &heap->ready);
    if (!piece)
        return heap->failure == -ENOMEM ? -EAGAIN : heap->failure;
    if (!pieces_reserve(heap, 2))
        return -ENOMEM;
    take(heap, want, piece, address);
    return 0;
}

// With both locks: looks for memory whose work is done by now, then grows, then waits for work.
static int take_somehow(struct heap *heap, const struct want *want, uint64_t *address)
{
    uint64_t awaited = 0; // the last mark of this round
    int rounds = 0;
    for (bool spare_marks = true;; spare_marks = false) {
        lanes_look(heap);
        int rc = take_free(heap, want, address);
        if (rc != -EAGAIN)
            return rc;
        uint64_t bound = heap_bound(heap);
        // A mark costs as much as several allocations. While little waits, the heap grows within its reserve instead.
        if (spare_marks && heap->waiting_bytes + want->bytes <= bound / 4 && (rc = take_grown(heap, want, address)) != -EAGAIN)
            return rc;
        lock_drop(&heap->books);
        lanes_mark(heap);
        lock_take(&heap->books);
        if (!lanes_marked(heap, awaited)) {
            awaited = heap->marks_put;
            rounds++;
        }
        bool over = rounds > WAIT_ROUNDS;
        // What waits for work is soon ready on a GPU that keeps up, and growing costs more than a short wait. A synchronous
        // free would have waited as long as it takes: the next such allocation does, rather than let the heap grow without end.
        bool marked = lanes_marked(heap, UINT64_MAX);
        if (!over && (marked && heap->waiting_bytes >= bound / 2 ? wait_a_little(heap) : lanes_look(heap)))
            continue;
        if (over || want->stream != HEAP_ANY_STREAM || !heap->any.mark || heap->any.bytes <= bound) {
            rc = take_grown(heap, want, address);
            if (rc != -EAGAIN)
                return rc;
            if (over || !lanes_marked(heap, UINT64_MAX))
                return -ENOMEM;
        }
        wait_longer(heap);
    }
}

static int take_slowly(struct heap *heap, const struct want *want, uint64_t *address)
{
    int saved = errno;
    pthread_mutex_lock(&heap->grow);
    lock_take(&heap->books);
    int rc = take_somehow(heap, want, address);
    lock_drop(&heap->books);
    pthread_mutex_unlock(&heap->grow);
    errno = saved;
    return rc;
}

int heap_alloc(struct heap *heap, uint64_t bytes, uint64_t alignment, void *stream, uint64_t *address)
{
    if (!alignment)
        alignment = HEAP_UNIT_BYTES;
    if (!bytes || alignment & (alignment - 1) || alignment > HEAP_BLOCK_BYTES)
        return -EINVAL;
    if (bytes > heap->capacity_bytes)
        return -ENOMEM;
    // If all pieces are multiples of a small alignment, all are aligned as they come.
    uint64_t unit = alignment == HEAP_WIDE_UNIT_BYTES ? HEAP_WIDE_UNIT_BYTES : HEAP_UNIT_BYTES;
    struct want want = {
        .asked = bytes,
        .bytes = (bytes + unit - 1) & -unit,
        .alignment = alignment < unit ? unit : alignment,
        .stream = stream,
    };
    while (bytes > zone_kinds[want.zone].max_bytes)
        want.zone++;
    lock_take(&heap->books);
    int rc = take_free(heap, &want, address);
    lock_drop(&heap->books);
    return rc == -EAGAIN ? take_slowly(heap, &want, address) : rc;
}

// The allocation that contains an address. Returns 0, -ENOENT or -EALREADY.
static int find_used(struct heap *heap, uint64_t address, struct piece **piece)
{
    if (!heap_owns(heap, address))
        return -ENOENT;
    *piece = piece_at(heap, address);
    return (*piece)->kind == PIECE_USED && (*piece)->asked ? 0 : -EALREADY;
}

// More lies idle or waits than should. Whoever is growing now will see to it.
static void relieve(struct heap *heap)
{
    int saved = errno;
    if (pthread_mutex_trylock(&heap->grow))
        return;
    lanes_mark(heap);
    lock_take(&heap->books);
    bool any = lanes_look(heap);
    uint64_t bound = heap_bound(heap), keep = bound - bound / RELIEF_PART, waiting = heap->waiting_bytes;
    heap->look_bytes = any ? 0 : waiting + bound / 8;
    lock_drop(&heap->books);
    physical_trim(heap, waiting < keep ? keep - waiting : 0);
    pthread_mutex_unlock(&heap->grow);
    errno = saved;
}

static struct lane *lane_for_free(struct heap *heap, void *stream)
{
    if (stream == HEAP_ANY_STREAM)
        return heap->ops->is_idle && heap->ops->is_idle(heap->gpu) ? &heap->ready : &heap->any;
    // If there is no memory for a lane of the stream's own, the mark behind all work will do.
    struct lane *lane = lane_find(heap, stream, true);
    return lane ? lane : &heap->any;
}

// Makes a piece the fresh one, or enters it into its lane. Returns whether more lies idle or waits than may.
static bool put_back(struct heap *heap, struct piece *piece, struct lane *lane)
{
    fresh_enter(heap);
    piece->asked = 0;
    piece->lane = lane;
    heap->fresh = piece;
    if (lane != &heap->any && heap_spare(heap) + free_growth(heap, piece, lane) <= heap_bound(heap))
        return false;
    fresh_enter(heap);
    return heap_spare(heap) > heap->look_bytes && heap_spare(heap) > heap_bound(heap);
}

int heap_free(struct heap *heap, uint64_t address, void *stream)
{
    struct piece *piece;
    bool much = false;
    lock_take(&heap->books);
    int rc = find_used(heap, address, &piece);
    if (rc == 0 && piece->address != address)
        rc = -EFAULT;
    if (rc == 0) {
        heap->live_bytes -= piece->asked;
        heap->live_count--;
        much = put_back(heap, piece, lane_for_free(heap, stream));
    }
    lock_drop(&heap->books);
    if (much)
        relieve(heap);
    return rc;
}

int heap_find(struct heap *heap, uint64_t address, struct heap_piece *found)
{
    struct piece *piece;
    lock_take(&heap->books);
    int rc = find_used(heap, address, &piece);
    // The last unit may be larger than what was asked for.
    if (rc == 0 && address - piece->address >= piece->asked)
        rc = -EALREADY;
    if (rc == 0)
        *found = (struct heap_piece){piece->address, piece->asked, piece->id};
    lock_drop(&heap->books);
    return rc;
}

int heap_stream_end(struct heap *heap, void *stream, bool idle)
{
    int rc = 0, saved = errno;
    pthread_mutex_lock(&heap->grow);
    lock_take(&heap->books);
    fresh_enter(heap);
    struct lane *lane = lane_of(heap, stream);
    bool mark = lane && lane->bytes && !idle;
    lock_drop(&heap->books);
    if (mark && !lane_mark(heap, lane))
        rc = -EAGAIN;
    if (lane && rc == 0) {
        lock_take(&heap->books);
        lane->ended = true;
        if (!mark)
            lane_complete(heap, lane);
        lanes_look(heap);
        lock_drop(&heap->books);
    }
    pthread_mutex_unlock(&heap->grow);
    errno = saved;
    return rc;
}

uint64_t heap_trim(struct heap *heap, uint64_t keep_bytes)
{
    int saved = errno;
    pthread_mutex_lock(&heap->grow);
    // A mark covers what was freed before it was put: when an earlier one is done, the next may be too.
    for (int i = 0; i < WAIT_ROUNDS; i++) {
        lanes_mark(heap);
        lock_take(&heap->books);
        lanes_look(heap);
        lock_drop(&heap->books);
    }
    uint64_t given = physical_trim(heap, keep_bytes);
    pthread_mutex_unlock(&heap->grow);
    errno = saved;
    return given;
}

struct heap_stats heap_look(struct heap *heap)
{
    lock_take(&heap->books);
    fresh_enter(heap);
    struct heap_stats stats = {
        .live_bytes = heap->live_bytes,
        .live_count = heap->live_count,
        .physical_bytes = heap->physical_bytes,
        .idle_bytes = heap->idle_bytes,
        .waiting_bytes = heap->waiting_bytes,
        .created = heap->created,
        .released = heap->released,
    };
    lock_drop(&heap->books);
    return stats;
}

uint64_t heap_unused(struct heap *heap)
{
    uint64_t bytes = 0;
    lock_take(&heap->books);
    fresh_enter(heap);
    for (unsigned i = 0; i < ZONE_COUNT; i++) {
        uint64_t first = 0, end = 0; // of adjacent free pieces
        for (const struct piece *piece = piece_at(heap, heap->zones[i].base); piece; piece = piece->after) {
            if (piece->kind == PIECE_FREE) {
                first = end == piece->address ? first : piece->address;
                end = piece_end(piece);
            }
            if (piece->kind != PIECE_FREE || !piece->after) {
                bytes += narrow_to_extents(&heap->zones[i], &first, &end);
                first = end = 0;
            }
        }
    }
    lock_drop(&heap->books);
    return bytes;
}
