// What the driver tells about addresses.
// SPDX-License-Identifier: AGPL-3.0-or-later

#include "simgpu/driver/context.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/vmm.h"

#define PUT(type, ...) (*(type *)data = (__VA_ARGS__), CUDA_SUCCESS)

static bool is_host(const struct allocation *a)
{
    return a->kind == ALLOCATION_HOST || a->kind == ALLOCATION_REGISTERED;
}

// One attribute of an address inside an allocation.
static CUresult get(const struct allocation *a, CUpointer_attribute attribute, CUdeviceptr ptr, void *data)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        return PUT(CUcontext, a->ctx);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        return PUT(unsigned, is_host(a) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        return PUT(CUdeviceptr, ptr);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!is_host(a) && a->kind != ALLOCATION_MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        return PUT(void *, (void *)(uintptr_t)ptr);
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        return PUT(unsigned, 0);
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        return PUT(unsigned long long, a->id);
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        return PUT(unsigned, a->kind == ALLOCATION_MANAGED);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        return PUT(int, a->device->ordinal);
    // Handles for other processes exist for memory made with cuMemCreate only.
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        return PUT(unsigned, 0);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
        return PUT(CUdeviceptr, a->base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
        return PUT(size_t, a->bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
        return PUT(unsigned, 1);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        return PUT(uint64_t, a->kind == ALLOCATION_MAPPING ? (uint64_t)a->physical->properties.requestedHandleTypes : 0);
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        return PUT(unsigned, 0);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        return PUT(int, CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        return PUT(CUmemoryPool, a->pool);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

// The answer for an address the driver does not know: zero, or what stands for nothing.
static CUresult put_unknown(CUpointer_attribute attribute, void *data)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        return PUT(uint64_t, 0);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        return PUT(int, CU_DEVICE_INVALID);
    default:
        return PUT(unsigned, 0);
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *a = range_find(ptr);
    return api_leave(data && a ? get(a, attribute, ptr, data) : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **data, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count || !attributes || !data)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct allocation *a = range_find(ptr);
    for (unsigned i = 0; i < count && !rc; i++) {
        if (!data[i] || (int)attributes[i] < CU_POINTER_ATTRIBUTE_CONTEXT ||
            attributes[i] > CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE)
            rc = CUDA_ERROR_INVALID_VALUE;
        // Unlike the single query, this one succeeds for any address.
        else if (!a || get(a, attributes[i], ptr, data[i]))
            rc = put_unknown(attributes[i], data[i]);
    }
    return api_leave(rc);
}

CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !range_find(ptr))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(CUDA_SUCCESS);
}

// Advice and prefetches: managed memory has one place here, so that there is nothing to do but to check.
static CUresult check_managed(CUdeviceptr ptr, size_t bytes)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    struct allocation *a = range_find(ptr);
    bool inside = a && a->kind == ALLOCATION_MANAGED && bytes && bytes <= a->bytes - (ptr - a->base);
    return api_leave(inside ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemAdvise(CUdeviceptr ptr, size_t bytes, CUmem_advise advice, CUdevice dev)
{
    (void)advice;
    (void)dev;
    return check_managed(ptr, bytes);
}

CUresult cuMemAdvise_v2(CUdeviceptr ptr, size_t bytes, CUmem_advise advice, CUmemLocation location)
{
    (void)advice;
    (void)location;
    return check_managed(ptr, bytes);
}

static CUresult cuMemPrefetchAsync_any(bool per_thread, CUdeviceptr ptr, size_t bytes)
{
    (void)per_thread;
    return check_managed(ptr, bytes);
}

static CUresult cuMemPrefetchAsync_v2_any(bool per_thread, CUdeviceptr ptr, size_t bytes)
{
    return cuMemPrefetchAsync_any(per_thread, ptr, bytes);
}

#define UNUSED __attribute__((unused))
TWIN_API(cuMemPrefetchAsync, _ptsz, (CUdeviceptr ptr, size_t bytes, CUdevice dev UNUSED, CUstream stream UNUSED), ptr, bytes)
TWIN_API(cuMemPrefetchAsync_v2, _ptsz,
         (CUdeviceptr ptr, size_t bytes, CUmemLocation location UNUSED, unsigned flags UNUSED, CUstream stream UNUSED), ptr,
         bytes)
