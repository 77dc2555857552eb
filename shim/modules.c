// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/modules.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

// What is measured as more than this is loaded and measured a second time, and the smaller figure counts: an allocation of another
// process whose chunks were taken before the first one began has no second time.
// What a function seems to have taken beyond that is not its code, and a function cannot be loaded twice: the context has grown by what kernels
// that print need, which is in its price (shim/calibrate.h), or variables have been loaded.
#define DOUBTFUL_BYTES (8ull << 20)

// A variable that the program has asked for.
struct variable {
    uint64_t address, bytes;
    struct variable *next;
};

// A module or a library in one context. Charged is what was measured when it was loaded, or what its known variables take, if that is
// more: those of a lazy driver are loaded later. So is the code of its functions, which is measured by itself.
struct loaded {
    const void *handle, *library; // the library that a module is a part of, NULL for others
    CUcontext context;
    struct device *device;
    uint64_t charged_bytes;
    uint64_t code_bytes; // charged beyond that, for functions
    uint64_t owed_bytes; // code that is there and did not fit
    uint64_t variable_bytes;
    struct variable *variables;
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

static struct device *current(CUcontext *context)
{
    struct device *device = device_current();
    *context = NULL;
    return device && REAL(cuCtxGetCurrent)(context) == CUDA_SUCCESS && *context ? device : NULL;
}

void module_load_begin(struct module_load *load, uint64_t patience_ns)
{
    load->device = current(&load->context);
    if (load->device)
        measure_begin(&load->measurement, load->device, patience_ns);
}

// How many bytes the load has taken, in whole blocks.
static uint64_t end(struct module_load *load)
{
    int64_t lost_bytes = 0;
    if (load->device)
        measure_end(&load->measurement, &lost_bytes);
    return lost_bytes > 0 ? holdings_round_up((uint64_t)lost_bytes, HOLDINGS_BLOCK_BYTES) : 0;
}

// Charges a module `bytes` in all, where that is more than it is charged. Returns 0 or -ENOMEM.
static int charge(const void *handle, CUcontext context, struct device *device, uint64_t bytes, const char *function)
{
    int saved = errno;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = find_or_make(handle, context, device);
    uint64_t charged = loaded ? loaded->charged_bytes : 0;
    pthread_mutex_unlock(&mutex);
    int rc = loaded ? 0 : -ENOMEM;
    if (rc == 0 && bytes > charged) {
        rc = device_take(device, bytes - charged); // may wait for the pool lock
        pthread_mutex_lock(&mutex);
        loaded = find(handle, context);
        if (rc == 0 && loaded && loaded->charged_bytes == charged)
            loaded->charged_bytes = bytes;
        else if (rc == 0)
            holdings_give(&device->holdings, bytes - charged); // unloaded or charged by another thread meanwhile
        pthread_mutex_unlock(&mutex);
    }
    if (rc)
        device_refuse(device, bytes, function);
    errno = saved;
    return rc;
}

// Charges a module more, and what is owed for it. Returns 0 or -ENOMEM.
static int charge_more(const void *handle, CUcontext context, struct device *device, uint64_t more, const char *function)
{
    int saved = errno, rc = 0;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = more ? find_or_make(handle, context, device) : find(handle, context);
    uint64_t due = more + (loaded ? loaded->owed_bytes : 0);
    if (loaded)
        loaded->owed_bytes = 0;
    pthread_mutex_unlock(&mutex);
    if (due) {
        rc = device_take(device, due); // may wait for the pool lock
        pthread_mutex_lock(&mutex);
        loaded = find(handle, context);
        if (loaded)
            *(rc ? &loaded->owed_bytes : &loaded->code_bytes) += due;
        else if (rc == 0)
            holdings_give(&device->holdings, due); // unloaded meanwhile
        pthread_mutex_unlock(&mutex);
    }
    if (rc)
        device_refuse(device, due, function);
    errno = saved;
    return rc;
}

CUresult module_load_end(struct module_load *load, const void *handle, const char *function)
{
    uint64_t bytes = end(load);
    if (!load->device || !handle)
        return CUDA_SUCCESS;
    int rc = charge_more(handle, load->context, load->device, bytes <= DOUBTFUL_BYTES ? bytes : 0, function);
    return rc ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

// Takes the records of a module, or of a context (the other one is NULL), off the list.
static struct loaded *withdraw(const void *handle, CUcontext context)
{
    struct loaded *withdrawn = NULL;
    pthread_mutex_lock(&mutex);
    for (struct loaded **link = &list; *link;) {
        struct loaded *loaded = *link;
        if (handle ? loaded->handle != handle && loaded->library != handle : loaded->context != context) {
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
        holdings_give(&withdrawn->device->holdings, withdrawn->charged_bytes + withdrawn->code_bytes);
        for (struct variable *variable = withdrawn->variables, *next; variable; variable = next) {
            next = variable->next;
            free(variable);
        }
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

// The value of `call`, which loads a module or a library into *handle. What does not fit is unloaded again.
#define LOADED(handle, unload, call)                                                                                           \
    (__extension__({                                                                                                           \
        struct module_load loading;                                                                                            \
        module_load_begin(&loading, MODULE_LOAD_PATIENCE_NS);                                                                  \
        CUresult loaded_rc = (call);                                                                                           \
        uint64_t loaded_bytes = end(&loading);                                                                                 \
        if (loaded_rc == CUDA_SUCCESS && loaded_bytes > DOUBTFUL_BYTES) {                                                      \
            unload(*(handle));                                                                                                 \
            module_load_begin(&loading, MODULE_LOAD_PATIENCE_NS);                                                              \
            loaded_rc = (call);                                                                                                \
            uint64_t again_bytes = end(&loading);                                                                              \
            loaded_bytes = again_bytes < loaded_bytes ? again_bytes : loaded_bytes;                                            \
        }                                                                                                                      \
        if (loaded_rc == CUDA_SUCCESS && loading.device &&                                                                     \
            charge(*(handle), loading.context, loading.device, loaded_bytes, __func__)) {                                      \
            unload(*(handle));                                                                                                 \
            loaded_rc = CUDA_ERROR_OUT_OF_MEMORY;                                                                              \
        }                                                                                                                      \
        loaded_rc;                                                                                                             \
    }))

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    return LOADED(module, cuModuleUnload, REAL(cuModuleLoad)(module, path));
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return LOADED(module, cuModuleUnload, REAL(cuModuleLoadData)(module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values)
{
    return LOADED(module, cuModuleUnload, REAL(cuModuleLoadDataEx)(module, image, count, options, values));
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return LOADED(module, cuModuleUnload, REAL(cuModuleLoadFatBinary)(module, image));
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit_options, void **jit_values,
                           unsigned int jit_count, CUlibraryOption *options, void **values, unsigned int count)
{
    return LOADED(library, cuLibraryUnload,
                  REAL(cuLibraryLoadData)(library, code, jit_options, jit_values, jit_count, options, values, count));
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *jit_options, void **jit_values,
                               unsigned int jit_count, CUlibraryOption *options, void **values, unsigned int count)
{
    return LOADED(library, cuLibraryUnload,
                  REAL(cuLibraryLoadFromFile)(library, path, jit_options, jit_values, jit_count, options, values, count));
}

// What is asked of the module that a library has in a context goes back with the library.
CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    CUcontext context;
    CUresult rc = REAL(cuLibraryGetModule)(module, library);
    struct device *device = rc == CUDA_SUCCESS ? current(&context) : NULL;
    if (!device)
        return rc;
    int saved = errno;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = find_or_make(*module, context, device);
    if (loaded)
        loaded->library = library;
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return rc;
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

// Notes a variable of a module. Returns what all of its known variables take, in whole blocks; 0: out of memory.
static uint64_t note_variable(const void *handle, CUcontext context, struct device *device, uint64_t address, uint64_t bytes)
{
    int saved = errno;
    uint64_t all = 0;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = find_or_make(handle, context, device);
    struct variable *variable = loaded ? loaded->variables : NULL;
    while (variable && variable->address != address)
        variable = variable->next;
    if (loaded && !variable && (variable = calloc(1, sizeof *variable))) {
        *variable = (struct variable){address, bytes, loaded->variables};
        loaded->variables = variable;
        loaded->variable_bytes += bytes;
    }
    if (variable)
        all = holdings_round_up(loaded->variable_bytes, HOLDINGS_BLOCK_BYTES);
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return all;
}

// The program has asked for a variable of this address and size. Where the module's variables do not fit, the question is refused.
static CUresult got_variable(const void *handle, uint64_t address, uint64_t bytes, const char *function)
{
    CUcontext context;
    struct device *device = current(&context);
    if (!device)
        return CUDA_SUCCESS;
    uint64_t all = note_variable(handle, context, device, address, bytes);
    return all && charge(handle, context, device, all, function) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

// A function that tells where a variable is and how large. The program may leave out either, so the driver is asked once more.
#define TELLS_VARIABLE(name, pointer_type, size_type, handle_type)                                                             \
    CUresult name(pointer_type *pointer, size_type *bytes, handle_type handle, const char *variable)                           \
    {                                                                                                                          \
        pointer_type address;                                                                                                  \
        size_type size;                                                                                                        \
        CUresult rc = REAL(name)(pointer, bytes, handle, variable);                                                            \
        if (rc == CUDA_SUCCESS && REAL(name)(&address, &size, handle, variable) == CUDA_SUCCESS)                               \
            rc = got_variable(handle, address, size, #name);                                                                   \
        return rc;                                                                                                             \
    }

TELLS_VARIABLE(cuModuleGetGlobal, CUdeviceptr_v1, unsigned int, CUmodule)
TELLS_VARIABLE(cuModuleGetGlobal_v2, CUdeviceptr, size_t, CUmodule)
TELLS_VARIABLE(cuLibraryGetGlobal, CUdeviceptr, size_t, CUlibrary)
TELLS_VARIABLE(cuLibraryGetManaged, CUdeviceptr, size_t, CUlibrary)
