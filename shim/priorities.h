// SPDX-License-Identifier: AGPL-3.0-or-later
// The priorities of the program's streams and kernels, as the class of its virtual GPU allows: the low class gets the GPU's lowest one
// whatever it asks for, as a driver does with a priority beyond its range; the others get what they ask for. Among processes that run on the
// GPU side by side (under MPS) such a priority would otherwise override the classes.
//
// The range that the program is told stays the GPU's: PyTorch does not start where there is only one priority. The priority that a stream
// says it has is the one that it got. A class that `vgpu set` changes counts for what is made from then on.
#ifndef VGPU_SHIM_PRIORITIES_H
#define VGPU_SHIM_PRIORITIES_H

#include "base/priority.h"
#include "shim/device.h"

// The lowest priority of every GPU, and the default; higher ones are less.
#define PRIORITY_LOWEST 0

// What becomes of a priority that the program asks for on this device (may be NULL: none that the library knows).
static inline int priority_allowed(const struct device *device, int priority)
{
    if (priority >= PRIORITY_LOWEST || !device)
        return priority;
    const struct pool_vgpu *vgpu = &device->holdings.pool->layout->vgpus[device->holdings.vgpu];
    return atomic_load_explicit(&vgpu->priority, memory_order_relaxed) == PRIORITY_LOW ? PRIORITY_LOWEST : priority;
}

// A launch's configuration as it is allowed: the given one (may be NULL), or *copy with attributes of its own, to be freed by the caller.
const CUlaunchConfig *priority_launch(const CUlaunchConfig *config, CUlaunchConfig *copy);

#endif
