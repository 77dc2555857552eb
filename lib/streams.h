// SPDX-License-Identifier: AGPL-3.0-or-later
// The streams of one virtual GPU, and the marks and the fence by which the scheduler and the heap follow the work on them.
//
// A mark is an untimed event behind one stream, or a chain of them behind all. The fence stands behind all streams of this
// virtual GPU and no others: several virtual GPUs share a context, so an event behind the whole context would wait for the
// neighbours' work.
//
// Invariants
//  - Streams never move: the first is the virtual GPU's own and lives as long as the virtual GPU. They are read without the
//    mutex. A stream to be destroyed is taken out first, and destroyed when no thread waits at its place.
//  - A stream that is being captured cannot be marked. The fence skips it: nothing captured runs now, and a turn that work
//    launched before the capture outlasts is merely overrun. For the heap there is no mark behind all streams meanwhile: it would
//    give out memory that such work still uses.
//  - `activity` is raised after work was given to a stream through this library, before the caller continues; `quiet` is a
//    value of it at which all work was complete. While both agree and no turn is open, nothing is under way, and the driver
//    need not be asked: this makes an allocation that follows a free cheap.
//  - All events belong to the context, which outlives this structure.
// Thread safe. The mutex is held while events are recorded, which can wait for room in a stream's queue.
#ifndef VGPU_LIB_STREAMS_H
#define VGPU_LIB_STREAMS_H

#include <pthread.h>
#include <stdatomic.h>

#include "include/vgpu.h"
#include "scheduler/gpu_ops.h"
#include "shim/hooks.h"

struct mark;

struct streams {
    CUcontext context;
    _Atomic(CUstream) list[VGPU_MAX_STREAMS];   // NULL: free
    _Atomic uint32_t waiters[VGPU_MAX_STREAMS]; // in streams_wait, for each: they may have read the stream
    pthread_mutex_t mutex;
    struct mark *unused;
    _Atomic uint64_t activity, quiet;
    _Atomic uint32_t turns; // open ones: what is launched in them is not seen here
    struct mark *fence;     // events not yet seen complete; belongs to the agent
};

// The scheduler's operations; `gpu` is a struct streams.
extern const struct gpu_ops streams_ops __attribute__((visibility("hidden")));

// With the context current. 0 or -errno, with the line for vgpu_detail.
int streams_init(struct streams *streams, CUcontext context);
int streams_add(struct streams *streams, CUstream *stream);
int streams_remove(struct streams *streams, CUstream stream);
// Waits for the work on all streams. Continues if one fails, and returns the first error.
int streams_wait(struct streams *streams);
// Destroys everything. With the context current, once the scheduler and the heap no longer use it.
void streams_free(struct streams *streams);

static inline CUstream streams_own(const struct streams *streams)
{
    return atomic_load_explicit(&streams->list[0], memory_order_relaxed);
}

// The place of a stream of this virtual GPU, which no other has as long as it lives.
static inline unsigned streams_index(const struct streams *streams, CUstream stream)
{
    unsigned i = 0;
    while (i < VGPU_MAX_STREAMS - 1 && atomic_load_explicit(&streams->list[i], memory_order_relaxed) != stream)
        i++;
    return i;
}

// The stream that a caller of the API means: the virtual GPU's own for NULL; NULL if it is not one of this virtual GPU's.
static inline CUstream streams_find(const struct streams *streams, CUstream stream)
{
    if (!stream)
        return streams_own(streams);
    for (unsigned i = 0; i < VGPU_MAX_STREAMS; i++)
        if (atomic_load_explicit(&streams->list[i], memory_order_relaxed) == stream)
            return stream;
    return NULL;
}

// Work was given to one of the streams.
static inline void streams_touch(struct streams *streams)
{
    atomic_fetch_add_explicit(&streams->activity, 1, memory_order_release); // pairs with the load in streams_mark
}

// Whether all work was complete at the last look, and none has been given since. Loads in this order: a turn's touch precedes
// its end.
static inline bool streams_are_quiet(const struct streams *streams)
{
    return atomic_load(&streams->turns) == 0 && atomic_load(&streams->activity) == atomic_load(&streams->quiet);
}

// Marks, as the heap wants them: behind `stream`, or behind all streams if that is NULL. NULL: cannot now.
struct mark *streams_mark(struct streams *streams, CUstream stream);
bool streams_mark_done(struct streams *streams, struct mark *mark);
void streams_mark_drop(struct streams *streams, struct mark *mark);

#endif
