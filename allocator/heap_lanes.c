// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory freed behind work: its lanes, and the marks that tell when the work is done.
#include "allocator/heap_books.h"

#include <errno.h>
#include <stdlib.h>

struct lane *lane_find(struct heap *heap, void *stream, bool make)
{
    if (heap->recent && heap->recent->stream == stream && !heap->recent->ended)
        return heap->recent;
    struct lane *lane = heap->lanes;
    while (lane && (lane->ended || lane->stream != stream))
        lane = lane->following;
    if (!lane && make) {
        int saved = errno;
        lane = calloc(1, sizeof *lane);
        errno = saved;
        if (!lane)
            return NULL;
        lane->stream = stream;
        lane->following = heap->lanes;
        heap->lanes = lane;
    }
    if (lane)
        heap->recent = lane;
    return lane;
}

void lanes_free(struct heap *heap)
{
    while (heap->lanes) {
        struct lane *lane = heap->lanes;
        heap->lanes = lane->following;
        if (lane->mark)
            heap->ops->mark_drop(heap->gpu, lane->mark);
        free(lane);
    }
    if (heap->any.mark)
        heap->ops->mark_drop(heap->gpu, heap->any.mark);
    heap->recent = NULL;
}

// Makes ready what was freed up to an epoch.
static void release_until(struct heap *heap, struct lane *lane, uint64_t epoch)
{
    while (lane->oldest && lane->oldest->epoch <= epoch) {
        struct piece *piece = lane->oldest;
        free_leave(heap, piece);
        free_enter(heap, piece, &heap->ready);
    }
}

void lane_complete(struct heap *heap, struct lane *lane)
{
    if (lane->mark)
        heap->ops->mark_drop(heap->gpu, lane->mark);
    lane->mark = NULL;
    release_until(heap, lane, UINT64_MAX);
}

static bool lane_look(struct heap *heap, struct lane *lane)
{
    if (!lane->mark || !heap->ops->mark_done(heap->gpu, lane->mark))
        return false;
    heap->ops->mark_drop(heap->gpu, lane->mark);
    lane->mark = NULL;
    release_until(heap, lane, lane->marked);
    return true;
}

bool lanes_look(struct heap *heap)
{
    fresh_enter(heap);
    bool any = lane_look(heap, &heap->any);
    struct lane **link = &heap->lanes;
    while (*link) {
        struct lane *lane = *link;
        any = lane_look(heap, lane) || any;
        if (lane->ended && !lane->bytes && !lane->mark) {
            *link = lane->following;
            if (heap->recent == lane)
                heap->recent = NULL;
            free(lane);
        } else {
            link = &lane->following;
        }
    }
    return any;
}

bool lanes_marked(const struct heap *heap, uint64_t serial)
{
    bool marked = heap->any.mark && heap->any.serial <= serial;
    for (const struct lane *lane = heap->lanes; lane && !marked; lane = lane->following)
        marked = lane->mark && lane->serial <= serial;
    return marked;
}

bool lane_mark(struct heap *heap, struct lane *lane)
{
    lock_take(&heap->books);
    uint64_t epoch = lane->epoch++;
    lock_drop(&heap->books);
    void *mark = heap->ops->mark_put(heap->gpu, lane->stream);
    if (!mark)
        return false; // the next mark covers the epoch
    lock_take(&heap->books);
    if (lane->mark)
        heap->ops->mark_drop(heap->gpu, lane->mark); // the new one stands behind more
    lane->mark = mark;
    lane->marked = epoch;
    lane->serial = ++heap->marks_put;
    lock_drop(&heap->books);
    return true;
}

static bool unmarked(const struct lane *lane)
{
    return lane->oldest && !lane->mark && !lane->ended;
}

void lanes_mark(struct heap *heap)
{
    // Lanes end, and are removed, only under `grow`; new ones are put in front.
    lock_take(&heap->books);
    fresh_enter(heap);
    struct lane *lane = heap->lanes;
    bool mark = unmarked(&heap->any);
    lock_drop(&heap->books);
    if (mark)
        lane_mark(heap, &heap->any);
    while (lane) {
        lock_take(&heap->books);
        mark = unmarked(lane);
        struct lane *following = lane->following;
        lock_drop(&heap->books);
        if (mark)
            lane_mark(heap, lane);
        lane = following;
    }
}
