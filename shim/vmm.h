// SPDX-License-Identifier: AGPL-3.0-or-later
// Physical memory that the program creates and maps itself (cuMemCreate; cuMemMap, cuMemMapArrayAsync).
//
// Invariants
//  - Memory is charged, on the device that its properties name, from before its creation until its handle has been released as
//    often as it was obtained and nothing of it is mapped any more, to an address or into an array.
//  - A handle belongs to the memory it was last obtained for: the driver may reuse the number once it is released.
//  - Imported memory is not charged: the exporter pays. Nor is host memory.
// Thread safe. Lock order: the mutex here, then holdings.
#ifndef VGPU_SHIM_VMM_H
#define VGPU_SHIM_VMM_H

#include "shim/hooks.h"

// Takes what is mapped into an array, or into all arrays of a context (the other argument is NULL), out of the books before the
// driver destroys it and can reuse the handle. Afterwards vmm_end_array drops it (`gone`) or, if the driver has refused, puts
// it back.
struct tile;
struct tile *vmm_withdraw_arrays(const void *array, CUcontext context);
void vmm_end_array(struct tile *withdrawn, bool gone);

// Forgets everything, for a forked child.
void vmm_reset(void);

#endif
