// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/driver.h"

#include <dlfcn.h>
#include <errno.h>

struct driver driver;
struct driver_entries driver_entries;
__thread unsigned driver_layer_calls;

static const char *const names[DRIVER_COUNT] = {
#define DRIVER_HOOK(name) #name,
#include "shim/hooks.def"
#define DRIVER_USE(name) #name,
#include "shim/used.def"
};

static CUresult stand_in(void)
{
    return CUDA_ERROR_NOT_FOUND;
}

// Slots are empty only before driver_open.
void *driver_resolve(enum driver_id id)
{
    (void)id;
    return (void *)stand_in;
}

bool driver_exists(enum driver_id id)
{
    void *function = __atomic_load_n((void **)&driver_entries + id, __ATOMIC_ACQUIRE);
    return function && function != (void *)stand_in;
}

int driver_open(struct error *error)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return error_set(error, -ENODEV, "the NVIDIA driver cannot be loaded: %s", dlerror());
    const struct api_door *(*open_door)(void) = (__typeof__(open_door))dlsym(RTLD_DEFAULT, API_DOOR_NAME);
    driver.door = open_door ? open_door() : NULL;
    for (int id = 0; id < DRIVER_COUNT; id++) {
        void *function = driver.door ? driver.door->find(library, names[id]) : dlsym(library, names[id]);
        __atomic_store_n((void **)&driver_entries + id, function ? function : (void *)stand_in, __ATOMIC_RELEASE);
    }
    driver.init = (__typeof__(driver.init))dlsym(library, "cuInit");
    driver.primary_retain = (__typeof__(driver.primary_retain))dlsym(library, "cuDevicePrimaryCtxRetain");
    driver.primary_release = (__typeof__(driver.primary_release))dlsym(library, "cuDevicePrimaryCtxRelease_v2");
    if (!driver.init || !driver.primary_retain || !driver.primary_release)
        return error_set(error, -ENODEV, "libcuda.so.1 is not a CUDA driver that this library knows");
    return 0;
}
