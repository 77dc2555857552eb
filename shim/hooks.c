// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/hooks.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "shim/loader.h"
#include "shim/runtime.h"

enum kind { KIND_DRIVER, KIND_RUNTIME, KIND_NVML, KIND_COUNT };

// The wrappers, under names of their own: the rows of the runtime and of NVML need no prototypes here.
#define DRIVER_HOOK(name) void wrapper_##name(void) __asm__(#name);
#define RUNTIME_HOOK(name) void wrapper_##name(void) __asm__(#name);
#define NVML_HOOK(name) void wrapper_##name(void) __asm__(#name);
#include "shim/hooks.def"

static const struct row {
    const char *name;
    void (*wrapper)(void);
    enum kind kind;
} rows[] = {
#define DRIVER_HOOK(name) {#name, wrapper_##name, KIND_DRIVER},
#define RUNTIME_HOOK(name) {#name, wrapper_##name, KIND_RUNTIME},
#define NVML_HOOK(name) {#name, wrapper_##name, KIND_NVML},
#include "shim/hooks.def"
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])

// In the order of enum driver_id.
static const char *const driver_names[DRIVER_COUNT] = {
#define DRIVER_HOOK(name) #name,
#include "shim/hooks.def"
#define DRIVER_USE(name) #name,
#include "shim/used.def"
};

_Static_assert(sizeof(struct driver_entries) == DRIVER_COUNT * sizeof(void *), "one slot for each id");

struct driver_entries driver_entries;
__thread unsigned driver_layer_calls;

static const char *const soname_prefix[KIND_COUNT] = {"libcuda.so", "libcudart.so", "libnvidia-ml.so"};

// Where the rows of one kind are in a loaded library. Immutable once published, never freed.
#define IMAGE_SLOTS 1024u
_Static_assert(2 * sizeof rows / sizeof rows[0] <= IMAGE_SLOTS, "the hash table stays at most half full");

struct image {
    struct image *next;
    void *handle;
    enum kind kind;
    struct {
        void *address;
        void (*wrapper)(void);
    } slots[IMAGE_SLOTS];
};

static _Atomic(struct image *) images; // newest first

// The libcuda that REAL means: the first one seen.
static _Atomic(void *) driver_handle;

static size_t slot_of(const void *address)
{
    return ((uintptr_t)address >> 4) * 0x9e3779b97f4a7c15ull >> 54;
}

_Static_assert(IMAGE_SLOTS == 1u << (64 - 54), "slot_of yields as many bits as there are slots");

static void *image_find(const struct image *image, const void *address)
{
    for (size_t i = slot_of(address); image->slots[i].address; i = (i + 1) % IMAGE_SLOTS)
        if (image->slots[i].address == address)
            return (void *)image->slots[i].wrapper;
    return NULL;
}

static void image_put(struct image *image, void *address, void (*wrapper)(void))
{
    size_t i = slot_of(address);
    while (image->slots[i].address && image->slots[i].address != address)
        i = (i + 1) % IMAGE_SLOTS;
    if (!image->slots[i].address) { // two names for one function: the first row has it
        image->slots[i].address = address;
        image->slots[i].wrapper = wrapper;
    }
}

// Maps one library and publishes the map, unless another thread has. All calls into the dynamic linker come before the first
// map is visible, and none is under a lock.
static void image_learn(void *handle, enum kind kind)
{
    struct image *head = atomic_load_explicit(&images, memory_order_acquire);
    for (const struct image *image = head; image; image = image->next)
        if (image->handle == handle)
            return;

    struct image *made = calloc(1, sizeof *made);
    if (!made) {
        log_warn("out of memory: CUDA functions looked up by name are not covered");
        return;
    }
    made->handle = handle;
    made->kind = kind;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        void *address = rows[i].kind == kind ? loader_find(handle, rows[i].name) : NULL;
        if (address && !hooks_is_wrapper(address))
            image_put(made, address, rows[i].wrapper);
    }

    do {
        for (const struct image *image = head; image; image = image->next)
            if (image->handle == handle) {
                free(made);
                return;
            }
        made->next = head;
        // This release pairs with the acquire in hooks_substitute and above.
    } while (!atomic_compare_exchange_weak_explicit(&images, &head, made, memory_order_release, memory_order_acquire));
}

static CUresult stand_in(void)
{
    return CUDA_ERROR_NOT_FOUND;
}

static CUresult stand_in_init(void)
{
    return CUDA_ERROR_NO_DEVICE;
}

