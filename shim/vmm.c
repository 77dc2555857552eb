// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/vmm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "shim/device.h"
#include "shim/heap_memory.h"

struct memory {
    CUmemGenericAllocationHandle handle;
    uint32_t handles;  // how often the program obtained the handle, less its releases; 0: not in the table of handles
    uint32_t mappings; // and those about to be made
    uint64_t bytes;
    struct device *device;
    UT_hash_handle hh;
};

struct mapping {
    CUdeviceptr address;
    uint64_t bytes;
    struct memory *memory;
    struct mapping *next; // on a list of withdrawn ones
    UT_hash_handle hh;
};

// A part of a sparse array, or of one with deferred mapping, that has memory.
struct tile {
    CUarrayMapInfo info;
    struct memory *memory;
    CUcontext context; // which ends with the array
    bool whole;        // the array has one mapping, of all of it, and regions mean nothing (deferred mapping)
    struct tile *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory *by_handle;
static struct mapping *mappings;
static struct tile *tiles;

void vmm_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    by_handle = NULL;
    mappings = NULL;
    tiles = NULL;
}

static struct memory *find(CUmemGenericAllocationHandle handle)
{
    struct memory *memory;
    HASH_FIND(hh, by_handle, &handle, sizeof handle, memory);
    return memory;
}

static bool enter_handle(struct memory *memory)
{
    HASH_ADD(hh, by_handle, handle, sizeof memory->handle, memory);
    return memory->hh.tbl != NULL;
}

// Gives the memory back when nothing holds it any more.
static void check_end(struct memory *memory)
{
    if (memory->handles || memory->mappings)
        return;
    holdings_give(&memory->device->holdings, memory->bytes);
    free(memory);
}

