// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/green.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "allocator/allocations.h"
#include "shim/arrays.h"
#include "shim/context_table.h"
#include "shim/modules.h"
#include "shim/priorities.h"
#include "shim/stream_table.h"

struct green {
    CUgreenCtx handle; // NULL: destroyed
    CUcontext context; // what the program makes current for it
    struct device *device;
    struct green *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct green *greens;

void green_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    greens = NULL;
}

CUresult cuGreenCtxCreate(CUgreenCtx *handle, CUdevResourceDesc description, CUdevice ordinal, unsigned int flags)
{
    CUcontext primary;
    struct device *device = device_of(ordinal);
    if (!device)
        return device_attached() ? REAL(cuGreenCtxCreate)(handle, description, ordinal, flags) : CUDA_ERROR_NOT_INITIALIZED;
    CUresult rc = cuDevicePrimaryCtxRetain(&primary, ordinal);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = REAL(cuGreenCtxCreate)(handle, description, ordinal, flags);
    int saved = errno;
    struct green *green = rc == CUDA_SUCCESS ? calloc(1, sizeof *green) : NULL;
    if (!green) {
        if (rc == CUDA_SUCCESS) {
            REAL(cuGreenCtxDestroy)(*handle);
            rc = CUDA_ERROR_OUT_OF_MEMORY;
        }
        cuDevicePrimaryCtxRelease_v2(ordinal);
        errno = saved;
        return rc;
    }
    *green = (struct green){.handle = *handle, .device = device};
    if (REAL(cuCtxFromGreenCtx)(&green->context, *handle) == CUDA_SUCCESS)
        context_add(green->context, device, 0, CONTEXT_GREEN);
    pthread_mutex_lock(&mutex);
    green->next = greens;
    greens = green;
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return rc;
}

// The record of a live green context. Under the mutex; it stays until the primary context ends.
static struct green *find(CUgreenCtx handle)
{
    struct green *green = handle ? greens : NULL;
    while (green && green->handle != handle)
        green = green->next;
    return green;
}

CUresult cuGreenCtxDestroy(CUgreenCtx handle)
{
    device_forget_current();
    pthread_mutex_lock(&mutex);
    struct green *green = find(handle);
    CUcontext context = green ? green->context : NULL;
    CUdevice ordinal = green ? green->device->ordinal : -1;
    pthread_mutex_unlock(&mutex);
    context_retire(context);
    CUresult rc = REAL(cuGreenCtxDestroy)(handle);
    if (rc != CUDA_SUCCESS) {
        context_revive(context);
        return rc;
    }
    if (green) {
        streams_drop_context(context);
        context_remove(context);
        pthread_mutex_lock(&mutex);
        green->handle = NULL;
        pthread_mutex_unlock(&mutex);
        cuDevicePrimaryCtxRelease_v2(ordinal);
    }
    return rc;
}

static const struct device *device_of_green(CUgreenCtx handle)
{
    pthread_mutex_lock(&mutex);
    const struct green *green = find(handle);
    const struct device *device = green ? green->device : NULL;
    pthread_mutex_unlock(&mutex);
    return device;
}

CUresult cuGreenCtxStreamCreate(CUstream *stream, CUgreenCtx handle, unsigned int flags, int priority)
{
    priority = priority_allowed(device_of_green(handle), priority);
    CUresult rc = REAL(cuGreenCtxStreamCreate)(stream, handle, flags, priority);
    if (rc == CUDA_SUCCESS)
        stream_add(*stream);
    return rc;
}

void green_retire_device(const struct device *device, bool retire)
{
    pthread_mutex_lock(&mutex);
    for (struct green *green = greens; green; green = green->next) {
        if (green->device != device || !green->handle)
            continue;
        if (retire)
            context_retire(green->context);
        else
            context_revive(green->context);
    }
    pthread_mutex_unlock(&mutex);
}

void green_drop_device(const struct device *device)
{
    pthread_mutex_lock(&mutex);
    for (struct green **link = &greens; *link;) {
        struct green *green = *link;
        if (green->device != device) {
            link = &green->next;
            continue;
        }
        if (green->context) {
            arrays_drop_context(green->context);
            modules_drop_context(green->context);
            allocations_drop_context(green->context);
        }
        if (green->handle) {
            streams_drop_context(green->context);
            context_remove(green->context);
        }
        *link = green->next;
        free(green);
    }
    pthread_mutex_unlock(&mutex);
}
