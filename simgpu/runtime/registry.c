// What programs register before main: fat binaries, kernels and variables.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// nvcc makes a host stub for each kernel and registers its address with the mangled name of the device function. A fat binary
// is loaded as a library when one of its kernels is first wanted. Everything registered lives until its fat binary is
// unregistered, so handles found under the lock may be used without it.
#include "simgpu/runtime/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "simgpu/runtime/runtime.h"

#define FATBIN_WRAPPER_MAGIC 0x466243b1

// What nvcc passes to __cudaRegisterFatBinary; laid down in the toolkit's fatbinary_section.h.
struct fatbin_wrapper {
    int magic, version;
    const void *data;
    void *file;
};

struct fatbin {
    struct fatbin *next;
    const struct fatbin_wrapper *wrapper;
    CUlibrary library; // once loaded
};

// A kernel or a variable, by the address that the program uses for it.
struct entry {
    struct entry *next;
    struct fatbin *fatbin; // NULL for a kernel that came from cudaLibraryGetKernel
    const void *host;
    const char *name;
    CUkernel kernel; // once wanted
    size_t bytes;    // of a variable
    bool is_variable;
};

#define BUCKETS 1024u

static struct entry *table[BUCKETS];
static struct fatbin *fatbins;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct entry **bucket(const void *host)
{
    uintptr_t bits = (uintptr_t)host;
    return &table[(bits >> 4 ^ bits >> 14) % BUCKETS];
}

static struct entry *find(const void *host, bool variable)
{
    struct entry *entry = *bucket(host);
    while (entry && (entry->host != host || entry->is_variable != variable))
        entry = entry->next;
    return entry;
}

static bool add(struct entry entry)
{
    struct entry *made = malloc(sizeof *made);
    if (!made)
        return false;
    *made = entry;
    made->next = *bucket(entry.host);
    *bucket(entry.host) = made;
    return true;
}

void **__cudaRegisterFatBinary(void *data)
{
    const struct fatbin_wrapper *wrapper = data;
    struct fatbin *fatbin = calloc(1, sizeof *fatbin);

    if (!fatbin || wrapper->magic != FATBIN_WRAPPER_MAGIC) {
        free(fatbin);
        return NULL;
    }
    fatbin->wrapper = wrapper;
    pthread_mutex_lock(&lock);
    fatbin->next = fatbins;
    fatbins = fatbin;
    pthread_mutex_unlock(&lock);
    return (void **)fatbin;
}

void __cudaRegisterFatBinaryEnd(void **handle)
{
    (void)handle;
}

static void remove_entries(const struct fatbin *fatbin)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct entry **link = &table[i], *entry; (entry = *link);) {
            if (entry->fatbin == fatbin) {
                *link = entry->next;
                free(entry);
            } else {
                link = &entry->next;
            }
        }
    }
}

// The library itself is left to the driver: at exit it may be gone already, and a program that unloads code may still be
// running it.
void __cudaUnregisterFatBinary(void **handle)
{
    struct fatbin *fatbin = (struct fatbin *)handle;

    if (!fatbin)
        return;
    pthread_mutex_lock(&lock);
    remove_entries(fatbin);
    for (struct fatbin **link = &fatbins; *link; link = &(*link)->next) {
        if (*link == fatbin) {
            *link = fatbin->next;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    free(fatbin);
}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int thread_limit, uint3 *tid,
                            uint3 *bid, dim3 *block, dim3 *grid, int *warp)
{
    (void)device, (void)thread_limit, (void)tid, (void)bid, (void)block, (void)grid, (void)warp;
    pthread_mutex_lock(&lock);
    add((struct entry){.fatbin = (struct fatbin *)handle, .host = host, .name = name});
    pthread_mutex_unlock(&lock);
}

void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t bytes, int constant,
                       int global)
{
    (void)device, (void)external, (void)constant, (void)global;
    pthread_mutex_lock(&lock);
    add((struct entry){.fatbin = (struct fatbin *)handle, .host = host, .name = name, .bytes = bytes, .is_variable = true});
    pthread_mutex_unlock(&lock);
}

