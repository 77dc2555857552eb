// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/modules.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

// How long a program may be kept waiting for another loading when it loads a module, and when it asks for a function.
#define LOAD_PATIENCE_NS (10 * NS_PER_S)
#define QUESTION_PATIENCE_NS (250 * NS_PER_MS)

// What measures as more than this is loaded and measured a second time, and the smaller figure counts: another process's
// allocation whose chunks were taken before the first measurement began does not happen twice.
// What a function seems to take beyond this is not its code, and a function cannot be loaded twice: the context has grown by
// what kernels that print need, which is in its price (shim/calibrate.h), or variables were loaded.
#define DOUBTFUL_BYTES (8ull << 20)

// A variable that the program has asked for.
struct variable {
    uint64_t address, bytes;
    struct variable *next;
};

// A function whose code is charged.
struct function {
    UT_hash_handle hh;
    char key[];
};

struct place {
    const void *handle;
    CUcontext context;
};

// A module or a library in one context. The charge is what was measured when it was loaded or, if more, what its known
// variables take: a lazy driver loads those later. The same goes for the code of its functions, which is measured separately.
struct loaded {
    struct place place;
    const void *library; // that a module is part of, NULL for others
    struct device *device;
    uint64_t charged_bytes;
    uint64_t code_bytes; // charged on top, for functions
    uint64_t owed_bytes; // code that is there but did not fit
    struct function *functions;
    uint64_t variable_bytes;
    struct variable *variables;
    UT_hash_handle hh;
    struct loaded *next; // on a list of withdrawn ones
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct loaded *table; // by place: some programs load ten thousand modules and look functions up before every launch

void modules_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    table = NULL;
}

// The record of a module in a context, or NULL. Under the mutex.
static struct loaded *find(const void *handle, CUcontext context)
{
    struct loaded *loaded;
    struct place place;
    memset(&place, 0, sizeof place); // all of its bytes are the key
    place.handle = handle;
    place.context = context;
    HASH_FIND(hh, table, &place, sizeof place, loaded);
    return loaded;
}

static bool enter(struct loaded *loaded)
{
    HASH_ADD(hh, table, place, sizeof loaded->place, loaded);
    return loaded->hh.tbl != NULL;
}

// The same, made if there is none; NULL: out of memory.
static struct loaded *find_or_make(const void *handle, CUcontext context, struct device *device)
{
    struct loaded *loaded = find(handle, context);
    if (loaded || !(loaded = calloc(1, sizeof *loaded)))
        return loaded;
    *loaded = (struct loaded){.place = {handle, context}, .device = device};
    if (enter(loaded))
        return loaded;
    free(loaded);
    return NULL;
}

static struct device *current(CUcontext *context)
{
    struct device *device = device_current();
    *context = NULL;
    return device && REAL(cuCtxGetCurrent)(context) == CUDA_SUCCESS && *context ? device : NULL;
}

// How many bytes have been taken since a measurement began, in whole blocks.
static uint64_t taken_since(const struct measurement *measurement)
{
    int64_t lost_bytes;
    measure_end(measurement, &lost_bytes);
    return lost_bytes > 0 ? holdings_round_up((uint64_t)lost_bytes, HOLDINGS_BLOCK_BYTES) : 0;
}

// Charges a module `bytes` in all, if that is more than it is charged. Returns 0 or -ENOMEM.
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
            holdings_give(&device->holdings, bytes - charged); // unloaded, or charged by another thread meanwhile
        pthread_mutex_unlock(&mutex);
    }
    if (rc)
        device_refuse(device, bytes, function);
    errno = saved;
    return rc;
}

static bool is_known(const struct module_question *question)
{
    struct function *function = NULL;
    pthread_mutex_lock(&mutex);
    const struct loaded *loaded = find(question->owner, question->context);
    if (loaded)
        HASH_FIND(hh, loaded->functions, question->key, question->key_bytes, function);
    pthread_mutex_unlock(&mutex);
    return function != NULL;
}

// Under the mutex. Without memory for it, the function is measured again the next time it is asked for.
static void know(struct loaded *loaded, const struct module_question *question)
{
    struct function *function;
    HASH_FIND(hh, loaded->functions, question->key, question->key_bytes, function);
    if (function || !(function = calloc(1, sizeof *function + question->key_bytes)))
        return;
    memcpy(function->key, question->key, question->key_bytes);
    HASH_ADD(hh, loaded->functions, key, question->key_bytes, function);
    if (!function->hh.tbl)
        free(function);
}

// Charges the owner of a function `bytes` more of code, plus what it owes. Returns 0 or -ENOMEM.
static int charge_code(const struct module_question *question, uint64_t bytes, const char *function)
{
    struct device *device = question->device;
    int saved = errno, rc = 0;
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = find_or_make(question->owner, question->context, device);
    uint64_t due = bytes + (loaded ? loaded->owed_bytes : 0);
    if (loaded)
        loaded->owed_bytes = 0;
    pthread_mutex_unlock(&mutex);
    if (due)
        rc = device_take(device, due); // may wait for the pool lock
    pthread_mutex_lock(&mutex);
    loaded = find(question->owner, question->context);
    if (loaded)
        *(rc ? &loaded->owed_bytes : &loaded->code_bytes) += due;
    else if (rc == 0)
        holdings_give(&device->holdings, due); // unloaded meanwhile
    if (loaded && rc == 0)
        know(loaded, question);
    pthread_mutex_unlock(&mutex);
    if (rc)
        device_refuse(device, due, function);
    errno = saved;
    return rc;
}

