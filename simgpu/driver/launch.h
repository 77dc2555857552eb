// Kernel launches: an immutable copy of everything a launch needs, shared by queues, graph nodes and executable graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_LAUNCH_H
#define SIMGPU_DRIVER_LAUNCH_H

#include "simgpu/device/kernel.h"
#include "simgpu/driver/api.h"

struct engine;

struct launch {
    unsigned references;
    CUfunction function; // as the program passed it
    const struct simgpu_kernel *kernel;
    struct simgpu_dim3 grid, block;
    uint32_t dynamic_shared_bytes;
    void **params; // kernel->param_count pointers into the same allocation
};

// Checks and copies the parameters of a launch. With the lock held.
CUresult launch_new(CUfunction function, struct simgpu_dim3 grid, struct simgpu_dim3 block, unsigned shared_bytes,
                    void **params, void **extra, struct launch **launch);
void launch_release(struct launch *launch);

// Runs all blocks on the calling thread, holding the engine. Without the lock.
void launch_run(const struct launch *launch, struct engine *engine);

#endif
