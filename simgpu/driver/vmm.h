// SPDX-License-Identifier: AGPL-3.0-or-later
// Virtual memory management: physical memory, reserved addresses, and mappings between the two. Needs the API lock.
//
// Physical memory is a memfd, so that it can be mapped twice and handed to another process. It lives, and is paid for, until
// its handles are released and its mappings are gone. Imported memory is not paid for: the exporter does that.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_VMM_H
#define SIMGPU_DRIVER_VMM_H

#include "simgpu/driver/api.h"

struct device;

struct physical {
    unsigned handles, mappings;
    bool imported;
    int fd;
    size_t bytes;
    struct device *device;
    CUmemAllocationProp properties;
};

// The physical memory of a handle, NULL if there is none.
struct physical *physical_get(CUmemGenericAllocationHandle handle);
CUresult physical_create(struct device *device, size_t bytes, const CUmemAllocationProp *properties,
                         struct physical **physical);
// Takes over the descriptor on success.
CUresult physical_import(struct device *device, int fd, struct physical **physical);
// One more handle for the program; one less.
CUresult physical_retain(struct physical *physical);
void physical_release(struct physical *physical);
// A mapping is gone.
void physical_unmapped(struct physical *physical);

#endif
