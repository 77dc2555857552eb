// SPDX-License-Identifier: AGPL-3.0-or-later
// What a context grows by when the program raises its limits (cuCtxSetLimit).
//
// The stack of every thread that can be resident at once is memory of the context: multiprocessors x threads on each x bytes. The heap of
// device-side malloc takes what its limit says, at the first launch of a kernel that uses it; since nothing announces that, it is charged
// with the limit. What the limits were when the context was made belongs to the context's own charge (shim/calibrate.c); only what
// exceeds it is charged here, from before the call until the limit is lowered or the context ends. The buffer of printf is the host's.
//
// A kernel whose frame is larger than the stack limit makes the driver take as much at its first launch, and keep it. What that is beyond
// the context's own charge is charged when the program asks for the function, which is where it can still be refused, until the context ends.
//
// Thread safe. Lock order: the mutex here comes before those of heaps, pools, contexts and holdings.
#ifndef VGPU_SHIM_LIMITS_H
#define VGPU_SHIM_LIMITS_H

#include "shim/hooks.h"

// The program has got a function with a frame of so many bytes per thread, by `function`. CUDA_SUCCESS: it fits.
CUresult limits_foresee_frame(size_t frame_bytes, const char *function);

// For a forked child.
void limits_reset(void);

#endif
