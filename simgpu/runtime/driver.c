// Opening libcuda.so.1.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

// The per-thread variants of the oldest functions came with 7.0; no function here changed its interface between its row and
// that.
#define EARLIEST_VERSION 7000

struct row {
    const char *name;
    int version;
    size_t offset;
};

static const struct row rows[] = {
#define ROW(name, version) {#name, version, offsetof(struct driver, name)},
#include "simgpu/runtime/driver.def"
#undef ROW
};

static struct driver tables[2];
static PFN_cuGetProcAddress_v12000 get_proc_address;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static cudaError_t load_error;

// Stands in for whatever is missing, with any arguments: the callers clean up.
static CUresult missing(void)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

static void fill(struct driver *table, cuuint64_t flags)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CUdriverProcAddressQueryResult status;
        void *function = NULL;
        int version = rows[i].version < EARLIEST_VERSION ? EARLIEST_VERSION : rows[i].version;
        if (get_proc_address(rows[i].name, &function, version, flags, &status) || !function)
            function = (void *)missing;
        *(void **)((char *)table + rows[i].offset) = function;
    }
}

static void load(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    if (library)
        get_proc_address = (PFN_cuGetProcAddress_v12000)dlsym(library, "cuGetProcAddress_v2");
    if (!get_proc_address) {
        load_error = cudaErrorInsufficientDriver;
        return;
    }
    fill(&tables[DRIVER_LEGACY], CU_GET_PROC_ADDRESS_LEGACY_STREAM);
    fill(&tables[DRIVER_PER_THREAD], CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
    load_error = (cudaError_t)tables[DRIVER_LEGACY].cuInit(0);
}

cudaError_t driver_load(void)
{
    pthread_once(&once, load);
    return load_error;
}

const struct driver *driver_table(enum driver_streams streams)
{
    return &tables[streams];
}

CUresult driver_resolve(const char *name, void **function, int version, cuuint64_t flags,
                        CUdriverProcAddressQueryResult *status)
{
    return get_proc_address(name, function, version, flags, status);
}
