// SPDX-License-Identifier: AGPL-3.0-or-later
// Attaching: what happens behind the program's first cuInit. The process becomes a member of a virtual GPU on every GPU that it sees.
//
// Invariants
//  - Nothing happens before the program calls cuInit: no pool, no thread, no driver call.
//  - Either everything has happened or nothing has: a refusal gives back its slot, memberships and mapping, and one line says why. A
//    later cuInit tries anew. While refused, the hooks let nothing be allocated or launched.
//  - Once attached, further calls of cuInit only ask the driver.
//  - A forked child is not attached, whatever its parent was; it attaches by its own cuInit.
//  - The program's errno and its stack of contexts are left as they were.
//
// What cuInit returns for a refusal:
//
//     CUDA_ERROR_INVALID_VALUE      an option that is not understood
//     CUDA_ERROR_SYSTEM_NOT_READY   a pool that cannot be made, opened, mapped, locked or that is full
//     CUDA_ERROR_OUT_OF_MEMORY      a quota that does not fit: not beside the other reservations, not on the GPU, or smaller than a
//                                   chunk or a context
//     CUDA_ERROR_NOT_PERMITTED      options that differ from those of the virtual GPU joined; no quota where one is required
//
// Thread safe. Lock order: the attach mutex comes first, then the pool lock, then all others.
#ifndef VGPU_SHIM_ATTACH_H
#define VGPU_SHIM_ATTACH_H

#include "shim/device.h"

// What the driver says a GPU is.
struct identity {
    uint8_t uuid[POOL_UUID_BYTES];
    char name[POOL_NAME_BYTES];
    uint64_t bytes;
    bool mps; // contexts made here are clients of MPS
};

// shim/calibrate.c.
CUresult identify(CUdevice ordinal, struct identity *identity);

// What to charge a context where the pool says `bytes` for it: a figure that is missing (it could not be measured) or absurd is replaced by the
// usual one (H100, driver 580).
static inline uint64_t context_bytes_or_usual(uint64_t bytes, uint64_t physical_bytes)
{
    return bytes && bytes <= physical_bytes / 4 ? bytes : 672ull << 20;
}

// Measures what one context takes on a GPU, for pool_gpu.context_bytes. Leaves the contexts of the process and the context stack of the
// thread as they were. 0: could not be measured. shim/calibrate.c.
uint64_t calibrate_context(CUdevice ordinal);

#endif
