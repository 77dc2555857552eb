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
static struct runtime beyond[MAX_RUNTIMES]; // the same runtimes, for libraries that interpose some functions and pass them on
static struct runtime absent;               // stands for a missing runtime
static _Atomic(struct runtime *) given_out; // see runtime_given_out

#define SITE_PROBES 8u
struct runtime_site runtime_sites[RUNTIME_SITES];

static int stand_in(void)
{
    return INSUFFICIENT_DRIVER;
}

static struct runtime *runtime_with(struct runtime table[MAX_RUNTIMES], void *handle)
{
    for (size_t i = 0; i < MAX_RUNTIMES; i++) {
        void *known = NULL;
        if (atomic_compare_exchange_strong(&table[i].handle, &known, handle) || known == handle)
            return &table[i];
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

// What a library that is loaded behind this one has in place of a runtime's function, or NULL.
static void *interposed(const char *name)
{
    void *global = loader_find(RTLD_NEXT, name);
    return global && loader_object(global) && !is_runtime(global) ? global : NULL;
}

void *runtime_resolve(struct runtime *runtime, enum runtime_id id)
{
    void *handle = atomic_load_explicit(&runtime->handle, memory_order_acquire), *entry = NULL;
    if (handle && !(runtime >= beyond && runtime < beyond + MAX_RUNTIMES))
        entry = interposed(runtime_names[id]);
    if (entry)
        (void)loader_pin(loader_object(entry)); // it may have been opened late, and be closed
    if (handle && !entry)
        entry = loader_find(handle, runtime_names[id]);
    if (!entry || hooks_is_wrapper(entry))
        entry = (void *)stand_in;
    atomic_store_explicit(&runtime->entries[id], entry, memory_order_release);
    return entry;
}

static struct runtime *runtime_containing(struct runtime table[MAX_RUNTIMES], const void *pointer)
{
    const struct link_map *object = loader_object(pointer);
    void *handle = object ? loader_pin(object) : NULL;
    return handle ? runtime_with(table, handle) : NULL;
}

// Whether the caller is itself a library that interposes a runtime and is loaded behind this one.
static bool is_interposer(const void *caller)
{
    const struct link_map *object = loader_object(caller);
    if (!object || loader_precedes_us(caller))
        return false;
    for (size_t id = 0; id < RUNTIME_COUNT; id++)
        if (loader_defines(object, runtime_names[id]) && interposed(runtime_names[id]))
            return true;
    return false;
}

// The runtime interposed by such a library: in the global scope it would find itself again.
static struct runtime *runtime_after(const void *caller)
{
    const void *next = caller;
    do
        next = loader_find_after(next, "cudaMalloc");
    while (next && !is_runtime(next));
    return next ? runtime_containing(beyond, next) : NULL;
}

// Where the dynamic linker would have bound the caller's cudaMalloc without this library, if nobody interposed it: to the global
// scope if what that has serves every version, else by the symbol's version, which names the runtime that the caller depends on.
static struct runtime *find_runtime(const void *caller)
{
    static const char *const sonames[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
    struct runtime *runtime;

    if (is_interposer(caller) && (runtime = runtime_after(caller)))
        return runtime;
    void *own = loader_find_from(caller, "cudaMalloc");
    if (own && !hooks_is_wrapper(own) && is_runtime(own) && (runtime = runtime_containing(runtimes, own)))
        return runtime;
    if ((runtime = atomic_load(&given_out)))
        return runtime;
    void *global = loader_find(RTLD_NEXT, "cudaMalloc");
    if (global && !is_runtime(global))
        return runtime_with(runtimes, RTLD_NEXT);
    if (global && (runtime = runtime_containing(runtimes, global)))
        return runtime;
    for (size_t i = 0; i < sizeof sonames / sizeof sonames[0]; i++) {
        void *handle = loader_library(sonames[i]);
        if (handle)
            return runtime_with(runtimes, handle);
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
    struct runtime *runtime = runtime_containing(runtimes, pointer), *none = NULL;
    return runtime && (atomic_compare_exchange_strong(&given_out, &none, runtime) || none == runtime);
}
