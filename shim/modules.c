// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/modules.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "shim/measure.h"

// How long one loading waits for another, which may be compiling. Then both are measured at once, and the first one's size is charged
// to both.
#define LOAD_PATIENCE_NS (10 * NS_PER_S)

// A module or a library in one context.
struct loaded {
    const void *handle;
    CUcontext context;
    struct device *device;
    uint64_t bytes; // charged
    uint64_t owed;  // loaded and not charged, since the quota is full
    bool data_seen; // its data have been asked for, so that a lazy driver has loaded them
    struct loaded *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct loaded *list;

void modules_reset(void)
{
    // Not freed: another thread of the parent may have been halfway through a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    list = NULL;
}

// The record of a module in a context, or NULL. Under the mutex.
static struct loaded *find(const void *handle, CUcontext context)
{
    struct loaded *loaded = list;
    while (loaded && (loaded->handle != handle || loaded->context != context))
        loaded = loaded->next;
    return loaded;
}

// The same, made where there is none; NULL: out of memory.
static struct loaded *find_or_make(const void *handle, CUcontext context, struct device *device)
{
    struct loaded *loaded = find(handle, context);
    if (!loaded && (loaded = calloc(1, sizeof *loaded))) {
        *loaded = (struct loaded){.handle = handle, .context = context, .device = device, .next = list};
        list = loaded;
    }
    return loaded;
}

// A call that may load, on its way.
struct loading {
    struct device *device; // NULL: no context is current, nothing is loaded yet
    CUcontext context;
    struct measurement measurement;
    const char *function;
};

static void begin(struct loading *loading, const char *function)
{
    *loading = (struct loading){.device = device_current(), .function = function};
    if (!loading->device || REAL(cuCtxGetCurrent)(&loading->context) != CUDA_SUCCESS || !loading->context)
        loading->device = NULL;
    if (loading->device)
        measure_begin(&loading->measurement, loading->device, LOAD_PATIENCE_NS);
}

// Books what a call has loaded for a module. Returns 0, or -ENOMEM where it does not fit.
static int end(struct loading *loading, CUresult result, const void *handle, bool data)
{
    int64_t lost_bytes = 0;
    struct device *device = loading->device;
    if (!device)
        return 0;
    measure_end(&loading->measurement, &lost_bytes);
    if (result != CUDA_SUCCESS)
        return 0;
    int saved = errno;
    uint64_t bytes = lost_bytes > 0 ? holdings_round_up((uint64_t)lost_bytes, HOLDINGS_BLOCK_BYTES) : 0;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = find(handle, loading->context);
    bytes += loaded ? loaded->owed : 0;
    pthread_mutex_unlock(&mutex);
    int rc = device_take(device, bytes); // may wait for the pool lock
    pthread_mutex_lock(&mutex);
    loaded = find_or_make(handle, loading->context, device);
    if (loaded) {
        loaded->bytes += rc ? 0 : bytes;
        loaded->owed = rc ? bytes : 0;
        loaded->data_seen |= data;
    }
    pthread_mutex_unlock(&mutex);
    if (!loaded && rc == 0) {
        holdings_give(&device->holdings, bytes);
        rc = -ENOMEM;
    }
    if (rc)
        device_refuse(device, bytes, loading->function);
    errno = saved;
    return rc;
}

// Takes the records of a module, or of a context (the other one is NULL), off the list.
static struct loaded *withdraw(const void *handle, CUcontext context)
{
    struct loaded *withdrawn = NULL;
    pthread_mutex_lock(&mutex);
    for (struct loaded **link = &list; *link;) {
        struct loaded *loaded = *link;
        if (handle ? loaded->handle != handle : loaded->context != context) {
            link = &loaded->next;
            continue;
        }
        *link = loaded->next;
        loaded->next = withdrawn;
        withdrawn = loaded;
    }
    pthread_mutex_unlock(&mutex);
    return withdrawn;
}

static void give_back(struct loaded *withdrawn)
{
    for (struct loaded *following; withdrawn; withdrawn = following) {
        following = withdrawn->next;
        holdings_give(&withdrawn->device->holdings, withdrawn->bytes);
        free(withdrawn);
    }
}

static void restore(struct loaded *withdrawn)
{
    pthread_mutex_lock(&mutex);
    for (struct loaded *following; withdrawn; withdrawn = following) {
        following = withdrawn->next;
        withdrawn->next = list;
        list = withdrawn;
    }
    pthread_mutex_unlock(&mutex);
}

void modules_drop_context(CUcontext context)
{
    give_back(withdraw(NULL, context));
}

static CUresult end_module(struct loading *loading, CUresult result, const CUmodule *module)
{
    if (end(loading, result, result == CUDA_SUCCESS ? *module : NULL, false) == 0)
        return result;
    cuModuleUnload(*module);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_module(&loading, REAL(cuModuleLoad)(module, path), module);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_module(&loading, REAL(cuModuleLoadData)(module, image), module);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_module(&loading, REAL(cuModuleLoadDataEx)(module, image, count, options, values), module);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_module(&loading, REAL(cuModuleLoadFatBinary)(module, image), module);
}

// A module leaves the books before the driver can use its handle again.
CUresult cuModuleUnload(CUmodule module)
{
    struct loaded *withdrawn = withdraw(module, NULL);
    CUresult rc = REAL(cuModuleUnload)(module);
    if (rc == CUDA_SUCCESS)
        give_back(withdrawn);
    else
        restore(withdrawn);
    return rc;
}

static CUresult end_library(struct loading *loading, CUresult result, const CUlibrary *library)
{
    if (end(loading, result, result == CUDA_SUCCESS ? *library : NULL, false) == 0)
        return result;
    cuLibraryUnload(*library);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit_options, void **jit_values,
                           unsigned int jit_count, CUlibraryOption *options, void **values, unsigned int count)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_library(&loading,
                       REAL(cuLibraryLoadData)(library, code, jit_options, jit_values, jit_count, options, values, count),
                       library);
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *jit_options, void **jit_values,
                               unsigned int jit_count, CUlibraryOption *options, void **values, unsigned int count)
{
    struct loading loading;
    begin(&loading, __func__);
    return end_library(&loading,
                       REAL(cuLibraryLoadFromFile)(library, path, jit_options, jit_values, jit_count, options, values, count),
                       library);
}