// The program reads a managed variable through *host, which is filled in when the module is initialised.
void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name, int external, size_t bytes,
                              int constant, int global)
{
    (void)device, (void)external, (void)constant, (void)global;
    pthread_mutex_lock(&lock);
    add((struct entry){.fatbin = (struct fatbin *)handle, .host = host, .name = name, .bytes = bytes, .is_variable = true});
    pthread_mutex_unlock(&lock);
}

static cudaError_t load_library(struct fatbin *fatbin)
{
    if (fatbin->library)
        return cudaSuccess;
    return (cudaError_t)LEGACY->cuLibraryLoadData(&fatbin->library, fatbin->wrapper->data, NULL, NULL, 0, NULL, NULL, 0);
}

char __cudaInitModule(void **handle)
{
    struct fatbin *fatbin = (struct fatbin *)handle;

    if (!fatbin || runtime_enter())
        return 0;
    pthread_mutex_lock(&lock);
    cudaError_t error = load_library(fatbin);
    for (unsigned i = 0; i < BUCKETS && !error; i++) {
        for (struct entry *entry = table[i]; entry; entry = entry->next) {
            CUdeviceptr address;
            size_t bytes;
            if (entry->fatbin == fatbin && entry->is_variable && entry->bytes &&
                !LEGACY->cuLibraryGetManaged(&address, &bytes, fatbin->library, entry->name))
                *(void **)entry->host = (void *)address;
        }
    }
    pthread_mutex_unlock(&lock);
    return !error;
}

static cudaError_t load_kernel(struct entry *entry)
{
    cudaError_t error;

    if (entry->kernel)
        return cudaSuccess;
    error = load_library(entry->fatbin);
    if (!error)
        error = (cudaError_t)LEGACY->cuLibraryGetKernel(&entry->kernel, entry->fatbin->library, entry->name);
    return error == cudaErrorSymbolNotFound ? cudaErrorInvalidDeviceFunction : error;
}

cudaError_t registry_kernel(const void *function, cudaKernel_t *kernel)
{
    cudaError_t error = runtime_init();

    if (error)
        return error;
    pthread_mutex_lock(&lock);
    struct entry *entry = find(function, false);
    error = entry ? load_kernel(entry) : cudaErrorInvalidDeviceFunction;
    if (!error)
        *kernel = (cudaKernel_t)entry->kernel;
    pthread_mutex_unlock(&lock);
    return error;
}

const void *registry_function(cudaKernel_t kernel)
{
    const void *function = kernel;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct entry *entry = table[i]; entry; entry = entry->next)
            if (entry->fatbin && entry->kernel == (CUkernel)kernel)
                function = entry->host;
    pthread_mutex_unlock(&lock);
    return function;
}

cudaError_t registry_add_kernel(cudaKernel_t kernel)
{
    pthread_mutex_lock(&lock);
    bool known = find(kernel, false) || add((struct entry){.host = kernel, .name = "", .kernel = (CUkernel)kernel});
    pthread_mutex_unlock(&lock);
    return known ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t registry_symbol(const void *symbol, void **address, size_t *bytes)
{
    CUdeviceptr pointer;
    cudaError_t error = runtime_enter();

    if (error)
        return error;
    pthread_mutex_lock(&lock);
    struct entry *entry = find(symbol, true);
    error = entry ? load_library(entry->fatbin) : cudaErrorInvalidSymbol;
    if (!error && LEGACY->cuLibraryGetGlobal(&pointer, bytes, entry->fatbin->library, entry->name))
        error = cudaErrorInvalidSymbol;
    if (!error)
        *address = (void *)pointer;
    pthread_mutex_unlock(&lock);
    return error;
}

// Called once from each host stub; an error shows when the stub launches.
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    cudaError_t error = registry_kernel(function, kernel);
    if (!error)
        error = registry_add_kernel(*kernel);
    return error;
}

cudaError_t cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    return runtime_leave(kernel ? __cudaGetKernel(kernel, function) : cudaErrorInvalidValue);
}

cudaError_t cudaGetFuncBySymbol(cudaFunction_t *function, const void *symbol)
{
    cudaKernel_t kernel;
    cudaError_t error = function ? runtime_enter() : cudaErrorInvalidValue;

    if (!error)
        error = registry_kernel(symbol, &kernel);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuKernelGetFunction(function, (CUkernel)kernel));
}
