// SPDX-License-Identifier: AGPL-3.0-or-later
// The driver's description of a GPU, and what one context takes on it, which is measured once per pool and GPU.
#ifndef VGPU_SHIM_CALIBRATE_H
#define VGPU_SHIM_CALIBRATE_H

#include "shim/hooks.h"

#include "pool/layout.h"

// A GPU, as the driver describes it.
struct identity {
    uint8_t uuid[POOL_UUID_BYTES];
    char name[POOL_NAME_BYTES];
    uint64_t bytes;
    bool mps; // contexts made here are clients of MPS
};

CUresult identify(CUdevice ordinal, struct identity *identity);

// Measures what one context takes on a GPU, for pool_gpu.context_bytes. Preserves the contexts of the process and the context
// stack of the thread. 0: could not be measured.
uint64_t calibrate_context(CUdevice ordinal);

// What to charge for a context of which the pool says `bytes`: a figure that is missing (it could not be measured) or absurd is
// replaced by the usual one (H100, driver 580).
static inline uint64_t context_bytes_or_usual(uint64_t bytes, uint64_t physical_bytes)
{
    return bytes && bytes <= physical_bytes / 4 ? bytes : 672ull << 20;
}

#endif