void module_question_begin(struct module_question *question, const void *owner, const void *key, size_t key_bytes)
{
    *question = (struct module_question){.owner = owner, .key = key, .key_bytes = key_bytes};
    struct device *device = owner && key ? current(&question->context) : NULL;
    if (!device || is_known(question))
        return;
    question->device = device;
    measure_begin(&question->measurement, device, QUESTION_PATIENCE_NS);
}

CUresult module_question_end(struct module_question *question, CUresult result, const char *function)
{
    if (!question->device)
        return result;
    uint64_t bytes = taken_since(&question->measurement);
    if (result == CUDA_SUCCESS && charge_code(question, bytes <= DOUBTFUL_BYTES ? bytes : 0, function))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    measure_leave(&question->measurement);
    return result;
}

// Takes the records of a module, or of a context (the other one is NULL), out of the table.
static struct loaded *withdraw(const void *handle, CUcontext context)
{
    struct loaded *withdrawn = NULL, *loaded, *following;
    pthread_mutex_lock(&mutex);
    HASH_ITER(hh, table, loaded, following)
    {
        const struct place *place = &loaded->place;
        if (handle ? place->handle != handle && loaded->library != handle : place->context != context)
            continue;
        HASH_DEL(table, loaded);
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
        struct function *function, *after;
        HASH_ITER(hh, withdrawn->functions, function, after)
        {
            HASH_DEL(withdrawn->functions, function);
            free(function);
        }
        for (struct variable *variable = withdrawn->variables, *next; variable; variable = next) {
            next = variable->next;
            free(variable);
        }
        free(withdrawn);
    }
}

// The driver has not unloaded them after all. One for which there is no host memory stays charged until the process ends, which
// favours nobody.
static void restore(struct loaded *withdrawn)
{
    pthread_mutex_lock(&mutex);
    for (struct loaded *following; withdrawn; withdrawn = following) {
        following = withdrawn->next;
        enter(withdrawn);
    }
    pthread_mutex_unlock(&mutex);
}

void modules_drop_context(CUcontext context)
{
    give_back(withdraw(NULL, context));
}

// A load under way.
struct load {
    CUcontext context;
    struct device *device; // NULL: no context is current, nothing is loaded yet
    struct measurement measurement;
};

static void load_begin(struct load *load)
{
    load->device = current(&load->context);
    if (load->device)
        measure_begin(&load->measurement, load->device, LOAD_PATIENCE_NS);
}

static void load_again(struct load *load)
{
    if (load->device)
        measure_again(&load->measurement);
}

static uint64_t load_bytes(const struct load *load)
{
    return load->device ? taken_since(&load->measurement) : 0;
}

static void load_leave(const struct load *load)
{
    if (load->device)
        measure_leave(&load->measurement);
}

// The value of `call`, which loads a module or a library into *handle, or of `again`, which does so a second time. What does
// not fit is unloaded again.
#define LOADED_OR_AGAIN(handle, unload, call, again)                                                                           \
    (__extension__({                                                                                                           \
        struct load loading;                                                                                                   \
        load_begin(&loading);                                                                                                  \
        CUresult loaded_rc = (call);                                                                                           \
        uint64_t loaded_bytes = load_bytes(&loading);                                                                          \
        if (loaded_rc == CUDA_SUCCESS && loaded_bytes > DOUBTFUL_BYTES) {                                                      \
            unload(*(handle));                                                                                                 \
            load_again(&loading);                                                                                              \
            loaded_rc = (again);                                                                                               \
            uint64_t again_bytes = load_bytes(&loading);                                                                       \
            loaded_bytes = again_bytes < loaded_bytes ? again_bytes : loaded_bytes;                                            \
        }                                                                                                                      \
        if (loaded_rc == CUDA_SUCCESS && loading.device &&                                                                     \
            charge(*(handle), loading.context, loading.device, loaded_bytes, __func__)) {                                      \
            unload(*(handle));                                                                                                 \
            loaded_rc = CUDA_ERROR_OUT_OF_MEMORY;                                                                              \
        }                                                                                                                      \
        load_leave(&loading);                                                                                                  \
        loaded_rc;                                                                                                             \
    }))
#define LOADED(handle, unload, call) LOADED_OR_AGAIN(handle, unload, call, call)

// What a module is compiled with. The options say where a log goes and how large it may be, and the same place is answered with
// its length: a second loading would take that for its room. So the second is made without a log, and its answers go nowhere.
struct compilation {
    unsigned int count;
    CUjit_option *options;
    void **values;
    void *copy; // to be freed; NULL: none, for lack of options or memory
};

static bool is_log(CUjit_option option)
{
    return option == CU_JIT_INFO_LOG_BUFFER || option == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ||
           option == CU_JIT_ERROR_LOG_BUFFER || option == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES;
}

