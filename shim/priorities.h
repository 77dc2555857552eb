// SPDX-License-Identifier: AGPL-3.0-or-later
// The priorities of the program's streams and kernels, as the class of its virtual GPU allows. The low class gets the GPU's
// lowest priority whatever it asks for, as a driver clamps a priority beyond its range; the other classes get what they ask
// for. Among processes that run side by side on the GPU (under MPS), stream priorities would otherwise override the classes.
//
// The range that the program is told remains the GPU's: PyTorch does not start if there is only one priority. A stream reports
// the priority that it got. A class changed by `vgpu set` applies to what is made from then on.
#ifndef VGPU_SHIM_PRIORITIES_H
#define VGPU_SHIM_PRIORITIES_H

#include "base/priority.h"
#include "shim/device.h"

// The lowest priority of every GPU, and the default; higher priorities are smaller numbers.
#define PRIORITY_LOWEST 0

// The priority that the program gets when it asks for `priority` on this device (may be NULL: not known to the library).
static inline int priority_allowed(const struct device *device, int priority)
{
    if (priority >= PRIORITY_LOWEST || !device)
        return priority;
    const struct pool_vgpu *vgpu = &device->holdings.pool->layout->vgpus[device->holdings.vgpu];
    return atomic_load_explicit(&vgpu->priority, memory_order_relaxed) == PRIORITY_LOW ? PRIORITY_LOWEST : priority;
}

// The permitted configuration of a launch: the given one (may be NULL), or *copy with attributes of its own, which the caller
// frees.
const CUlaunchConfig *priority_launch(const CUlaunchConfig *config, CUlaunchConfig *copy);

#endif