// Whether the driver would refuse this memory on an empty GPU too. Then it says why. A wrong type does not show in the
// granularity: driver 580 names one for any.
static bool refused_anyway(const struct device *device, size_t bytes, const CUmemAllocationProp *properties,
                           unsigned long long flags)
{
    size_t unit = 0;
    bool documented = properties->type == CU_MEM_ALLOCATION_TYPE_PINNED || properties->type == CU_MEM_ALLOCATION_TYPE_MANAGED;
    return flags || !documented || device_exceeded(device, bytes) ||
           REAL(cuMemGetAllocationGranularity)(&unit, properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS ||
           (unit && bytes % unit);
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *properties,
                     unsigned long long flags)
{
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    bool charged = handle && bytes && properties && properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    struct device *device = charged ? device_of(properties->location.id) : NULL;
    if (!device)
        return REAL(cuMemCreate)(handle, bytes, properties, flags);

    uint64_t taken = holdings_round_up(bytes, HOLDINGS_BLOCK_BYTES);
    CUresult rc;
    if (taken < bytes || device_take(device, taken)) {
        device_refuse(device, bytes, __func__);
        rc = refused_anyway(device, bytes, properties, flags) ? REAL(cuMemCreate)(handle, bytes, properties, flags)
                                                              : CUDA_ERROR_OUT_OF_MEMORY;
        if (rc == CUDA_SUCCESS)
            REAL(cuMemRelease)(*handle);
        return rc == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : rc;
    }
    rc = DEVICE_ASK(device, REAL(cuMemCreate)(handle, bytes, properties, flags));
    if (rc != CUDA_SUCCESS) {
        holdings_give(&device->holdings, taken);
        return rc;
    }
    int saved = errno;
    struct memory *memory = calloc(1, sizeof *memory);
    bool entered = false;
    if (memory) {
        *memory = (struct memory){.handle = *handle, .handles = 1, .bytes = taken, .device = device};
        pthread_mutex_lock(&mutex);
        entered = enter_handle(memory);
        pthread_mutex_unlock(&mutex);
    }
    if (!entered) {
        free(memory);
        REAL(cuMemRelease)(*handle);
        holdings_give(&device->holdings, taken);
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    }
    errno = saved;
    return rc;
}

// The handle leaves the table before the driver can reuse its number; the memory stays charged until the driver has answered.
CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&mutex);
    struct memory *memory = find(handle);
    if (memory) {
        memory->mappings++; // keeps the record
        if (--memory->handles == 0)
            HASH_DEL(by_handle, memory);
    }
    pthread_mutex_unlock(&mutex);

    CUresult rc = REAL(cuMemRelease)(handle);
    if (!memory)
        return rc;
    pthread_mutex_lock(&mutex);
    memory->mappings--;
    if (rc != CUDA_SUCCESS && memory->handles++ == 0)
        enter_handle(memory);
    check_end(memory);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static struct mapping *mapping_containing(CUdeviceptr address)
{
    struct mapping *mapping;
    HASH_FIND(hh, mappings, &address, sizeof address, mapping);
    if (mapping)
        return mapping;
    for (mapping = mappings; mapping; mapping = mapping->hh.next)
        if (address >= mapping->address && address - mapping->address < mapping->bytes)
            return mapping;
    return NULL;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    struct heap_piece piece;
    CUcontext context;
    // What a heap gives out is cuMemAlloc memory, which has no handle.
    if (heap_memory_find((CUdeviceptr)(uintptr_t)address, &piece, &context) != -ENOENT)
        address = (void *)HEAP_MEMORY_NOWHERE;
    CUresult rc = REAL(cuMemRetainAllocationHandle)(handle, address);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&mutex);
    struct mapping *mapping = mapping_containing((CUdeviceptr)(uintptr_t)address);
    struct memory *memory = mapping ? mapping->memory : NULL;
    if (memory && memory->handles++ == 0) {
        memory->handle = *handle;
        enter_handle(memory);
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    int saved = errno;
    struct mapping *mapping = calloc(1, sizeof *mapping);
    errno = saved;
    if (!mapping)
        return CUDA_ERROR_OUT_OF_MEMORY;
    // Counted before the driver maps: after that, another thread may release the handle.
    pthread_mutex_lock(&mutex);
    struct memory *memory = find(handle);
    if (memory)
        memory->mappings++;
    pthread_mutex_unlock(&mutex);

    CUresult rc = REAL(cuMemMap)(address, bytes, offset, handle, flags);
    if (!memory) {
        free(mapping);
        return rc;
    }
    pthread_mutex_lock(&mutex);
    if (rc == CUDA_SUCCESS) {
        mapping->address = address;
        mapping->bytes = bytes;
        mapping->memory = memory;
        HASH_ADD(hh, mappings, address, sizeof mapping->address, mapping);
        if (!mapping->hh.tbl) {
            REAL(cuMemUnmap)(address, bytes);
            rc = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    if (rc != CUDA_SUCCESS) {
        memory->mappings--;
        check_end(memory);
        free(mapping);
    }
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return rc;
}

static void withdraw_one(struct mapping *mapping, struct mapping **list)
{
    HASH_DEL(mappings, mapping);
    mapping->next = *list;
    *list = mapping;
}

// Takes the mappings of a range out of the table. A range that the driver accepts consists of whole mappings side by side.
// Programs have tens of thousands of them, so the table is searched only if one is not known, such as that of imported memory.
static struct mapping *withdraw(CUdeviceptr address, size_t bytes)
{
    struct mapping *list = NULL, *mapping = NULL, *following;
    CUdeviceptr next = address;
    while (next - address < bytes) {
        HASH_FIND(hh, mappings, &next, sizeof next, mapping);
        if (!mapping)
            break;
        next += mapping->bytes;
        withdraw_one(mapping, &list);
    }
    if (next - address >= bytes)
        return list;
    HASH_ITER(hh, mappings, mapping, following)
    {
        if (mapping->address - address < bytes)
            withdraw_one(mapping, &list);
    }
    return list;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    pthread_mutex_lock(&mutex);
    struct mapping *list = withdraw(address, bytes);
    pthread_mutex_unlock(&mutex);
    CUresult rc = REAL(cuMemUnmap)(address, bytes);
    pthread_mutex_lock(&mutex);
    while (list) {
        struct mapping *mapping = list;
        list = mapping->next;
        if (rc != CUDA_SUCCESS) {
            HASH_ADD(hh, mappings, address, sizeof mapping->address, mapping);
            continue;
        }
        mapping->memory->mappings--;
        check_end(mapping->memory);
        free(mapping);
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

// A handle that this process already knows names the same memory once more.
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shareable, CUmemAllocationHandleType type)
{
    CUresult rc = REAL(cuMemImportFromShareableHandle)(handle, shareable, type);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&mutex);
    struct memory *memory = find(*handle);
    if (memory)
        memory->handles++;
    pthread_mutex_unlock(&mutex);
    return rc;
}

static const void *tile_array(const CUarrayMapInfo *info)
{
    return info->resourceType == CU_RESOURCE_TYPE_ARRAY ? (const void *)info->resource.array
                                                        : (const void *)info->resource.mipmap;
}

static bool mapped_whole(const CUarrayMapInfo *info)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {0};
    CUarray array = info->resource.array;
    if (info->resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY &&
        REAL(cuMipmappedArrayGetLevel)(&array, info->resource.mipmap, 0) != CUDA_SUCCESS)
        return false;
    return REAL(cuArray3DGetDescriptor_v2)(&descriptor, array) == CUDA_SUCCESS &&
           descriptor.Flags & CUDA_ARRAY3D_DEFERRED_MAPPING;
}

static bool unmaps(const CUarrayMapInfo *info, const struct tile *tile)
{
    return tile_array(info) == tile_array(&tile->info) &&
           (tile->whole || (info->subresourceType == tile->info.subresourceType &&
                            memcmp(&info->subresource, &tile->info.subresource, sizeof info->subresource) == 0));
}

static void remove_tile(struct tile **link)
{
    struct tile *tile = *link;
    *link = tile->next;
    tile->memory->mappings--;
    check_end(tile->memory);
    free(tile);
}

// Notes what is about to be mapped; false: out of memory. Puts it on the list *added, which remove_tile takes back.
static bool add_tiles(const CUarrayMapInfo *list, unsigned count, struct tile **added)
{
    CUcontext context = NULL;
    REAL(cuCtxGetCurrent)(&context);
    *added = NULL;
    for (unsigned i = 0; i < count; i++) {
        struct memory *memory =
            list[i].memOperationType == CU_MEM_OPERATION_TYPE_MAP ? find(list[i].memHandle.memHandle) : NULL;
        if (!memory)
            continue;
        struct tile *tile = calloc(1, sizeof *tile);
        if (!tile)
            return false;
        *tile = (struct tile){list[i], memory, context, mapped_whole(&list[i]), *added};
        memory->mappings++;
        *added = tile;
    }
    return true;
}

static void append_tiles(struct tile *added)
{
    struct tile **last = &tiles;
    while (*last)
        last = &(*last)->next;
    *last = added;
}

static void unmap_tiles(const CUarrayMapInfo *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (struct tile **link = &tiles; *link && list[i].memOperationType == CU_MEM_OPERATION_TYPE_UNMAP;)
            if (unmaps(&list[i], *link))
                remove_tile(link);
            else
                link = &(*link)->next;
}

// An unmapping that does not name a region as it was mapped leaves it charged until the array's end.
static CUresult map_tiles(CUarrayMapInfo *list, unsigned count, CUstream stream,
                          CUresult (*driver_map)(CUarrayMapInfo *, unsigned, CUstream))
{
    struct tile *added;
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    int saved = errno;
    pthread_mutex_lock(&mutex);
    bool noted = add_tiles(list, list ? count : 0, &added);
    pthread_mutex_unlock(&mutex);
    CUresult rc = noted ? driver_map(list, count, stream) : CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&mutex);
    if (rc == CUDA_SUCCESS) {
        unmap_tiles(list, count);
        append_tiles(added);
    } else {
        while (added)
            remove_tile(&added);
    }
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return rc;
}

