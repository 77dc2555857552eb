// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/limits.h"

#include <pthread.h>

#include "shim/context_table.h"

// Makes "what is the limit now, then charge the difference" one step.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void limits_reset(void)
{
    pthread_mutex_init(&mutex, NULL);
}

static uint64_t resident_threads(const struct device *device)
{
    int multiprocessors = 0, threads = 0;
    REAL(cuDeviceGetAttribute)(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device->ordinal);
    REAL(cuDeviceGetAttribute)(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device->ordinal);
    return (uint64_t)multiprocessors * (uint64_t)threads;
}

// What a limit of this value takes, in whole blocks; what no GPU has counts as more than it has.
static int64_t bytes_of(const struct device *device, enum context_limit limit, size_t value)
{
    uint64_t bytes = holdings_product(value, limit == CONTEXT_STACK ? resident_threads(device) : 1);
    if (bytes > device->physical_bytes)
        bytes = device->physical_bytes + HOLDINGS_BLOCK_BYTES;
    return (int64_t)holdings_round_up(bytes, HOLDINGS_BLOCK_BYTES);
}

// The context that limits and frames of the current one make grow; NULL: none that is known.
static CUcontext growing_context(void)
{
    CUcontext current = NULL;
    return REAL(cuCtxGetCurrent)(&current) == CUDA_SUCCESS ? context_grown(current) : NULL;
}

CUresult limits_foresee_frame(size_t frame_bytes, const char *function)
{
    size_t limit;
    struct device *device = device_current();
    CUcontext context = device ? growing_context() : NULL;
    if (!context)
        return CUDA_SUCCESS;
    CUresult rc = CUDA_SUCCESS;
    pthread_mutex_lock(&mutex);
    if (REAL(cuCtxGetLimit)(&limit, CU_LIMIT_STACK_SIZE) == CUDA_SUCCESS) {
        // A limit that would hold the frames now may be lowered before the launch.
        limit = context_first_limit(context, CONTEXT_STACK, limit);
        int64_t frames = bytes_of(device, CONTEXT_STACK, frame_bytes) - bytes_of(device, CONTEXT_STACK, limit);
        int64_t before = context_growth(context, CONTEXT_FRAMES);
        int64_t taken = frames > before ? context_grow(context, CONTEXT_FRAMES, frames) : 0;
        if (taken > 0 && device_take(device, (uint64_t)taken)) {
            context_grow(context, CONTEXT_FRAMES, before);
            rc = device_refuse(device, (uint64_t)taken, function);
        }
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

static bool grows(CUlimit limit, enum context_limit *which)
{
    *which = limit == CU_LIMIT_STACK_SIZE ? CONTEXT_STACK : CONTEXT_HEAP;
    return limit == CU_LIMIT_STACK_SIZE || limit == CU_LIMIT_MALLOC_HEAP_SIZE;
}

// The driver may round or cap a value; what it says afterwards counts.
static CUresult set_limit(struct device *device, CUcontext context, CUlimit limit, enum context_limit which, size_t value)
{
    size_t now;
    if (REAL(cuCtxGetLimit)(&now, limit) != CUDA_SUCCESS)
        return REAL(cuCtxSetLimit)(limit, value);
    const int64_t first = bytes_of(device, which, context_first_limit(context, which, now));
    const int64_t before = context_growth(context, which);
    int64_t growth = bytes_of(device, which, value) - first;
    int64_t taken = context_grow(context, which, growth);
    if (taken > 0 && device_take(device, (uint64_t)taken)) {
        context_grow(context, which, before);
        return device_refuse(device, (uint64_t)taken, "cuCtxSetLimit");
    }
    CUresult rc = DEVICE_ASK(device, REAL(cuCtxSetLimit)(limit, value));
    if (rc != CUDA_SUCCESS)
        growth = before;
    else if (REAL(cuCtxGetLimit)(&now, limit) == CUDA_SUCCESS)
        growth = bytes_of(device, which, now) - first;
    int64_t change = taken + context_grow(context, which, growth);
    // Settles what was taken beforehand: more than needed, or a limit was lowered.
    int64_t surplus = (taken > 0 ? taken : 0) - change;
    if (surplus > 0)
        holdings_give(&device->holdings, (uint64_t)surplus);
    else if (surplus < 0 && device_take(device, (uint64_t)-surplus))
        context_grow(context, which, growth + surplus); // the driver rounded up beyond the quota
    return rc;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    enum context_limit which;
    struct device *device = device_current();
    if (!device)
        return device_absent();
    CUcontext context = grows(limit, &which) ? growing_context() : NULL;
    if (!context)
        return REAL(cuCtxSetLimit)(limit, value);
    pthread_mutex_lock(&mutex);
    CUresult rc = set_limit(device, context, limit, which, value);
    pthread_mutex_unlock(&mutex);
    return rc;
}
