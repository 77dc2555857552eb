// SPDX-License-Identifier: AGPL-3.0-or-later
// What the scheduler asks of a GPU. The shim answers with CUDA events, the unit tests with a made-up GPU; the scheduler itself
// knows no CUDA.
//
// A mark stands behind the work of one stream, a fence behind all work that this process has given to the GPU. These calls
// never wait for either. But mark_put and fence_renew can block while a stream's queue has no room for one more entry.
#ifndef VGPU_SCHEDULER_GPU_OPS_H
#define VGPU_SCHEDULER_GPU_OPS_H

#include <stdbool.h>

struct gpu_ops {
    // Puts a mark behind what was launched into `stream` so far, on the launching thread, with its context current. NULL if
    // that is impossible (out of marks, driver error).
    void *(*mark_put)(void *gpu, void *stream);
    // Whether everything before the mark is complete. An error counts as complete: work that failed is over.
    bool (*mark_done)(void *gpu, void *mark);
    void (*mark_drop)(void *gpu, void *mark);

    // Renews the fence, which then stands behind everything launched so far. On the agent. false: not possible now.
    bool (*fence_renew)(void *gpu);
    bool (*fence_done)(void *gpu);

    // Whether launches into `stream` are being captured into a graph rather than run.
    bool (*is_capturing)(void *gpu, void *stream);

    // Called once on the agent thread before any other operation there.
    void (*agent_begin)(void);
};

#endif
