// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/heap_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"
#include "shim/context_table.h"
#include "shim/stream_table.h"

// What cuMemAlloc aligns to (H100, driver 580).
#define ALIGNMENT 512u

struct served {
    struct heap_place place;
    struct heap *heap; // NULL: could not be made, and the context is left to the driver
    struct served *next;
};

static atomic_bool enabled;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct served *table;

void heap_memory_enable(bool enable)
{
    if (enable && (!REAL_EXISTS(cuCtxRecordEvent) || !REAL_EXISTS(cuMemSetAccess))) {
        log_warn("VGPU_ALLOCATOR=chunk needs a driver of CUDA 12.5 or newer: the driver allocates instead");
        enable = false;
    }
    atomic_store(&enabled, enable);
}

void heap_memory_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    atomic_store(&enabled, false);
    pthread_rwlock_init(&lock, NULL);
    table = NULL;
}

static struct served *find(CUcontext context)
{
    struct served *served = table;
    while (served && served->place.context != context)
        served = served->next;
    return served;
}

static struct served *owner_of(CUdeviceptr address)
{
    struct served *served = table;
    while (served && !(served->heap && heap_owns(served->heap, address)))
        served = served->next;
    return served;
}

// With the lock held for writing.
static void serve(CUcontext context, struct device *device)
{
    struct served *served = calloc(1, sizeof *served);
    if (!served)
        return;
    served->place = (struct heap_place){context, device};
    const struct heap_config config = {.ops = &heap_gpu_cuda, .gpu = &served->place, .capacity_bytes = device->physical_bytes};
    int rc = heap_create(&config, &served->heap);
    if (rc)
        log_warn("VGPU_ALLOCATOR=chunk: no address space for GPU %d (error %d): the driver allocates instead", device->ordinal,
                 -rc);
    served->next = table;
    table = served;
}

// The current context's heap, with the lock held for reading; NULL: none, and the lock not held.
static struct served *enter_current(void)
{
    CUcontext context = NULL;
    struct device *device = device_current();
    if (!device || REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS || !context)
        return NULL;
    pthread_rwlock_rdlock(&lock);
    struct served *served = find(context);
    // Only a context whose end will be seen gets a heap.
    if (!served && context_known(context, NULL)) {
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_wrlock(&lock);
        if (!find(context))
            serve(context, device);
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_rdlock(&lock);
        served = find(context);
    }
    if (served && served->heap)
        return served;
    pthread_rwlock_unlock(&lock);
    return NULL;
}

bool heap_memory_alloc(CUdeviceptr *pointer, size_t bytes, const char *function, CUresult *result)
{
    if (!atomic_load_explicit(&enabled, memory_order_relaxed) || (streams_capturing() && streams_still_capturing()))
        return false;
    // The driver refuses in its own words what no GPU can hold.
    const struct device *device = device_current();
    if (device && device_exceeded(device, bytes))
        return false;
    int saved = errno;
    struct served *served = enter_current();
    if (served) {
        uint64_t address;
        int rc = heap_alloc(served->heap, bytes, ALIGNMENT, HEAP_ANY_STREAM, &address);
        if (rc == 0)
            *pointer = address;
        else if (rc != -ENOMEM)
            served = NULL; // an error of the driver's, which it tells in its own words too
        if (served)
            *result = rc ? device_refuse(served->place.device, bytes, function) : CUDA_SUCCESS;
        pthread_rwlock_unlock(&lock);
    }
    errno = saved;
    return served != NULL;
}

bool heap_memory_free(CUdeviceptr address, CUresult *result)
{
    if (!atomic_load_explicit(&enabled, memory_order_relaxed))
        return false;
    pthread_rwlock_rdlock(&lock);
    struct served *served = owner_of(address);
    if (served) {
        driver_layer_seen();
        int rc = heap_free(served->heap, address, HEAP_ANY_STREAM);
        if (rc)
            log_debug("cuMemFree: %#llx is %s", (unsigned long long)address,
                      rc == -EFAULT ? "inside an allocation" : "not allocated");
        *result = rc ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    }
    pthread_rwlock_unlock(&lock);
    return served != NULL;
}

int heap_memory_find(CUdeviceptr address, struct heap_piece *piece, CUcontext *context)
{
    if (!atomic_load_explicit(&enabled, memory_order_relaxed))
        return -ENOENT;
    pthread_rwlock_rdlock(&lock);
    const struct served *served = owner_of(address);
    int rc = served ? heap_find(served->heap, address, piece) : -ENOENT;
    if (rc == 0)
        *context = served->place.context;
    pthread_rwlock_unlock(&lock);
    return rc;
}

struct holdings_view heap_memory_view(const struct device *device, uint64_t *spare_bytes)
{
    uint64_t spare = 0;
    pthread_rwlock_rdlock(&lock);
    for (const struct served *served = table; served; served = served->next)
        if (served->place.device == device && served->heap)
            spare += heap_unused(served->heap);
    struct holdings_view view = device_view(device);
    pthread_rwlock_unlock(&lock);
    *spare_bytes = spare < view.used_bytes ? spare : view.used_bytes;
    view.used_bytes -= *spare_bytes;
    view.free_bytes += *spare_bytes;
    return view;
}

bool heap_memory_reclaim(struct device *device)
{
    uint64_t bytes = 0;
    pthread_rwlock_rdlock(&lock);
    for (struct served *served = table; served; served = served->next)
        if (served->place.device == device && served->heap)
            bytes += heap_trim(served->heap, 0);
    pthread_rwlock_unlock(&lock);
    return bytes > 0;
}

void heap_memory_drop_context(CUcontext context)
{
    int saved = errno;
    pthread_rwlock_wrlock(&lock);
    struct served **link = &table;
    while (*link && (*link)->place.context != context)
        link = &(*link)->next;
    struct served *served = *link;
    if (served)
        *link = served->next;
    pthread_rwlock_unlock(&lock);
    if (served && served->heap)
        heap_destroy(served->heap);
    free(served);
    errno = saved;
}
