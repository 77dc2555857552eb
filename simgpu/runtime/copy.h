// Descriptions of copies in three dimensions.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_RUNTIME_COPY_H
#define SIMGPU_RUNTIME_COPY_H

#include "simgpu/runtime/runtime.h"

// Translates `p`, which must be between linear memory: cudaErrorNotSupported for arrays.
cudaError_t copy_volume(const struct cudaMemcpy3DParms *p, CUDA_MEMCPY3D *copy);

// A plain copy of `bytes` bytes.
struct cudaMemcpy3DParms copy_line(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind);

#endif
