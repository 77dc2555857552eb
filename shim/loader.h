// SPDX-License-Identifier: AGPL-3.0-or-later
// The dynamic linker behind the interposed dlsym: its own functions, and the object that an address belongs to.
//
// Invariants
//  - Nothing here calls dlsym, dlvsym or dlclose by name: inside this library these names mean the interposed ones. The C library's own
//    are found in its symbol table.
//  - Nothing here except loader_ask leaves a message in dlerror(): the program would take it for its own.
//  - The path to the real dlsym and dlvsym calls no function of the C library but dlsym: a sanitizer's runtime looks up the
//    functions that it wraps, strcmp and dl_iterate_phdr among them, before it can be called through its wrappers.
//  - Nothing here loads a library; what loader_pin returns stays loaded until the process ends.
// Thread safe, without locks. No function changes errno.
#ifndef VGPU_SHIM_LOADER_H
#define VGPU_SHIM_LOADER_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>

// Compares two names without the C library.
static inline bool loader_is_same(const char *one, const char *other)
{
    while (*one && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}

typedef void *loader_dlsym(void *handle, const char *name);
typedef void *loader_dlvsym(void *handle, const char *name, const char *version);

// The dlsym and dlvsym that the program would have without this library: those of the next library that interposes them, else
// the C library's. NULL only without glibc.
loader_dlsym *loader_next_dlsym(void);
loader_dlvsym *loader_next_dlvsym(void);

// The same for dlclose.
typedef int loader_dlclose(void *handle);
loader_dlclose *loader_next_dlclose(void);

// The C library's dlsym, called from this library: RTLD_NEXT means what comes after it in the global scope.
void *loader_find(void *handle, const char *name);

// The same on behalf of the program, for a version unless that is NULL: if the result is NULL, dlerror() says why.
void *loader_ask(void *handle, const char *name, const char *version);

// The loaded library of this name, pinned, or NULL.
void *loader_library(const char *soname);

// The object that contains an address, or NULL. The soname of an object, or if it has none its file name without directory.
struct link_map *loader_object(const void *address);
const char *loader_soname(const struct link_map *object);

// Calls `visit` with the name of every function that an object defines for others.
void loader_each_function(const struct link_map *object, void (*visit)(const char *name, void *argument), void *argument);

// Whether an object defines a function of this name for others.
bool loader_defines(const struct link_map *object, const char *name);

// A handle for an object, pinned; NULL if it is not in the program's own namespace (dlmopen).
void *loader_pin(const struct link_map *object);

// `name` as code in the object at `address` would find it among that object and its dependencies. Pins nothing.
void *loader_find_from(const void *address, const char *name);

// How many loaded objects have a soname that begins with `prefix`.
unsigned loader_count(const char *prefix);

// The first definition of `name` in an object loaded after the one that contains `address`, other than this library, or NULL.
void *loader_find_after(const void *address, const char *name);

// Whether the object that contains `address` comes before this library in load order, as the main program does.
bool loader_precedes_us(const void *address);

// Whether the main program contains `address`.
bool loader_is_main(const void *address);

#endif
