// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/streams.h"

#include <stdlib.h>

#include "base/clock.h"
#include "lib/error.h"
#include "shim/stream_table.h"

// How often the end of a stream checks whether those that wait for it have seen it idle.
#define WAITERS_LOOK_NS (10 * NS_PER_US)

struct mark {
    CUevent event;
    uint64_t activity; // of a chain behind all streams, in its first mark: the activity it stands behind
    struct mark *next; // in the same chain, or the list of unused ones
};

// Behind nothing: all work was complete.
static struct mark nothing;

int streams_init(struct streams *streams, CUcontext context)
{
    CUstream own;
    *streams = (struct streams){.context = context};
    pthread_mutex_init(&streams->mutex, NULL);
    return streams_add(streams, &own);
}

int streams_add(struct streams *streams, CUstream *stream)
{
    CUstream made;
    int rc = fail_driver(REAL(cuStreamCreate)(&made, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    if (rc)
        return rc;
    pthread_mutex_lock(&streams->mutex);
    unsigned i = 0;
    while (i < VGPU_MAX_STREAMS && atomic_load(&streams->list[i]))
        i++;
    if (i < VGPU_MAX_STREAMS)
        atomic_store(&streams->list[i], made);
    pthread_mutex_unlock(&streams->mutex);
    if (i == VGPU_MAX_STREAMS) {
        REAL(cuStreamDestroy_v2)(made);
        return fail(-ENOSPC, "a virtual GPU has at most %d streams", VGPU_MAX_STREAMS);
    }
    *stream = made;
    return 0;
}

int streams_remove(struct streams *streams, CUstream stream)
{
    unsigned i = 1;
    pthread_mutex_lock(&streams->mutex);
    while (i < VGPU_MAX_STREAMS && atomic_load(&streams->list[i]) != stream)
        i++;
    if (i < VGPU_MAX_STREAMS)
        atomic_store(&streams->list[i], NULL);
    pthread_mutex_unlock(&streams->mutex);
    if (i == VGPU_MAX_STREAMS)
        return fail(-ENOENT, "the stream %p was not made by vgpu_stream_create for this virtual GPU", (void *)stream);
    while (atomic_load(&streams->waiters[i]))
        clock_sleep_ns(WAITERS_LOOK_NS);
    return fail_driver(REAL(cuStreamDestroy_v2)(stream), "cuStreamDestroy");
}

static CUresult wait_at(struct streams *streams, unsigned i)
{
    // Counted in before the stream is read: pairs with streams_remove, which takes it out before looking.
    atomic_fetch_add(&streams->waiters[i], 1);
    CUstream stream = atomic_load(&streams->list[i]);
    CUresult result = stream ? REAL(cuStreamSynchronize)(stream) : CUDA_SUCCESS;
    atomic_fetch_sub(&streams->waiters[i], 1);
    return result;
}

int streams_wait(struct streams *streams)
{
    CUresult first = CUDA_SUCCESS;
    uint64_t activity = atomic_load_explicit(&streams->activity, memory_order_acquire);
    for (unsigned i = 0; i < VGPU_MAX_STREAMS; i++) {
        CUresult result = atomic_load(&streams->list[i]) ? wait_at(streams, i) : CUDA_SUCCESS;
        if (first == CUDA_SUCCESS)
            first = result;
    }
    if (first == CUDA_SUCCESS)
        atomic_store(&streams->quiet, activity);
    return fail_driver(first, "cuStreamSynchronize");
}

static void destroy_marks(struct mark *mark)
{
    while (mark) {
        struct mark *next = mark->next;
        REAL(cuEventDestroy_v2)(mark->event);
        free(mark);
        mark = next;
    }
}

void streams_free(struct streams *streams)
{
    destroy_marks(streams->fence);
    destroy_marks(streams->unused);
    for (unsigned i = 0; i < VGPU_MAX_STREAMS; i++) {
        CUstream stream = atomic_load(&streams->list[i]);
        if (stream)
            REAL(cuStreamDestroy_v2)(stream);
    }
    pthread_mutex_destroy(&streams->mutex);
}

// Under the mutex, with the context current.
static struct mark *take(struct streams *streams)
{
    struct mark *mark = streams->unused;
    if (mark) {
        streams->unused = mark->next;
        mark->next = NULL;
        return mark;
    }
    mark = calloc(1, sizeof *mark);
    if (mark && REAL(cuEventCreate)(&mark->event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) {
        free(mark);
        return NULL;
    }
    return mark;
}

static void drop(struct streams *streams, struct mark *mark)
{
    while (mark) {
        struct mark *next = mark->next;
        mark->next = streams->unused;
        streams->unused = mark;
        mark = next;
    }
}

// Puts an event behind a stream, at the head of *chain.
static bool record(struct streams *streams, CUstream stream, struct mark **chain)
{
    struct mark *mark = take(streams);
    if (mark && REAL(cuEventRecord)(mark->event, stream) == CUDA_SUCCESS) {
        mark->activity = 0;
        mark->next = *chain;
        *chain = mark;
        return true;
    }
    drop(streams, mark);
    return false;
}

static bool record_all(struct streams *streams, bool skip, struct mark **chain)
{
    bool complete = true;
    for (unsigned i = 0; i < VGPU_MAX_STREAMS; i++) {
        CUstream stream = atomic_load(&streams->list[i]);
        if (stream && capture_under_way(stream))
            complete = complete && skip;
        else if (stream)
            complete = record(streams, stream, chain) && complete;
    }
    return complete;
}

// Marks `stream`, or all if NULL, with `skip` all but those that are being captured. false: not possible now, or not for all.
// *chain stays empty if there was nothing to mark.
static bool put(struct streams *streams, CUstream stream, bool skip, struct mark **chain)
{
    CUcontext context = streams->context;
    *chain = NULL;
    if (REAL(cuCtxPushCurrent_v2)(context) != CUDA_SUCCESS)
        return false;
    CUstreamCaptureMode mode = capture_relax();
    pthread_mutex_lock(&streams->mutex);
    bool complete = stream ? !capture_under_way(stream) && record(streams, stream, chain) : record_all(streams, skip, chain);
    if (!complete) {
        drop(streams, *chain);
        *chain = NULL;
    }
    pthread_mutex_unlock(&streams->mutex);
    capture_restore(mode);
    REAL(cuCtxPopCurrent_v2)(&context);
    return complete;
}

struct mark *streams_mark(struct streams *streams, CUstream stream)
{
    struct mark *chain;
    // Not for one stream: what other calls gave to it is not seen here, and is in its order anyway.
    if (!stream && streams_are_quiet(streams))
        return &nothing;
    // Before the marks: what is given to the streams later is not covered.
    uint64_t activity = atomic_load_explicit(&streams->activity, memory_order_acquire);
    put(streams, stream, false, &chain);
    if (chain && !stream)
        chain->activity = activity;
    return chain;
}

bool streams_mark_done(struct streams *streams, struct mark *mark)
{
    uint64_t activity = mark->activity;
    if (mark == &nothing)
        return true;
    CUstreamCaptureMode mode = capture_relax();
    while (mark && REAL(cuEventQuery)(mark->event) != CUDA_ERROR_NOT_READY)
        mark = mark->next;
    capture_restore(mode);
    if (!mark && activity)
        atomic_store(&streams->quiet, activity);
    return !mark;
}

void streams_mark_drop(struct streams *streams, struct mark *mark)
{
    if (mark == &nothing)
        return;
    pthread_mutex_lock(&streams->mutex);
    drop(streams, mark);
    pthread_mutex_unlock(&streams->mutex);
}

static void *mark_put(void *gpu, void *stream)
{
    return streams_mark(gpu, stream);
}

static bool mark_done(void *gpu, void *mark)
{
    return streams_mark_done(gpu, mark);
}

static void mark_drop(void *gpu, void *mark)
{
    streams_mark_drop(gpu, mark);
}

static bool fence_renew(void *gpu)
{
    struct streams *streams = gpu;
    streams_mark_drop(streams, streams->fence);
    return put(streams, NULL, true, &streams->fence);
}

static bool fence_done(void *gpu)
{
    struct streams *streams = gpu;
    if (!streams->fence)
        return true;
    if (!streams_mark_done(streams, streams->fence))
        return false;
    streams_mark_drop(streams, streams->fence);
    streams->fence = NULL;
    return true;
}

static bool is_capturing(void *gpu, void *stream)
{
    (void)gpu;
    return capture_under_way(stream);
}

static void agent_begin(void)
{
    capture_relax();
}

const struct gpu_ops streams_ops = {
    .mark_put = mark_put,
    .mark_done = mark_done,
    .mark_drop = mark_drop,
    .fence_renew = fence_renew,
    .fence_done = fence_done,
    .is_capturing = is_capturing,
    .agent_begin = agent_begin,
};
