// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory with an address of its own: linear, pitched and managed, and its freeing.
//
// Every allocation takes its part of the quota first and asks the driver then. What is plainly an error of the caller goes to the
// driver untouched, whose answer it is.
#include <errno.h>
#include <stddef.h>

#include "allocator/allocations.h"
#include "shim/device.h"
#include "shim/heap_memory.h"
#include "shim/pools.h"

// The driver's pitches are multiples of this (H100, driver 580).
#define PITCH_BYTES 512u

// An allocation on its way.
struct request {
    struct device *device;
    uint64_t bytes;
    uint64_t taken;
    uint64_t deadline_ns;
    const char *function;
};

static int take(struct request *request)
{
    int saved = errno;
    int rc = allocation_begin(&request->device->holdings, request->bytes, &request->taken);
    if (rc == -ENOMEM && device_reclaim(request->device))
        rc = allocation_begin(&request->device->holdings, request->bytes, &request->taken);
    errno = saved;
    return rc;
}

static CUresult request_begin(struct request *request, uint64_t bytes, const char *function)
{
    *request = (struct request){.device = device_current(), .bytes = bytes, .function = function};
    if (!request->device)
        return device_absent();
    return take(request) ? device_refuse(request->device, bytes, function) : CUDA_SUCCESS;
}

static bool request_again(struct request *request, CUresult result)
{
    return device_retry(request->device, result, &request->deadline_ns);
}

// Books what the driver gave, or gives back what was taken. `bytes` is what the driver really gave.
static CUresult request_end(struct request *request, CUresult result, CUdeviceptr address, uint64_t bytes)
{
    if (result != CUDA_SUCCESS) {
        allocation_cancel(&request->device->holdings, request->taken);
        return result;
    }
    CUcontext context = NULL;
    REAL(cuCtxGetCurrent)(&context);
    const struct allocation allocation = {address, bytes, &request->device->holdings, context};
    int saved = errno;
    int rc = allocation_commit(&allocation, request->taken);
    errno = saved;
    if (rc == 0)
        return CUDA_SUCCESS;
    REAL(cuMemFree_v2)(address);
    return device_refuse(request->device, bytes, request->function);
}

// Whether a call has the arguments that it needs to succeed; the driver answers all others. Fails closed while not attached.
static bool forward(bool valid, CUresult *rc)
{
    *rc = device_attached() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
    return !valid && *rc == CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    CUresult rc;
    struct request request;
    if (forward(pointer && bytes, &rc))
        return REAL(cuMemAlloc_v2)(pointer, bytes);
    if (heap_memory_alloc(pointer, bytes, __func__, &rc))
        return rc;
    rc = request_begin(&request, bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    do
        rc = REAL(cuMemAlloc_v2)(pointer, bytes);
    while (request_again(&request, rc));
    return request_end(&request, rc, *pointer, bytes);
}

CUresult cuMemAlloc(CUdeviceptr_v1 *pointer, unsigned int bytes)
{
    CUresult rc;
    struct request request;
    if (forward(pointer && bytes, &rc))
        return REAL(cuMemAlloc)(pointer, bytes);
    rc = request_begin(&request, bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    do
        rc = REAL(cuMemAlloc)(pointer, bytes);
    while (request_again(&request, rc));
    return request_end(&request, rc, *pointer, bytes);
}

CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned int flags)
{
    CUresult rc;
    struct request request;
    if (forward(pointer && bytes, &rc))
        return REAL(cuMemAllocManaged)(pointer, bytes, flags);
    rc = request_begin(&request, bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    do
        rc = REAL(cuMemAllocManaged)(pointer, bytes, flags);
    while (request_again(&request, rc));
    return request_end(&request, rc, *pointer, bytes);
}

// The most that a pitched allocation takes: what it really takes is known from the pitch that the driver chose.
static uint64_t pitched_bytes(uint64_t width, uint64_t height)
{
    uint64_t bytes;
    return __builtin_mul_overflow(holdings_round_up(width, PITCH_BYTES), height, &bytes) ? UINT64_MAX : bytes;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned int element_bytes)
{
    CUresult rc;
    struct request request;
    if (forward(pointer && pitch && width && height, &rc))
        return REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element_bytes);
    if ((element_bytes == 4 || element_bytes == 8 || element_bytes == 16) &&
        heap_memory_alloc(pointer, pitched_bytes(width, height), __func__, &rc)) {
        if (rc == CUDA_SUCCESS)
            *pitch = holdings_round_up(width, PITCH_BYTES);
        return rc;
    }
    rc = request_begin(&request, pitched_bytes(width, height), __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    do
        rc = REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element_bytes);
    while (request_again(&request, rc));
    return request_end(&request, rc, *pointer, rc == CUDA_SUCCESS ? *pitch * height : 0);
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *pointer, unsigned int *pitch, unsigned int width, unsigned int height,
                         unsigned int element_bytes)
{
    CUresult rc;
    struct request request;
    if (forward(pointer && pitch && width && height, &rc))
        return REAL(cuMemAllocPitch)(pointer, pitch, width, height, element_bytes);
    rc = request_begin(&request, pitched_bytes(width, height), __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    do
        rc = REAL(cuMemAllocPitch)(pointer, pitch, width, height, element_bytes);
    while (request_again(&request, rc));
    return request_end(&request, rc, *pointer, rc == CUDA_SUCCESS ? (uint64_t)*pitch * height : 0);
}

// Freeing. The address leaves the books before the driver frees it, since another thread may get it at once.
struct release {
    struct allocation allocation;
    bool booked;
};

static struct release release_begin(CUdeviceptr address)
{
    struct release release;
    release.booked = device_attached() && allocation_withdraw(address, &release.allocation);
    return release;
}

static CUresult release_end(const struct release *release, CUresult result)
{
    if (release->booked && result == CUDA_SUCCESS)
        allocation_return(&release->allocation);
    else if (release->booked)
        allocation_restore(&release->allocation);
    return result;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    CUresult rc;
    if (heap_memory_free(address, &rc))
        return rc;
    struct release release = release_begin(address);
    rc = release_end(&release, REAL(cuMemFree_v2)(address));
    if (!release.booked)
        pools_settle(); // the address may have been a pool's, and this call waits for the GPU
    return rc;
}

CUresult cuMemFree(CUdeviceptr_v1 address)
{
    struct release release = release_begin(address);
    return release_end(&release, REAL(cuMemFree)(address));
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    CUresult rc;
    if (heap_memory_free(address, &rc))
        return rc;
    struct release release = release_begin(address);
    return release_end(&release, REAL(cuMemFreeAsync)(address, stream));
}

CUresult cuMemFreeAsync_ptsz(CUdeviceptr address, CUstream stream)
{
    CUresult rc;
    if (heap_memory_free(address, &rc))
        return rc;
    struct release release = release_begin(address);
    return release_end(&release, REAL(cuMemFreeAsync_ptsz)(address, stream));
}
