// SPDX-License-Identifier: AGPL-3.0-or-later
// One doorbell per process: its agent sleeps there, however many slots and gates the process has.
#ifndef VGPU_SCHEDULER_BELL_H
#define VGPU_SCHEDULER_BELL_H

#include "base/futex.h"
#include "pool/layout.h"

// Makes the agent of the process that has this slot look at its gates now. From any process; cheap enough only for a slow path.
static inline void bell_ring(struct pool_layout *layout, uint32_t process)
{
    if (process >= POOL_MAX_PROCESSES)
        return;
    uint32_t bell = atomic_load_explicit(&layout->processes[process].bell, memory_order_relaxed) % POOL_MAX_PROCESSES;
    atomic_fetch_add(&layout->processes[bell].doorbell, 1);
    futex_wake(&layout->processes[bell].doorbell, FUTEX_EVERYONE);
}

#endif
