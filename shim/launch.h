// SPDX-License-Identifier: AGPL-3.0-or-later
// What surrounds a launch: the gate of its device, or the gates of all its devices.
#ifndef VGPU_SHIM_LAUNCH_H
#define VGPU_SHIM_LAUNCH_H

#include "shim/captures.h"
#include "shim/device.h"

// While nothing is being captured, launching means passing the gate: gate_try, and gate_enter_slow if that is undecided.
static inline enum gate_pass launch_try(struct device *device, CUstream stream)
{
    if (streams_capturing() && capture_under_way(stream))
        return GATE_CAPTURED;
    return gate_try(&device->gate);
}

static inline enum gate_pass launch_enter(struct device *device, CUstream stream, const void *function)
{
    enum gate_pass pass = launch_try(device, stream);
    return pass == GATE_UNDECIDED ? gate_enter_slow(&device->gate, stream, function) : pass;
}

static inline void launch_leave(struct device *device, enum gate_pass pass, CUstream stream, const void *function)
{
    if (streams_capturing() && pass != GATE_CAPTURED)
        capture_launched(stream);
    gate_leave(&device->gate, pass, stream, function);
}

// One launch on several GPUs that all wait for each other: it runs once this process has every GPU's token. The gates are
// passed in the order of the pool's GPUs, the same in every process, so that no two such launches wait for each other. A gate
// passed early stays occupied during the wait for the next one; the drain of that GPU ends by its deadline.
struct launch_group {
    unsigned int count;
    struct launch_partner {
        struct device *device;
        CUstream stream;
        const void *function;
        enum gate_pass pass;
    } partners[DEVICE_MAX];
};

// Adds what is launched into one stream. A stream that the driver does not know is left out, as are more entries than there are
// GPUs: the driver will refuse such a launch.
void launch_group_add(struct launch_group *group, CUstream stream, const void *function);
void launch_group_enter(struct launch_group *group);
void launch_group_leave(const struct launch_group *group);

#endif
