// From `__global__` functions to the kernel table that the simulated driver reads. Included behind the .cu file.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DEVICE_REGISTER_HPP
#define SIMGPU_DEVICE_REGISTER_HPP

#include <dlfcn.h>
#include <stddef.h>

#include <type_traits>
#include <utility>

#include "simgpu/device/block.hpp"
#include "simgpu/device/kernel.h"

namespace simgpu
{

template <auto kernel> struct entry;

template <typename... P, void (*kernel)(P...)> struct entry<kernel> {
    static constexpr uint32_t param_bytes[sizeof...(P) + 1] = {sizeof(P)..., 0};

    template <size_t... i> static void call(void **params, std::index_sequence<i...>)
    {
        (void)params;
        kernel(*static_cast<std::remove_cv_t<P> *>(params[i])...);
    }

    static void thread(void **params) { call(params, std::index_sequence_for<P...>()); }

    static void run_block(const simgpu_block *block, void **params) { block_run(block, thread, params); }

    static simgpu_kernel row()
    {
        return {symbol_name(), sizeof...(P), param_bytes, run_block, frame_bytes<kernel>, uses_heap<kernel>};
    }

    // The mangled name is that of nvcc, because both follow the same C++ ABI; the dynamic symbol table has it.
    static const char *symbol_name()
    {
        void *address = reinterpret_cast<void *>(kernel);
        Dl_info info;
        return dladdr(address, &info) && info.dli_saddr == address ? info.dli_sname : "";
    }
};

} // namespace simgpu

#define SIMGPU_KERNEL(kernel) simgpu::entry<&kernel>::row(),

// The name comes from the dynamic symbol table, so the rows are filled in when the library is loaded. The last one is empty: a
// .cu file may have no kernels.
#define SIMGPU_KERNEL_TABLE(...)                                                                                               \
    static simgpu_kernel simgpu_rows[] = {__VA_ARGS__{}};                                                                      \
    extern "C" {                                                                                                               \
    extern __attribute__((visibility("default"))) const struct simgpu_kernel_table simgpu_kernel_table;                        \
    const struct simgpu_kernel_table simgpu_kernel_table = {SIMGPU_KERNEL_ABI, sizeof simgpu_rows / sizeof *simgpu_rows - 1,   \
                                                            simgpu_rows};                                                      \
    }

// What `extern __shared__ type name[]` declares, as large as a block's shared memory can be on an H100 (227 KiB). It stands in
// for the memory that the driver passes with a block: a name is tied to one address when the library is linked.
#define SIMGPU_DYNAMIC_SHARED(type, name) alignas(256) thread_local type name[227 * 1024 / sizeof(type)];

#endif
