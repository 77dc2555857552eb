// SPDX-License-Identifier: AGPL-3.0-or-later
// The runtime layer: wrappers of the CUDA runtime's functions, and the runtimes they forward to.
//
// The wrappers carry no symbol version, so they stand in for cudaMalloc@libcudart.so.12 and @libcudart.so.13 alike; which
// runtime a call means depends on the caller. A wrapper begins with
//
//     struct runtime *runtime = RUNTIME_OF_CALLER();
//     ... RUNTIME_REAL(runtime, cudaMalloc)(...)
//
// Invariants
//  - A call goes to the runtime that it would have gone to without this library: the one that the calling object depends on,
//    else the one in the global scope.
//  - The driver layer enforces. Only if the first call that must have reached the driver did not pass the hooks is a runtime
//    "unseen"; from then on the runtime layer enforces for it.
//  - Runtimes found are pinned and never forgotten; call sites are remembered without a lock.
// Thread safe.
#ifndef VGPU_SHIM_RUNTIME_H
#define VGPU_SHIM_RUNTIME_H

#include "shim/hooks.h"

#include <stdatomic.h>

enum runtime_id {
#define RUNTIME_HOOK(name) RUNTIME_##name,
#include "shim/hooks.def"
    RUNTIME_COUNT
};

// Whether a runtime's driver calls pass the hooks. Decided once, by the first calls that must reach the driver.
enum runtime_sight { RUNTIME_UNDECIDED, RUNTIME_SEEN, RUNTIME_UNSEEN };

struct runtime {
    _Atomic(void *) handle; // from dlopen, or RTLD_NEXT; NULL: a free slot
    _Atomic enum runtime_sight sight;
    _Atomic(void *) entries[RUNTIME_COUNT]; // NULL: not resolved yet
};

// The runtime that a caller at this address means. Never NULL: without one, a runtime whose functions return
// cudaErrorInsufficientDriver.
struct runtime *runtime_of(const void *caller);
#define RUNTIME_OF_CALLER() runtime_of(__builtin_return_address(0))

void *runtime_resolve(struct runtime *runtime, enum runtime_id id);

static inline void *runtime_entry(struct runtime *runtime, enum runtime_id id)
{
    // The acquire pairs with the release in runtime_resolve.
    void *entry = atomic_load_explicit(&runtime->entries[id], memory_order_acquire);
    return __builtin_expect(entry != NULL, 1) ? entry : runtime_resolve(runtime, id);
}

#define RUNTIME_REAL(runtime, name) ((__typeof__(name) *)runtime_entry(runtime, RUNTIME_##name))

// Notes that the program has obtained a runtime's function at `pointer` by dlsym. Returns whether the wrapper may replace it:
// only if no other runtime is loaded, since a caller that depends on none does not reveal which one it means.
bool runtime_given_out(const void *pointer);

// Forgets what unseen runtimes hold, for a forked child. shim/runtime_unseen.c.
void runtime_unseen_reset(void);

#endif
