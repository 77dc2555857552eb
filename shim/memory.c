// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory with an address of its own (linear, pitched and managed), and how it is freed.
//
// Every allocation first takes its part of the quota, then asks the driver. A plain error of the caller's goes to the driver
// unchanged, for it to answer.
#include <errno.h>
#include <stddef.h>

#include "allocator/allocations.h"
#include "shim/device.h"
#include "shim/heap_memory.h"
#include "shim/memory_pools.h"

// The driver's pitches are multiples of this (H100, driver 580).
#define PITCH_BYTES 512u

// An allocation under way. Without a device, the call cannot succeed, and the driver answers it.
struct request {
    struct device *device;
    uint64_t bytes;
    uint64_t taken;
    bool refused; // but the driver is asked for its answer
    const char *function;
};

// What the arguments of a call, apart from the size, let expect.
enum arguments {
    ARGUMENTS_MISSING, // something without which it cannot succeed: nothing is taken
    ARGUMENTS_ODD,     // a value that the driver does not document: nothing that does not fit is let through
    ARGUMENTS_FINE,
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

// Whether the driver would refuse an allocation on an empty GPU too. Then it says why.
static bool refused_anyway(const struct request *request, enum arguments arguments)
{
    CUdevice ordinal;
    return arguments == ARGUMENTS_ODD || device_exceeded(request->device, request->bytes) ||
           REAL(cuCtxGetDevice)(&ordinal) != CUDA_SUCCESS;
}

// CUDA_SUCCESS: ask the driver. Fails closed while not attached.
static CUresult begin(struct request *request, enum arguments arguments, uint64_t bytes, const char *function)
{
    *request = (struct request){.bytes = bytes, .function = function};
    if (arguments == ARGUMENTS_MISSING)
        return device_attached() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
    request->device = device_current();
    if (!request->device)
        return device_absent();
    request->refused = take(request) != 0;
    if (!request->refused)
        return CUDA_SUCCESS;
    CUresult rc = device_refuse(request->device, bytes, function);
    return refused_anyway(request, arguments) ? CUDA_SUCCESS : rc;
}

// Books what the driver gave, or gives back what was taken. `bytes` is what it really gave.
static CUresult end(struct request *request, CUresult result, CUdeviceptr address, uint64_t bytes)
{
    if (!request->device)
        return result;
    if (request->refused) {
        if (result == CUDA_SUCCESS)
            REAL(cuMemFree_v2)(address);
        return result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result;
    }
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

static enum arguments judge(bool complete, bool documented)
{
    return !complete ? ARGUMENTS_MISSING : documented ? ARGUMENTS_FINE : ARGUMENTS_ODD;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    struct request request;
    CUresult rc;
    if (pointer && bytes && heap_memory_alloc(pointer, bytes, __func__, &rc))
        return rc;
    rc = begin(&request, judge(pointer && bytes, true), bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = DEVICE_ASK(request.device, REAL(cuMemAlloc_v2)(pointer, bytes));
    return end(&request, rc, rc == CUDA_SUCCESS ? *pointer : 0, bytes);
}

CUresult cuMemAlloc(CUdeviceptr_v1 *pointer, unsigned int bytes)
{
    struct request request;
    CUresult rc = begin(&request, judge(pointer && bytes, true), bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = DEVICE_ASK(request.device, REAL(cuMemAlloc)(pointer, bytes));
    return end(&request, rc, rc == CUDA_SUCCESS ? *pointer : 0, bytes);
}

CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned int flags)
{
    struct request request;
    bool documented = flags == CU_MEM_ATTACH_GLOBAL || flags == CU_MEM_ATTACH_HOST;
    CUresult rc = begin(&request, judge(pointer && bytes, documented), bytes, __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = DEVICE_ASK(request.device, REAL(cuMemAllocManaged)(pointer, bytes, flags));
    return end(&request, rc, rc == CUDA_SUCCESS ? *pointer : 0, bytes);
}

// The most that a pitched allocation takes: how much it does follows from the pitch that the driver chose.
static uint64_t pitched_bytes(uint64_t width, uint64_t height)
{
    return holdings_product(holdings_round_up(width, PITCH_BYTES), height);
}

static bool element_documented(unsigned int element_bytes)
{
    return element_bytes == 4 || element_bytes == 8 || element_bytes == 16;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned int element_bytes)
{
    struct request request;
    CUresult rc;
    enum arguments arguments = judge(pointer && pitch && width && height, element_documented(element_bytes));
    if (arguments == ARGUMENTS_FINE && heap_memory_alloc(pointer, pitched_bytes(width, height), __func__, &rc)) {
        if (rc == CUDA_SUCCESS)
            *pitch = holdings_round_up(width, PITCH_BYTES);
        return rc;
    }
    rc = begin(&request, arguments, pitched_bytes(width, height), __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = DEVICE_ASK(request.device, REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element_bytes));
    return end(&request, rc, rc == CUDA_SUCCESS ? *pointer : 0, rc == CUDA_SUCCESS ? *pitch * height : 0);
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *pointer, unsigned int *pitch, unsigned int width, unsigned int height,
                         unsigned int element_bytes)
{
    struct request request;
    enum arguments arguments = judge(pointer && pitch && width && height, element_documented(element_bytes));
    CUresult rc = begin(&request, arguments, pitched_bytes(width, height), __func__);
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = DEVICE_ASK(request.device, REAL(cuMemAllocPitch)(pointer, pitch, width, height, element_bytes));
    return end(&request, rc, rc == CUDA_SUCCESS ? *pointer : 0, rc == CUDA_SUCCESS ? (uint64_t)*pitch * height : 0);
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
        pools_settle(); // the address may be a pool's, and this call waits for the GPU
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
