// The seam between the simulated driver and simulated device code.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A device library is the host-compiled twin of a .cu file: a shared object that exports one table of kernels. The simulated
// driver loads every device library it finds, resolves a kernel by the mangled name that nvcc registers, copies the launch
// parameters with the sizes given here, and runs the grid block by block on the simulated device's one executor thread.
//
// Invariants:
//  - The driver never looks into parameters or device code; the device library never looks at streams, contexts or shared
//    memory.
//  - `run_block` runs all threads of one block to completion on the calling OS thread, barriers included. It may be called for
//    different blocks from one thread only, one at a time, in any order.
//  - Between blocks the driver may switch contexts. Within a block, a sleeping kernel calls `yield` so that it may also do so
//    there.
#ifndef SIMGPU_DEVICE_KERNEL_H
#define SIMGPU_DEVICE_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct simgpu_dim3 {
    uint32_t x, y, z;
};

// One block of one launch, as the driver hands it to device code.
struct simgpu_block {
    struct simgpu_dim3 grid_dim, block_dim, block_idx;
    void *dynamic_shared; // dynamic_shared_bytes zeroed bytes, 256-byte aligned
    uint64_t dynamic_shared_bytes;
    void (*yield)(void *yield_arg, uint64_t ns); // device code lets `ns` nanoseconds of GPU time pass here without computing
    void *yield_arg;
};

struct simgpu_kernel {
    const char *name; // mangled name, as passed to cuModuleGetFunction
    uint32_t param_count;
    const uint32_t *param_bytes; // param_count sizes, in order
    void (*run_block)(const struct simgpu_block *block, void **params);
    uint32_t frame_bytes; // of local memory per thread
    uint32_t uses_heap;
};

struct simgpu_kernel_table {
    uint32_t abi; // SIMGPU_KERNEL_ABI
    uint32_t count;
    const struct simgpu_kernel *kernels;
};

#define SIMGPU_KERNEL_ABI 2
// Every device library defines `const struct simgpu_kernel_table simgpu_kernel_table`, found with dlsym.
#define SIMGPU_KERNEL_TABLE_SYMBOL "simgpu_kernel_table"

#ifdef __cplusplus
}
#endif
#endif
