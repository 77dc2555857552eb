// SPDX-License-Identifier: AGPL-3.0-or-later
// How much a context grows when the program raises its limits (cuCtxSetLimit).
//
// The stacks of all threads that can be resident at once are memory of the context: multiprocessors x threads on each x bytes.
// The heap of device-side malloc takes what its limit says, at the first launch of a kernel that uses it; since nothing
// announces that, it is charged with the limit. The limits at the context's creation are part of the context's own charge
// (shim/calibrate.c); only what exceeds them is charged here, from before the call until the limit is lowered or the context
// ends. The buffer of printf is host memory.
//
// A kernel whose frame is larger than the stack limit makes the driver take as much at its first launch, and keep it. What
// exceeds the context's own charge is charged when the program asks for the function, where it can still be refused, until the
// context ends.
//
// Thread safe. Lock order: the mutex here comes before those of heaps, pools, contexts and holdings.
#ifndef VGPU_SHIM_LIMITS_H
#define VGPU_SHIM_LIMITS_H

#include "shim/hooks.h"

// To be called when the program has obtained, by `function`, a kernel with a frame of this many bytes per thread. CUDA_SUCCESS:
// it fits.
CUresult limits_foresee_frame(size_t frame_bytes, const char *function);

// For a forked child.
void limits_reset(void);

#endif