static struct compilation without_log(unsigned int count, CUjit_option *options, void **values)
{
    struct compilation compilation = {count, options, values, NULL};
    int saved = errno;
    void **copy = count ? malloc(count * (sizeof *values + sizeof *options)) : NULL;
    errno = saved;
    if (!copy)
        return compilation;
    compilation = (struct compilation){0, (CUjit_option *)(void *)(copy + count), copy, copy};
    for (unsigned int i = 0; i < count; i++) {
        if (is_log(options[i]))
            continue;
        compilation.options[compilation.count] = options[i];
        compilation.values[compilation.count++] = values[i];
    }
    return compilation;
}

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
    struct compilation again = {0};
    CUresult rc = LOADED_OR_AGAIN(module, cuModuleUnload, REAL(cuModuleLoadDataEx)(module, image, count, options, values),
                                  (again = without_log(count, options, values),
                                   REAL(cuModuleLoadDataEx)(module, image, again.count, again.options, again.values)));
    free(again.copy);
    return rc;
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return LOADED(module, cuModuleUnload, REAL(cuModuleLoadFatBinary)(module, image));
}

// A function that loads a library, from an image or a file.
#define LOADS_LIBRARY(name, source_type)                                                                                       \
    CUresult name(CUlibrary *library, source_type *source, CUjit_option *jit_options, void **jit_values,                       \
                  unsigned int jit_count, CUlibraryOption *options, void **values, unsigned int count)                         \
    {                                                                                                                          \
        struct compilation again = {0};                                                                                        \
        CUresult rc =                                                                                                          \
            LOADED_OR_AGAIN(library, cuLibraryUnload,                                                                          \
                            REAL(name)(library, source, jit_options, jit_values, jit_count, options, values, count),           \
                            (again = without_log(jit_count, jit_options, jit_values),                                          \
                             REAL(name)(library, source, again.options, again.values, again.count, options, values, count)));  \
        free(again.copy);                                                                                                      \
        return rc;                                                                                                             \
    }

LOADS_LIBRARY(cuLibraryLoadData, const void)
LOADS_LIBRARY(cuLibraryLoadFromFile, const char)

void module_of_library(CUmodule module, CUlibrary library)
{
    CUcontext context;
    int saved = errno;
    struct device *device = current(&context);
    pthread_mutex_lock(&mutex);
    struct loaded *loaded = device ? find_or_make(module, context, device) : NULL;
    if (loaded)
        loaded->library = library;
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    CUresult rc = REAL(cuLibraryGetModule)(module, library);
    if (rc == CUDA_SUCCESS)
        module_of_library(*module, library);
    return rc;
}

// A module leaves the books before the driver can reuse its handle.
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

// Notes a variable of a module. Returns what all its known variables take, in whole blocks; 0: out of memory.
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

// From the current context to the one in which a module is loaded, and to its device. Unchanged for a module without a record.
static void find_home(const void *module, CUcontext *context, struct device **device)
{
    pthread_mutex_lock(&mutex);
    const struct loaded *loaded = find(module, *context);
    if (!loaded)
        loaded = table;
    while (loaded && loaded->place.handle != module)
        loaded = loaded->hh.next;
    if (loaded) {
        *context = loaded->place.context;
        *device = loaded->device;
    }
    pthread_mutex_unlock(&mutex);
}

// The program has asked for a variable with this address and size: of a module, which has one context, or of a library, which
// has one in each. If its variables do not fit, the request is refused.
static CUresult got_variable(const void *handle, bool is_module, uint64_t address, uint64_t bytes, const char *function)
{
    CUcontext context;
    struct device *device = current(&context);
    if (!device)
        return CUDA_SUCCESS;
    if (is_module)
        find_home(handle, &context, &device);
    uint64_t all = note_variable(handle, context, device, address, bytes);
    return all && charge(handle, context, device, all, function) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

// A function that tells where a variable is and how large. The program may omit either, so the driver is asked once more.
#define TELLS_VARIABLE(name, pointer_type, size_type, handle_type, is_module)                                                  \
    CUresult name(pointer_type *pointer, size_type *bytes, handle_type handle, const char *variable)                           \
    {                                                                                                                          \
        pointer_type address;                                                                                                  \
        size_type size;                                                                                                        \
        CUresult rc = REAL(name)(pointer, bytes, handle, variable);                                                            \
        if (rc == CUDA_SUCCESS && REAL(name)(&address, &size, handle, variable) == CUDA_SUCCESS)                               \
            rc = got_variable(handle, is_module, address, size, #name);                                                        \
        return rc;                                                                                                             \
    }

TELLS_VARIABLE(cuModuleGetGlobal, CUdeviceptr_v1, unsigned int, CUmodule, true)
TELLS_VARIABLE(cuModuleGetGlobal_v2, CUdeviceptr, size_t, CUmodule, true)
TELLS_VARIABLE(cuLibraryGetGlobal, CUdeviceptr, size_t, CUlibrary, false)
TELLS_VARIABLE(cuLibraryGetManaged, CUdeviceptr, size_t, CUlibrary, false)
