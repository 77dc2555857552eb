// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/device.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/log.h"
#include "shim/calibrate.h"
#include "shim/heap_memory.h"
#include "shim/memory_pools.h"

struct device_table device_table;
__thread struct device *device_of_thread;

void device_table_publish(int count)
{
    int saved = errno;
    madvise(&device_table, offsetof(struct device_table, devices), MADV_WIPEONFORK);
    errno = saved;
    atomic_store_explicit(&device_table.count, count, memory_order_release);
    atomic_store_explicit(&device_table.only, count == 1 ? &device_table.devices[0] : NULL, memory_order_release);
}

void device_table_reset(void)
{
    atomic_store(&device_table.only, NULL);
    atomic_store(&device_table.count, 0);
    for (int i = 0; i < DEVICE_MAX; i++)
        device_table.devices[i].fence = NULL;
    device_of_thread = NULL;
}

struct device *device_of(CUdevice ordinal)
{
    int count = atomic_load_explicit(&device_table.count, memory_order_acquire);
    return ordinal >= 0 && ordinal < count ? &device_table.devices[ordinal] : NULL;
}

struct device *device_find_current(void)
{
    CUdevice ordinal;
    if (!device_attached() || REAL(cuCtxGetDevice)(&ordinal) != CUDA_SUCCESS)
        return NULL;
    return device_of_thread = device_of(ordinal);
}

struct device *device_of_stream(CUstream stream)
{
    CUdevice ordinal = -1;
    CUcontext context;
    if (!device_attached() || REAL(cuStreamGetCtx)(stream, &context) != CUDA_SUCCESS ||
        REAL(cuCtxPushCurrent_v2)(context) != CUDA_SUCCESS)
        return NULL;
    CUresult rc = REAL(cuCtxGetDevice)(&ordinal);
    REAL(cuCtxPopCurrent_v2)(&context);
    return rc == CUDA_SUCCESS ? device_of(ordinal) : NULL;
}

CUresult device_absent(void)
{
    CUdevice ordinal;
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult rc = REAL(cuCtxGetDevice)(&ordinal);
    return rc == CUDA_SUCCESS ? CUDA_ERROR_INVALID_CONTEXT : rc;
}

bool device_reclaim(struct device *device)
{
    bool heap = heap_memory_reclaim(device);
    return pools_reclaim(device) || heap;
}

int device_take(struct device *device, uint64_t bytes)
{
    int saved = errno;
    int rc = holdings_take(&device->holdings, bytes);
    if (rc == -ENOMEM && device_reclaim(device))
        rc = holdings_take(&device->holdings, bytes);
    errno = saved;
    return rc;
}

bool device_exceeded(const struct device *device, uint64_t bytes)
{
    const struct holdings *holdings = &device->holdings;
    return bytes > holdings->pool->layout->gpus[holdings->gpu].total_bytes;
}

CUresult device_refuse(struct device *device, uint64_t bytes, const char *function)
{
    holdings_count_refusal(&device->holdings, bytes);
    struct holdings_view view = device_view(device);
    log_debug("%s: %llu bytes refused on GPU %d: %llu of %llu MiB are free", function, (unsigned long long)bytes,
              device->ordinal, (unsigned long long)(view.free_bytes >> 20), (unsigned long long)(view.total_bytes >> 20));
    return CUDA_ERROR_OUT_OF_MEMORY;
}

bool device_retry(const struct device *device, CUresult result, uint64_t *deadline_ns)
{
    return __builtin_expect(result == CUDA_ERROR_OUT_OF_MEMORY, 0) && holdings_await_return(&device->holdings, deadline_ns);
}

struct holdings_view device_view(const struct device *device)
{
    return holdings_look(&device->holdings);
}

uint64_t device_context_bytes(const struct device *device)
{
    const struct holdings *holdings = &device->holdings;
    uint64_t bytes = atomic_load(&holdings->pool->layout->gpus[holdings->gpu].context_bytes);
    return context_bytes_or_usual(bytes, device->physical_bytes);
}
