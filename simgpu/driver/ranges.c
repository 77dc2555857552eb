// The index of allocations by address: a sorted array, searched by bisection.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "simgpu/driver/memory.h"

static struct allocation **ranges;
static size_t count, capacity;

// The index of the first range that ends above the address.
static size_t lower(uintptr_t address)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle]->base + ranges[middle]->bytes <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct allocation *range_find(uintptr_t address)
{
    size_t i = lower(address);
    return i < count && ranges[i]->base <= address ? ranges[i] : NULL;
}

struct allocation *range_next(uintptr_t address)
{
    size_t i = lower(address);
    return i < count ? ranges[i] : NULL;
}

CUresult range_insert(struct allocation *allocation)
{
    static uint64_t last_id;
    size_t i = lower(allocation->base);

    if (i < count && ranges[i]->base < allocation->base + allocation->bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (count == capacity) {
        size_t wider = capacity ? capacity * 2 : 64;
        struct allocation **grown = realloc(ranges, wider * sizeof(*grown));
        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        ranges = grown;
        capacity = wider;
    }
    memmove(ranges + i + 1, ranges + i, (count - i) * sizeof(*ranges));
    ranges[i] = allocation;
    count++;
    allocation->id = ++last_id;
    return CUDA_SUCCESS;
}

void range_remove(struct allocation *allocation)
{
    size_t i = lower(allocation->base);

    if (i == count || ranges[i] != allocation)
        return;
    count--;
    memmove(ranges + i, ranges + i + 1, (count - i) * sizeof(*ranges));
}

bool range_is_device(uintptr_t address, size_t bytes)
{
    if (address + bytes < address)
        return false;
    for (uintptr_t at = address; at < address + bytes;) {
        const struct allocation *allocation = range_find(at);
        if (!allocation || (allocation->kind == ALLOCATION_MAPPING && !(allocation->access & (PROT_READ | PROT_WRITE))))
            return false;
        at = allocation->base + allocation->bytes;
    }
    return true;
}
