// Translating the parameters of graph nodes into the driver's.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_RUNTIME_GRAPH_H
#define SIMGPU_RUNTIME_GRAPH_H

#include "simgpu/runtime/runtime.h"

cudaError_t graph_kernel_params(const struct cudaKernelNodeParams *params, CUDA_KERNEL_NODE_PARAMS_v2 *out);
CUDA_MEMSET_NODE_PARAMS graph_memset_params(const struct cudaMemsetParams *params);

#endif