CUresult cuLibraryUnload(CUlibrary library)
{
    struct loaded *withdrawn = withdraw(library, NULL);
    CUresult rc = REAL(cuLibraryUnload)(library);
    if (rc == CUDA_SUCCESS)
        give_back(withdrawn);
    else
        restore(withdrawn);
    return rc;
}

// Whether the data of a module have been loaded into the current context and charged.
static bool data_seen(const void *handle)
{
    CUcontext context = NULL;
    if (REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS)
        return false;
    pthread_mutex_lock(&mutex);
    const struct loaded *loaded = find(handle, context);
    bool seen = loaded && loaded->data_seen && !loaded->owed;
    pthread_mutex_unlock(&mutex);
    return seen;
}

// The value of `call`, which makes a lazy driver load the data of a module.
#define LOADS_DATA(handle, call)                                                                                               \
    (__extension__({                                                                                                           \
        CUresult data_rc;                                                                                                      \
        struct loading data_loading;                                                                                           \
        if (data_seen(handle)) {                                                                                               \
            data_rc = (call);                                                                                                  \
        } else {                                                                                                               \
            begin(&data_loading, __func__);                                                                                    \
            data_rc = (call);                                                                                                  \
            if (end(&data_loading, data_rc, (handle), true))                                                                   \
                data_rc = CUDA_ERROR_OUT_OF_MEMORY;                                                                            \
        }                                                                                                                      \
        data_rc;                                                                                                               \
    }))

CUresult cuModuleGetGlobal(CUdeviceptr_v1 *pointer, unsigned int *bytes, CUmodule module, const char *name)
{
    return LOADS_DATA(module, REAL(cuModuleGetGlobal)(pointer, bytes, module, name));
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *pointer, size_t *bytes, CUmodule module, const char *name)
{
    return LOADS_DATA(module, REAL(cuModuleGetGlobal_v2)(pointer, bytes, module, name));
}

CUresult cuLibraryGetGlobal(CUdeviceptr *pointer, size_t *bytes, CUlibrary library, const char *name)
{
    return LOADS_DATA(library, REAL(cuLibraryGetGlobal)(pointer, bytes, library, name));
}

CUresult cuLibraryGetManaged(CUdeviceptr *pointer, size_t *bytes, CUlibrary library, const char *name)
{
    return LOADS_DATA(library, REAL(cuLibraryGetManaged)(pointer, bytes, library, name));
}

CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    return LOADS_DATA(library, REAL(cuLibraryGetModule)(module, library));
}