CUresult cuMemMapArrayAsync(CUarrayMapInfo *list, unsigned int count, CUstream stream)
{
    return map_tiles(list, count, stream, REAL(cuMemMapArrayAsync));
}

CUresult cuMemMapArrayAsync_ptsz(CUarrayMapInfo *list, unsigned int count, CUstream stream)
{
    return map_tiles(list, count, stream, REAL(cuMemMapArrayAsync_ptsz));
}

struct tile *vmm_withdraw_arrays(const void *array, CUcontext context)
{
    struct tile *withdrawn = NULL;
    pthread_mutex_lock(&mutex);
    for (struct tile **link = &tiles; *link;) {
        struct tile *tile = *link;
        if (array ? tile_array(&tile->info) != array : tile->context != context) {
            link = &tile->next;
            continue;
        }
        *link = tile->next;
        tile->next = withdrawn;
        withdrawn = tile;
    }
    pthread_mutex_unlock(&mutex);
    return withdrawn;
}

void vmm_end_array(struct tile *withdrawn, bool gone)
{
    if (!withdrawn)
        return;
    pthread_mutex_lock(&mutex);
    if (gone)
        while (withdrawn)
            remove_tile(&withdrawn);
    else
        append_tiles(withdrawn);
    pthread_mutex_unlock(&mutex);
}
