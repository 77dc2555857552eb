// SPDX-License-Identifier: AGPL-3.0-or-later
// CUDA arrays, including mipmapped ones. They have no address, so the driver is asked beforehand what one takes: by an array of
// the same description with deferred mapping (CUDA_ARRAY3D_DEFERRED_MAPPING), which is never given memory.
//
// Invariants
//  - An array of more than 1 MiB is charged in whole blocks from before its creation until its end.
//  - The driver packs smaller ones into shared blocks, and does not say which. Each is charged a block, which is given back if
//    the driver's free memory shows, beyond doubt, that none was taken. Likewise a block is given back when one was seen to
//    come free, and all of them with the last small array of the context.
//  - Sparse arrays and those with deferred mapping take nothing themselves: shim/vmm.c charges what is mapped into them.
// Thread safe. Lock order: measurement, then the mutex here, then holdings.
#ifndef VGPU_SHIM_ARRAYS_H
#define VGPU_SHIM_ARRAYS_H

#include "shim/device.h"

// Returns what the arrays of a context that has ended were charged.
void arrays_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void arrays_reset(void);

#endif
