// Physical memory objects behind memfds.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simgpu/driver/device.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/vmm.h"
#include "simgpu/state/state.h"

struct physical *physical_get(CUmemGenericAllocationHandle handle)
{
    struct physical *physical = (struct physical *)(uintptr_t)handle;
    return handle_is(physical, HANDLE_PHYSICAL) ? physical : NULL;
}

static CUresult finish(struct physical made, struct physical **out)
{
    struct physical *physical = calloc(1, sizeof *physical);

    if (!physical || !handle_add(physical, HANDLE_PHYSICAL)) {
        free(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *physical = made;
    *out = physical;
    return CUDA_SUCCESS;
}

CUresult physical_create(struct device *device, size_t bytes, const CUmemAllocationProp *properties, struct physical **physical)
{
    CUresult rc = CUDA_ERROR_OUT_OF_MEMORY;

    if (state_reserve(device->index, bytes))
        return rc;
    int fd = memfd_create("simgpu-memory", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        rc = finish((struct physical){.handles = 1, .fd = fd, .bytes = bytes, .device = device, .properties = *properties},
                    physical);
    if (rc) {
        if (fd >= 0)
            close(fd);
        state_release(device->index, bytes);
    }
    return rc;
}

CUresult physical_import(struct device *device, int fd, struct physical **physical)
{
    struct stat st;

    // Only a memfd of whole blocks can have come from an export.
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size % STATE_BLOCK_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    struct physical made = {
        .handles = 1,
        .imported = true,
        .fd = fd,
        .bytes = (size_t)st.st_size,
        .device = device,
        .properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                       .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                       .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->ordinal}},
    };
    return finish(made, physical);
}

CUresult physical_retain(struct physical *physical)
{
    if (physical->handles == 0 && !handle_add(physical, HANDLE_PHYSICAL))
        return CUDA_ERROR_OUT_OF_MEMORY;
    physical->handles++;
    return CUDA_SUCCESS;
}

static void free_if_unused(struct physical *physical)
{
    if (physical->handles || physical->mappings)
        return;
    close(physical->fd);
    if (!physical->imported)
        state_release(physical->device->index, physical->bytes);
    free(physical);
}

void physical_release(struct physical *physical)
{
    if (--physical->handles == 0)
        handle_remove(physical);
    free_if_unused(physical);
}

void physical_unmapped(struct physical *physical)
{
    physical->mappings--;
    free_if_unused(physical);
}
