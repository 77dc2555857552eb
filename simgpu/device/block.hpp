// Running the threads of one block.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DEVICE_BLOCK_HPP
#define SIMGPU_DEVICE_BLOCK_HPP

#include "simgpu/device/kernel.h"

namespace simgpu
{

// Calls `thread` once for every thread of the block, with the index variables set. Returns when all have returned.
void block_run(const simgpu_block *block, void (*thread)(void **params), void **params);

} // namespace simgpu

#endif
