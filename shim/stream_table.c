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

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stream *streams;
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
    pthread_mutex_unlock(&mutex);
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
}

void streams_capture_over(CUstream handle)
{
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
    // While a stream that synchronises with the legacy stream is being captured, the legacy stream accepts nothing at all.
    bool going = capture_under_way(NULL) || visit(argument, NULL);
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
    atomic_store(&streams_count.captures, 0);
}
