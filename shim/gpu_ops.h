// SPDX-License-Identifier: AGPL-3.0-or-later
// The scheduler's operations on a GPU, built on CUDA events without timing. The `gpu` of the operations is a struct device.
#ifndef VGPU_SHIM_GPU_OPS_H
#define VGPU_SHIM_GPU_OPS_H

#include "scheduler/gpu_ops.h"
#include "shim/hooks.h"

struct mark;

extern const struct gpu_ops gpu_ops_cuda;

// Keeps a mark, for the duration of a capture, behind what was given to the GPU until now: with `whole`, to the stream's
// context, whose other marks it replaces; else to `stream`. A mark with an owner replaces that owner's mark. Does nothing if
// the stream is itself being captured.
void gpu_ops_keep_mark(CUstream stream, bool whole, const void *owner);

// A mark behind all work of a context. NULL if a capture forbids it, the context is unknown, or the driver has no
// cuCtxRecordEvent. Takes the streams' lock.
struct mark *gpu_ops_mark_context(CUcontext handle);

#endif
