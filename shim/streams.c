// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/streams.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "shim/gpu_ops.h"

#define HASH_NONFATAL_OOM 1 // the library never exits
#include <uthash.h>

struct stream {
    CUstream handle;
    CUcontext context;
    bool captures; // a capture began here
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stream *streams;
static uint32_t captures;

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
    if (stream && REAL(cuCtxGetCurrent)(&context) == CUDA_SUCCESS) {
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

static void drop(struct stream *stream)
{
    if (stream->captures && captures)
        captures--;
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

void capture_begin(CUstream handle)
{
    int saved = errno;
    pthread_mutex_lock(&mutex);
    gpu_ops_before_capture(handle, captures > 0);
    captures++;
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

void capture_begun(CUstream handle, CUresult result)
{
    pthread_mutex_lock(&mutex);
    struct stream *stream = find(handle);
    if (result != CUDA_SUCCESS)
        captures -= captures > 0;
    else if (stream)
        stream->captures = true;
    pthread_mutex_unlock(&mutex);
}

void capture_ended(CUstream handle)
{
    pthread_mutex_lock(&mutex);
    struct stream *stream = find(handle);
    if (stream)
        stream->captures = false;
    captures -= captures > 0;
    pthread_mutex_unlock(&mutex);
}

void streams_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void streams_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

bool streams_capturing(void)
{
    return captures > 0;
}

bool streams_visit(CUcontext context, bool (*visit)(void *argument, CUstream stream), void *argument)
{
    // While a stream that synchronises with the legacy stream is being captured, nothing can be given to the legacy stream at all.
    bool going = capture_under_way(NULL) || visit(argument, NULL);
    for (struct stream *stream = streams; stream && going; stream = stream->hh.next)
        if (stream->context == context && !capture_under_way(stream->handle))
            going = visit(argument, stream->handle);
    return going;
}

void streams_reset(void)
{
    // Not freed: another thread of the parent may have been halfway through a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    streams = NULL;
    captures = 0;
}
