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
//    else the one in the global scope; function by function, it goes through what is preloaded behind this library.
//  - The driver layer enforces. Only if the first call that must have reached the driver did not pass the hooks is a runtime
//    "unseen"; from then on the runtime layer enforces for it.
//  - Runtimes found are pinned and never forgotten; call sites are remembered without a lock, until dlclose is called.
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

// What a call site means, in its own place or, where that is taken, one of the next.
struct runtime_site {
    _Atomic(const void *) caller;      // claimed first and for good; NULL: free
    _Atomic(struct runtime *) runtime; // NULL: not known yet, or no longer
};
#define RUNTIME_SITES 4096u // a power of two, several times the call sites of a large framework
extern struct runtime_site runtime_sites[RUNTIME_SITES];

static inline size_t runtime_place(const void *caller)
{
    return (size_t)((uintptr_t)caller * 0x9e3779b97f4a7c15ull >> 40) % RUNTIME_SITES;
}

void *runtime_resolve(struct runtime *runtime, enum runtime_id id);

static inline void *runtime_entry(struct runtime *runtime, enum runtime_id id)
{
    // The acquire pairs with the release in runtime_resolve.
    void *entry = atomic_load_explicit(&runtime->entries[id], memory_order_acquire);
    return __builtin_expect(entry != NULL, 1) ? entry : runtime_resolve(runtime, id);
}

#define RUNTIME_REAL(runtime, name) ((__typeof__(name) *)runtime_entry(runtime, RUNTIME_##name))

// The function to jump to where nothing is left to find out: the caller is known in its own place, and means a seen runtime whose
// function is resolved. NULL: go the long way.
static inline void *runtime_entry_if_seen(const void *caller, enum runtime_id id)
{
    struct runtime_site *site = &runtime_sites[runtime_place(caller)];
    // The acquire pairs with the release of whoever remembered the site.
    struct runtime *runtime = atomic_load_explicit(&site->runtime, memory_order_acquire);
    if (!runtime || atomic_load_explicit(&site->caller, memory_order_relaxed) != caller ||
        atomic_load_explicit(&runtime->sight, memory_order_relaxed) != RUNTIME_SEEN)
        return NULL;
    return atomic_load_explicit(&runtime->entries[id], memory_order_acquire);
}

#define RUNTIME_REAL_IF_SEEN(caller, name) ((__typeof__(name) *)runtime_entry_if_seen(caller, RUNTIME_##name))

// Notes that the program has obtained a runtime's function at `pointer` by dlsym. Returns whether the wrapper may replace it:
// only if no other runtime is loaded, since a caller that depends on none does not reveal which one it means.
bool runtime_given_out(const void *pointer);

// Forgets what unseen runtimes hold, for a forked child. shim/runtime_unseen.c.
void runtime_unseen_reset(void);

#endif
