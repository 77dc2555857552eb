// SPDX-License-Identifier: AGPL-3.0-or-later
// What a context grows by when the program raises its limits (cuCtxSetLimit).
//
// The stack of every thread that can be resident at once is memory of the context: multiprocessors x threads on each x bytes. The
// buffer of printf and the heap of device-side malloc take what their limits say. What the limits were when the context was made
// belongs to the context's own charge; only what exceeds it is charged here, from before the call until the limit is lowered or
// the context ends.
#ifndef VGPU_SHIM_LIMITS_H
#define VGPU_SHIM_LIMITS_H

// For a forked child.
void limits_reset(void);

#endif
