// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/captures.h"

#include <errno.h>
#include <stddef.h>

#include "shim/gpu_ops.h"

void capture_begin(CUstream stream)
{
    int saved = errno;
    streams_lock();
    bool other = streams_capturing();
    // Counted first, marked second: a launch that finds the count 0 came before the mark.
    streams_capture_begins();
    gpu_ops_keep_mark(stream, !other && REAL_EXISTS(cuCtxRecordEvent), NULL);
    errno = saved;
}

void capture_begun(CUstream stream, CUresult result)
{
    if (result == CUDA_SUCCESS)
        streams_capture_began(stream);
    else
        streams_capture_over(NULL);
    streams_unlock();
}

void capture_ended(CUstream stream)
{
    streams_lock();
    streams_capture_over(stream);
    streams_unlock();
}

void capture_launched(CUstream stream)
{
    if (stream != CU_STREAM_PER_THREAD)
        return;
    int saved = errno;
    // The thread has one mark, which moves on: what was before the old place is before the new one.
    gpu_ops_keep_mark(stream, false, &driver_layer_calls);
    errno = saved;
}
