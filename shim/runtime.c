// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "shim/loader.h"

#define RUNTIME_SONAME "libcudart.so"
#define INSUFFICIENT_DRIVER 35 // cudaErrorInsufficientDriver

static const char *const runtime_names[RUNTIME_COUNT] = {
#define RUNTIME_HOOK(name) #name,
#include "shim/hooks.def"
};

// A process has one runtime, seldom two or three. Filled in order, never emptied.
#define MAX_RUNTIMES 16
static struct runtime runtimes[MAX_RUNTIMES];
static struct runtime absent;               // stands for a missing runtime
static _Atomic(struct runtime *) given_out; // see runtime_given_out

#define SITE_PROBES 8u
struct runtime_site runtime_sites[RUNTIME_SITES];

static int stand_in(void)
{
    return INSUFFICIENT_DRIVER;
}

void *runtime_resolve(struct runtime *runtime, enum runtime_id id)
{
    void *handle = atomic_load_explicit(&runtime->handle, memory_order_acquire);
    void *entry = handle ? loader_find(handle, runtime_names[id]) : NULL;
    if (!entry || hooks_is_wrapper(entry))
        entry = (void *)stand_in;
    atomic_store_explicit(&runtime->entries[id], entry, memory_order_release);
    return entry;
}

static struct runtime *runtime_with(void *handle)
{
    for (size_t i = 0; i < MAX_RUNTIMES; i++) {
        void *known = NULL;
        if (atomic_compare_exchange_strong(&runtimes[i].handle, &known, handle) || known == handle)
            return &runtimes[i];
    }
    return &absent;
}

// Whether a function of this name is a runtime's, not that of a library that interposes some functions and passes them on.
// Packagers rename runtimes; all of them define the export table, and hardly anybody interposes it.
static bool is_runtime(const void *function)
{
    const struct link_map *object = loader_object(function);
    if (!object || strncmp(loader_soname(object), RUNTIME_SONAME, strlen(RUNTIME_SONAME)) == 0)
        return object != NULL;
    const void *table = loader_find_from(function, "cudaGetExportTable");
    return table && loader_object(table) == object;
}

static struct runtime *runtime_containing(const void *pointer)
{
    const struct link_map *object = loader_object(pointer);
    void *handle = object ? loader_pin(object) : NULL;
    return handle ? runtime_with(handle) : NULL;
}

// The runtime interposed by a library that is loaded behind this one: the global scope would be that library again.
static struct runtime *runtime_after(const void *caller)
{
    const void *next = caller;
    do
        next = loader_find_after(next, "cudaMalloc");
    while (next && !is_runtime(next));
    return next ? runtime_containing(next) : NULL;
}

// Where the dynamic linker would have bound the caller's cudaMalloc without this library: to the global scope if what that has
// serves every version, else by the symbol's version, which names the runtime that the caller depends on.
static struct runtime *find_runtime(const void *caller)
{
    static const char *const sonames[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
    struct runtime *runtime;

    void *own = loader_find_from(caller, "cudaMalloc");
    bool own_is_runtime = own && !hooks_is_wrapper(own) && is_runtime(own);
    if (own && !own_is_runtime && loader_object(own) == loader_object(caller) && !loader_precedes_us(caller) &&
        (runtime = runtime_after(caller)))
        return runtime;
    void *global = loader_find(RTLD_NEXT, "cudaMalloc");
    if (global && !is_runtime(global))
        return runtime_with(RTLD_NEXT); // another library that interposes the runtime
    if (own_is_runtime && (runtime = runtime_containing(own)))
        return runtime;
    if ((runtime = atomic_load(&given_out)))
        return runtime;
    if (global && (runtime = runtime_containing(global)))
        return runtime;
    for (size_t i = 0; i < sizeof sonames / sizeof sonames[0]; i++) {
        void *handle = loader_library(sonames[i]);
        if (handle)
            return runtime_with(handle);
    }
    return &absent;
}

// How many calls of dlclose this thread is in: it may be in a destructor of what goes.
static __thread unsigned closing;

static void remember(const void *caller, struct runtime *runtime)
{
    if (closing)
        return;
    size_t place = runtime_place(caller);
    for (unsigned i = 0; i < SITE_PROBES; i++, place = (place + 1) % RUNTIME_SITES) {
        const void *there = NULL;
        if (atomic_compare_exchange_strong(&runtime_sites[place].caller, &there, caller) || there == caller) {
            // Pairs with the acquire in runtime_of and runtime_entry_if_seen.
            atomic_store_explicit(&runtime_sites[place].runtime, runtime, memory_order_release);
            return;
        }
    }
}

struct runtime *runtime_of(const void *caller)
{
    size_t place = runtime_place(caller);
    for (unsigned i = 0; i < SITE_PROBES; i++, place = (place + 1) % RUNTIME_SITES) {
        const void *there = atomic_load_explicit(&runtime_sites[place].caller, memory_order_relaxed);
        struct runtime *runtime = atomic_load_explicit(&runtime_sites[place].runtime, memory_order_acquire);
        if (__builtin_expect(there == caller && runtime != NULL, 1))
            return runtime;
        if (there == NULL)
            break;
    }
    int saved = errno;
    struct runtime *runtime = find_runtime(caller);
    if (runtime != &absent)
        remember(caller, runtime);
    errno = saved;
    return runtime;
}

static void forget_sites(void)
{
    for (size_t i = 0; i < RUNTIME_SITES; i++)
        if (atomic_load_explicit(&runtime_sites[i].runtime, memory_order_relaxed))
            atomic_store_explicit(&runtime_sites[i].runtime, NULL, memory_order_relaxed);
}

// What is unloaded leaves its addresses to what is loaded next, whose calls may mean another runtime. All sites are forgotten before:
// what will go is not known, and afterwards another thread may have loaded something in its place already, which the dynamic linker's
// lock orders after the stores.
__attribute__((visibility("default"))) int dlclose(void *handle)
{
    forget_sites();
    closing++;
    int result = loader_next_dlclose()(handle);
    closing--;
    return result;
}

bool runtime_given_out(const void *pointer)
{
    if (loader_count(RUNTIME_SONAME) != 1)
        return false;
    struct runtime *runtime = runtime_containing(pointer), *none = NULL;
    return runtime && (atomic_compare_exchange_strong(&given_out, &none, runtime) || none == runtime);
}
