// The entry points of virtual memory management.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include "simgpu/driver/vmm.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/stream.h"
#include "simgpu/state/state.h"

struct reservation {
    struct reservation *next;
    uintptr_t base;
    size_t bytes;
};

static struct reservation *reservations;

static bool whole_blocks(uint64_t value)
{
    return value % STATE_BLOCK_BYTES == 0;
}

CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t alignment, CUdeviceptr wanted, unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !bytes || !whole_blocks(bytes) || flags || alignment & (alignment - 1))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (alignment < STATE_BLOCK_BYTES)
        alignment = STATE_BLOCK_BYTES;
    struct reservation *reservation = malloc(sizeof *reservation);
    if (!reservation || bytes + alignment < bytes) {
        free(reservation);
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *base = MAP_FAILED;
    // The wish is a hint: another place is as good an answer.
    if (wanted && wanted % alignment == 0)
        base = mmap((void *)(uintptr_t)wanted, bytes, PROT_NONE, how | MAP_FIXED_NOREPLACE, -1, 0);
    if (base == MAP_FAILED) {
        base = mmap(NULL, bytes + alignment, PROT_NONE, how, -1, 0);
        if (base == MAP_FAILED) {
            free(reservation);
            return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
        }
        size_t before = -(uintptr_t)base & (alignment - 1);
        if (before)
            munmap(base, before);
        munmap(base + before + bytes, alignment - before);
        base += before;
    }
    madvise(base, bytes, MADV_DONTFORK);
    *reservation = (struct reservation){.next = reservations, .base = (uintptr_t)base, .bytes = bytes};
    reservations = reservation;
    *out = (CUdeviceptr)(uintptr_t)base;
    return api_leave(CUDA_SUCCESS);
}

static bool reserved(uintptr_t base, size_t bytes)
{
    for (struct reservation *r = reservations; r; r = r->next)
        if (base >= r->base && bytes <= r->bytes && base - r->base <= r->bytes - bytes)
            return true;
    return false;
}

static bool holds_mappings(uintptr_t base, size_t bytes)
{
    struct allocation *next = range_next(base);
    return next && next->base < base + bytes;
}

CUresult cuMemAddressFree(CUdeviceptr ptr, size_t bytes)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct reservation **link = &reservations;
    while (*link && ((*link)->base != ptr || (*link)->bytes != bytes))
        link = &(*link)->next;
    struct reservation *found = *link;
    if (!found || holds_mappings(ptr, bytes))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *link = found->next;
    munmap((void *)found->base, found->bytes);
    free(found);
    return api_leave(CUDA_SUCCESS);
}

// Everything but the type of memory, which only cuMemCreate checks.
static CUresult check_properties(const CUmemAllocationProp *properties, struct device **device)
{
    if (!properties)
        return CUDA_ERROR_INVALID_VALUE;
    if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        properties->requestedHandleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    *device = device_get(properties->location.id);
    return *device ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *properties,
                     unsigned long long flags)
{
    struct device *device;
    struct physical *physical;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !bytes || !whole_blocks(bytes) || flags)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = check_properties(properties, &device);
    if (!rc && properties->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        rc = physical_create(device, bytes, properties, &physical);
    if (!rc)
        *out = (uintptr_t)physical;
    return api_leave(rc);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct physical *physical = physical_get(handle);
    if (!physical)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    physical_release(physical);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *address)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *mapping = range_find((uintptr_t)address);
    if (!out || !mapping || mapping->kind != ALLOCATION_MAPPING)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = physical_retain(mapping->physical);
    if (!rc)
        *out = (uintptr_t)mapping->physical;
    return api_leave(rc);
}

CUresult cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct physical *physical = physical_get(handle);
    if (!physical || !bytes || !whole_blocks(bytes) || !whole_blocks(offset) || !whole_blocks(ptr) || flags ||
        offset > physical->bytes || bytes > physical->bytes - offset || !reserved(ptr, bytes))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct allocation *mapping = calloc(1, sizeof *mapping);
    if (!mapping)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *mapping = (struct allocation){.base = ptr,
                                   .bytes = bytes,
                                   .kind = ALLOCATION_MAPPING,
                                   .device = physical->device,
                                   .physical = physical,
                                   .physical_offset = offset};
    rc = range_insert(mapping);
    void *base = (void *)(uintptr_t)ptr;
    if (!rc && mmap(base, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, physical->fd, (off_t)offset) == MAP_FAILED) {
        range_remove(mapping);
        rc = CUDA_ERROR_MAP_FAILED;
    }
    if (rc) {
        free(mapping);
        return api_leave(rc);
    }
    madvise(base, bytes, MADV_DONTFORK);
    physical->mappings++;
    return api_leave(CUDA_SUCCESS);
}

