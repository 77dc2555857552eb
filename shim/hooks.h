// SPDX-License-Identifier: AGPL-3.0-or-later
// The hooks: how every wrapper reaches the real driver, and the map from real functions to wrappers.
//
// A driver wrapper is a function with the driver's own name and type, and a row in hooks.def:
//
//     CUresult cuMemFree_v2(CUdeviceptr pointer)
//     {
//         ...
//         return REAL(cuMemFree_v2)(pointer);
//     }
//
// Invariants
//  - This header sees cuda.h as its implementer does: every version and every _ptsz form has its own prototype, and no name is
//    a macro for another.
//  - REAL is never NULL. It is resolved on first use, against the libcuda that the program has loaded; this library never loads
//    one. Without a libcuda, or if it lacks the function, REAL is a stand-in that returns CUDA_ERROR_NOT_FOUND (for cuInit
//    CUDA_ERROR_NO_DEVICE: the program continues without a GPU, as on a machine that has none).
//  - Slots and maps are published once and live until the process ends, so readers need no lock; libraries found are pinned. No
//    call into the dynamic linker happens under a lock of ours.
//  - Nothing here changes in a forked child: addresses stay the same.
// Thread safe, from the first instruction of the process: constructors of other libraries may call before ours have run.
#ifndef VGPU_SHIM_HOOKS_H
#define VGPU_SHIM_HOOKS_H

#if defined(__cuda_cuda_h__) && !defined(__CUDA_API_VERSION_INTERNAL)
#error "shim/hooks.h must come before cuda.h"
#endif
#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <stdbool.h>
#include <stdint.h>

// Functions that these headers declare and a wrapper defines are exported; everything else in the library is hidden.
#pragma GCC visibility push(default)
#include <cuda.h>
#include "shim/cuda_compat.h"
#pragma GCC visibility pop

enum driver_id {
#define DRIVER_HOOK(name) DRIVER_##name,
#include "shim/hooks.def"
    DRIVER_HOOK_COUNT,
    DRIVER_BEFORE_USED = DRIVER_HOOK_COUNT - 1,
#define DRIVER_USE(name) DRIVER_##name,
#include "shim/used.def"
    DRIVER_COUNT
};

// The real functions, in the order of the ids. NULL: not resolved yet. Read through REAL only.
struct driver_entries {
#define DRIVER_HOOK(name) __typeof__(name) *name;
#include "shim/hooks.def"
#define DRIVER_USE(name) __typeof__(name) *name;
#include "shim/used.def"
};

#define DRIVER_TWIN(name, base)                                                                                                \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __typeof__(base)), #name " has the type of " #base);
#include "shim/hooks.def"

extern struct driver_entries driver_entries __attribute__((visibility("hidden")));

// How often this thread has used REAL. By this count the runtime layer tells whether a runtime's driver calls pass through the
// hooks.
extern __thread unsigned driver_layer_calls __attribute__((visibility("hidden"), tls_model("initial-exec")));

// For a wrapper that answers without asking the driver.
static inline void driver_layer_seen(void)
{
    driver_layer_calls++;
}

// Resolves one real function, or returns the stand-in.
void *driver_resolve(enum driver_id id);

// The real driver function `name`: one load and a predicted branch. The acquire pairs with the release in driver_resolve.
#define REAL(name)                                                                                                             \
    (__extension__({                                                                                                           \
        __typeof__(name) *real_##name = __atomic_load_n(&driver_entries.name, __ATOMIC_ACQUIRE);                               \
        driver_layer_calls++;                                                                                                  \
        if (__builtin_expect(real_##name == NULL, 0))                                                                          \
            real_##name = (__typeof__(name) *)driver_resolve(DRIVER_##name);                                                   \
        real_##name;                                                                                                           \
    }))

// Whether the driver is loaded and has the function; else REAL(name) is the stand-in.
#define REAL_EXISTS(name) driver_exists(DRIVER_##name)
bool driver_exists(enum driver_id id);

// The wrapper for a real function of libcuda, of the CUDA runtime or of NVML; any other pointer is returned unchanged.
void *hooks_substitute(void *pointer);

// hooks_substitute for the result of a lookup of `name`. Learns a copy of libcuda, of a runtime or of NVML that it had not seen
// yet, and warns once per name if a hooked family has an entry point without a hook.
void *hooks_substitute_named(void *pointer, const char *name);

// Whether `name` is a row of the hook table.
bool hooks_has_row(const char *name);

// Whether a function pointer is one of the wrappers.
bool hooks_is_wrapper(const void *pointer);

#endif
