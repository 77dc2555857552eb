// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/stream_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/hash.h"

struct stream {
    CUstream handle;
    CUcontext context;
    bool captures; // a capture began here
    UT_hash_handle hh;
};

// A capture that began on a thread's own default stream of a context. Such a stream has no creation and no destruction.
struct own_capture {
    const void *thread;
    CUcontext context;
    struct own_capture *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stream *streams;
static struct own_capture *own_captures;
struct streams_count streams_count;

static struct stream *find(CUstream handle)
{
    struct stream *stream;
    HASH_FIND_PTR(streams, &handle, stream);
    return stream;
}

void stream_add(CUstream handle)
{
    int saved = errno;
    CUcontext context;
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream && REAL(cuStreamGetCtx)(handle, &context) == CUDA_SUCCESS) {
        stream->handle = handle;
        stream->context = context;
        pthread_mutex_lock(&mutex);
        HASH_ADD_PTR(streams, handle, stream);
        if (stream->hh.tbl)
            stream = NULL;
        pthread_mutex_unlock(&mutex);
    }
    free(stream);
    errno = saved;
}

static void lower_captures(void)
{
    uint32_t captures = atomic_load_explicit(&streams_count.captures, memory_order_relaxed);
    atomic_store_explicit(&streams_count.captures, captures - (captures > 0), memory_order_relaxed);
}

static void note_own_capture(void)
{
    int saved = errno;
    CUcontext context = NULL;
    struct own_capture *own = calloc(1, sizeof *own);
    if (own && REAL(cuCtxGetCurrent)(&context) == CUDA_SUCCESS) {
        *own = (struct own_capture){&driver_layer_calls, context, own_captures};
        own_captures = own;
    } else {
        free(own);
    }
    errno = saved;
}

// Those of one thread (at most one), or of all (NULL), on their default streams of the context.
static void end_own_captures(const void *thread, CUcontext context)
{
    for (struct own_capture **link = &own_captures; *link;) {
        struct own_capture *own = *link;
        if (own->context != context || (thread && own->thread != thread)) {
            link = &own->next;
            continue;
        }
        *link = own->next;
        free(own);
        lower_captures();
        if (thread)
            return;
    }
}

// With the context current: whether the legacy stream accepts nothing, since a stream that synchronises with it is being
// captured. A thread's default stream is such a stream, and this way the end of one that was never finished is found out.
static bool legacy_forbidden(CUcontext context)
{
    bool forbidden = capture_under_way(NULL);
    if (!forbidden)
        end_own_captures(NULL, context);
    return forbidden;
}

static void drop(struct stream *stream)
{
    if (stream->captures)
        lower_captures();
    HASH_DEL(streams, stream);
    free(stream);
}

void stream_remove(CUstream handle)
{
    pthread_mutex_lock(&mutex);
    struct stream *stream = find(handle);
    if (stream)
        drop(stream);
    pthread_mutex_unlock(&mutex);
}

void streams_drop_context(CUcontext context)
{
    struct stream *stream, *next;
    pthread_mutex_lock(&mutex);
    HASH_ITER(hh, streams, stream, next)
    {
        if (stream->context == context)
            drop(stream);
    }
    end_own_captures(NULL, context);
    pthread_mutex_unlock(&mutex);
}

bool streams_still_capturing(void)
{
    CUcontext context = NULL;
    pthread_mutex_lock(&mutex);
    if (own_captures && REAL(cuCtxGetCurrent)(&context) == CUDA_SUCCESS && context)
        legacy_forbidden(context);
    bool capturing = streams_capturing();
    pthread_mutex_unlock(&mutex);
    return capturing;
}

void streams_capture_begins(void)
{
    atomic_fetch_add(&streams_count.captures, 1);
}

void streams_capture_began(CUstream handle)
{
    struct stream *stream = find(handle);
    if (stream)
        stream->captures = true;
    else if (handle == CU_STREAM_PER_THREAD)
        note_own_capture();
}

void streams_capture_over(CUstream handle)
{
    CUcontext context = NULL;
    if (handle == CU_STREAM_PER_THREAD) {
        REAL(cuCtxGetCurrent)(&context);
        end_own_captures(&driver_layer_calls, context);
        return;
    }
    struct stream *stream = find(handle);
    if (stream)
        stream->captures = false;
    lower_captures();
}

void streams_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void streams_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

bool streams_visit(CUcontext context, bool (*visit)(void *argument, CUstream stream), void *argument)
{
    bool going = legacy_forbidden(context) || visit(argument, NULL);
    for (struct stream *stream = streams; stream && going; stream = stream->hh.next)
        if (stream->context == context && !capture_under_way(stream->handle))
            going = visit(argument, stream->handle);
    return going;
}

void streams_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    streams = NULL;
    own_captures = NULL;
    atomic_store(&streams_count.captures, 0);
}