// True if the range is made of whole mappings without a gap.
static bool whole_mappings(uintptr_t base, size_t bytes)
{
    uintptr_t at = base;

    if (!bytes || base + bytes < base)
        return false;
    while (at < base + bytes) {
        const struct allocation *mapping = range_find(at);
        if (!mapping || mapping->kind != ALLOCATION_MAPPING || mapping->base != at)
            return false;
        at += mapping->bytes;
    }
    return at == base + bytes;
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t bytes)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!whole_mappings(ptr, bytes))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // Kernels that still use the memory would crash the process, where a GPU merely reports a fault.
    stream_wait_all_idle();
    if (!whole_mappings(ptr, bytes))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    (void)mmap((void *)(uintptr_t)ptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    madvise((void *)(uintptr_t)ptr, bytes, MADV_DONTFORK);
    for (uintptr_t at = ptr; at < ptr + bytes;) {
        struct allocation *mapping = range_find(at);
        at += mapping->bytes;
        range_remove(mapping);
        physical_unmapped(mapping->physical);
        free(mapping);
    }
    return api_leave(CUDA_SUCCESS);
}

static int protection(CUmemAccess_flags flags)
{
    return flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? PROT_READ | PROT_WRITE
           : flags == CU_MEM_ACCESS_FLAGS_PROT_READ    ? PROT_READ
                                                       : 0;
}

CUresult cuMemSetAccess(CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *descriptors, size_t count)
{
    int access = PROT_NONE;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!descriptors || !count || !whole_mappings(ptr, bytes))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // All devices are one address space here, so the widest access that any of them gets is what all get.
    for (size_t i = 0; i < count; i++) {
        if (descriptors[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || !device_get(descriptors[i].location.id))
            return api_leave(CUDA_ERROR_INVALID_DEVICE);
        access |= protection(descriptors[i].flags);
    }
    if (mprotect((void *)(uintptr_t)ptr, bytes, access))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    for (uintptr_t at = ptr; at < ptr + bytes;) {
        struct allocation *mapping = range_find(at);
        mapping->access = access;
        at += mapping->bytes;
    }
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *mapping = range_find(ptr);
    if (!flags || !location || !mapping || mapping->kind != ALLOCATION_MAPPING)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *flags = mapping->access & PROT_WRITE  ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
             : mapping->access & PROT_READ ? CU_MEM_ACCESS_FLAGS_PROT_READ
                                           : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *properties,
                                       CUmemAllocationGranularity_flags option)
{
    struct device *device;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!bytes || (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM && option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // As driver 580, names one for any type of memory.
    rc = check_properties(properties, &device);
    if (!rc)
        *bytes = STATE_BLOCK_BYTES;
    return api_leave(rc);
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *properties, CUmemGenericAllocationHandle handle)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct physical *physical = physical_get(handle);
    if (!properties || !physical)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *properties = physical->properties;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType type,
                                      unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct physical *physical = physical_get(handle);
    // Whoever imported memory cannot export it on (H100, driver 580).
    if (!out || !physical || flags || physical->imported || !(physical->properties.requestedHandleTypes & type))
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    int fd = fcntl(physical->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return api_leave(CUDA_ERROR_OPERATING_SYSTEM);
    *(int *)out = fd;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out, void *os_handle, CUmemAllocationHandleType type)
{
    struct CUctx_st *ctx;
    struct physical *physical;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return api_leave(CUDA_ERROR_NOT_SUPPORTED);
    int fd = fcntl((int)(intptr_t)os_handle, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // The descriptor does not tell the device; the current one is the best guess, and nothing but queries depends on it.
    struct device *device = context_current(&ctx) ? device_get(0) : ctx->device;
    rc = physical_import(device, fd, &physical);
    if (rc)
        close(fd);
    else
        *out = (uintptr_t)physical;
    return api_leave(rc);
}
