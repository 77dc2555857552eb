// Describing copies and fills as operations. Needs the API lock.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_COPY_H
#define SIMGPU_DRIVER_COPY_H

#include "simgpu/driver/stream.h"

// Turns the driver's description of a 3D copy into ours. CUDA_ERROR_INVALID_VALUE for pointers the device does not know where
// it says device memory, CUDA_ERROR_NOT_SUPPORTED for arrays.
CUresult copy_from_3d(const CUDA_MEMCPY3D *from, struct copy *copy);

// Checks a fill and describes it. `element_bytes` 1, 2 or 4; width in elements, pitch in bytes.
CUresult fill_describe(CUdeviceptr dst, size_t pitch, uint32_t value, unsigned element_bytes, size_t width, size_t height,
                       struct fill *fill);

#endif