// Fills in all slots, so that no later REAL, whatever lock its caller holds, calls into the dynamic linker.
static void driver_resolve_all(void *handle)
{
    for (int id = 0; id < DRIVER_COUNT; id++) {
        void *function = loader_find(handle, driver_names[id]);
        __atomic_store_n((void **)&driver_entries + id, function ? function : (void *)stand_in, __ATOMIC_RELEASE);
    }
}

static void driver_learn(void *handle)
{
    void *none = NULL;
    image_learn(handle, KIND_DRIVER);
    if (atomic_load_explicit(&driver_handle, memory_order_acquire) == NULL)
        driver_resolve_all(handle);
    if (!atomic_compare_exchange_strong_explicit(&driver_handle, &none, handle, memory_order_release, memory_order_acquire) &&
        none != handle)
        log_warn("a second libcuda is loaded: hooked functions of both go to the first");
}

static void *driver_library(void)
{
    void *handle = atomic_load_explicit(&driver_handle, memory_order_acquire);
    if (!handle) {
        handle = loader_library("libcuda.so.1");
        if (handle) {
            driver_learn(handle);
            handle = atomic_load_explicit(&driver_handle, memory_order_acquire);
        }
    }
    return handle;
}

void *driver_resolve(enum driver_id id)
{
    if (!driver_library())
        return id == DRIVER_cuInit ? (void *)stand_in_init : (void *)stand_in;
    return __atomic_load_n((void **)&driver_entries + id, __ATOMIC_ACQUIRE);
}

bool driver_exists(enum driver_id id)
{
    void *function = __atomic_load_n((void **)&driver_entries + id, __ATOMIC_ACQUIRE);
    if (!function)
        function = driver_resolve(id);
    return function != (void *)stand_in && function != (void *)stand_in_init;
}

bool hooks_is_wrapper(const void *pointer)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if ((const void *)rows[i].wrapper == pointer)
            return true;
    return false;
}

static const struct row *row_named(const char *name)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

bool hooks_has_row(const char *name)
{
    return row_named(name) != NULL;
}

// The length of a function's name without version and stream suffix: what cuGetProcAddress is asked for.
static size_t family_length(const char *name)
{
    size_t length = strlen(name);
    if (length > 5 && (strcmp(name + length - 5, "_ptsz") == 0 || strcmp(name + length - 5, "_ptds") == 0))
        length -= 5;
    size_t digits = length;
    while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
        digits--;
    if (digits < length && digits > 2 && name[digits - 1] == 'v' && name[digits - 2] == '_')
        length = digits - 2;
    return length;
}

static const struct row *row_of_family(const char *name)
{
    size_t length = family_length(name);
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strncmp(rows[i].name, name, length) == 0 && family_length(rows[i].name) == length)
            return &rows[i];
    return NULL;
}

void *hooks_substitute(void *pointer)
{
    for (const struct image *image = atomic_load_explicit(&images, memory_order_acquire); image; image = image->next) {
        void *wrapper = image_find(image, pointer);
        if (wrapper && (image->kind != KIND_RUNTIME || runtime_given_out(pointer)))
            return wrapper;
    }
    return pointer;
}

// Notes the library that a function lies in, if it is one of this kind. Returns whether it is.
static bool learn_library_of(const void *pointer, enum kind kind)
{
    const struct link_map *object = loader_object(pointer);
    if (!object || strncmp(loader_soname(object), soname_prefix[kind], strlen(soname_prefix[kind])) != 0)
        return false;
    void *handle = loader_pin(object);
    if (handle && kind == KIND_DRIVER)
        driver_learn(handle);
    else if (handle)
        image_learn(handle, kind);
    return true;
}

static void warn_uncovered(const struct row *row, const char *name)
{
    static atomic_bool warned[ROW_COUNT];
    if (!atomic_exchange_explicit(&warned[row - rows], true, memory_order_relaxed))
        log_warn("the driver has an entry point of %s that is not covered: what goes through it is not limited", name);
}

void *hooks_substitute_named(void *pointer, const char *name)
{
    int saved = errno;
    void *result = hooks_substitute(pointer);
    const struct row *row = result == pointer ? row_of_family(name) : NULL;
    // If the library is known and has no such row, or cannot be pinned (dlmopen), the answer stays unknown.
    if (row && !hooks_is_wrapper(pointer) && learn_library_of(pointer, row->kind)) {
        result = hooks_substitute(pointer);
        if (result == pointer && row->kind == KIND_DRIVER)
            warn_uncovered(row, name);
    }
    errno = saved;
    return result;
}
