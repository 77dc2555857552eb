// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/vmm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "shim/device.h"

#define HASH_NONFATAL_OOM 1 // the library never exits
#include <uthash.h>

struct memory {
    CUmemGenericAllocationHandle handle;
    uint32_t handles;  // times the program has obtained the handle, less its releases; 0: not in the table of handles
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

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory *by_handle;
static struct mapping *mappings;

void vmm_reset(void)
{
    // Not freed: another thread of the parent may have been halfway through a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    by_handle = NULL;
    mappings = NULL;
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

// Gives the memory back once nothing holds it.
static void check_end(struct memory *memory)
{
    if (memory->handles || memory->mappings)
        return;
    holdings_give(&memory->device->holdings, memory->bytes);
    free(memory);
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
    if (device_take(device, taken))
        return device_refuse(device, bytes, __func__);
    CUresult rc = DEVICE_ASK(device, REAL(cuMemCreate)(handle, bytes, properties, flags));
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

// The handle leaves the table before the driver can use its number again; the memory stays charged until the driver has answered.
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
    // Counted before the driver maps: from then on another thread may release the handle.
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
        // Without memory for the books, the memory stays charged until the process ends.
        if (!mapping->hh.tbl)
            free(mapping);
    } else {
        memory->mappings--;
        check_end(memory);
        free(mapping);
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

// Takes the mappings of a range out of the table. A range that the driver accepts consists of whole mappings side by side.
static struct mapping *withdraw(CUdeviceptr address, size_t bytes)
{
    struct mapping *list = NULL, *mapping, *following;
    HASH_ITER(hh, mappings, mapping, following)
    {
        if (mapping->address - address >= bytes)
            continue;
        HASH_DEL(mappings, mapping);
        mapping->next = list;
        list = mapping;
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
