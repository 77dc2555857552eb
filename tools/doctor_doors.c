// SPDX-License-Identifier: AGPL-3.0-or-later
// Every way to get a driver function, tried under the library in a program that has nothing of CUDA: this one.
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "tools/doctor.h"

#define LIBRARY "libvgpu_shim.so"

// The function that stands for all: a hooked one, whose name cuGetProcAddress knows without its version. The weak reference is
// a direct link that does not need the driver to be there.
#define FUNCTION "cuMemAlloc_v2"
#define FAMILY "cuMemAlloc"
#define FAMILY_VERSION 3020
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) __attribute__((weak));

static const char *file_of(const void *address)
{
    Dl_info info;
    return address && dladdr(address, &info) ? info.dli_fname : "";
}

static int is_ours(const void *address)
{
    const char *file = file_of(address), *slash = strrchr(file, '/');
    return strcmp(slash ? slash + 1 : file, LIBRARY) == 0;
}

// Where a door leads. Nowhere is the same as without the library, except for doors that always lead somewhere.
static void tell(const char *door, const void *address, const char *nowhere)
{
    if (is_ours(address))
        doctor_say(DOCTOR_OK, "door", "%s leads to the library", door);
    else if (address)
        doctor_say(DOCTOR_FAIL, "door", "%s leads past the library, to %s: what goes through it is not limited", door,
                   file_of(address));
    else
        doctor_say(nowhere ? DOCTOR_OK : DOCTOR_FAIL, "door", "%s: %s", door, nowhere ? nowhere : "nothing is found");
}

static void try_proc_address(void *driver)
{
    CUresult (*first)(const char *, void **, int, cuuint64_t) =
        (CUresult(*)(const char *, void **, int, cuuint64_t))dlsym(driver, "cuGetProcAddress");
    CUresult (*second)(const char *, void **, int, cuuint64_t, int *) =
        (CUresult(*)(const char *, void **, int, cuuint64_t, int *))dlsym(driver, "cuGetProcAddress_v2");
    void *found = NULL;
    if (first && first(FAMILY, &found, FAMILY_VERSION, 0) != CUDA_SUCCESS)
        found = NULL;
    tell("cuGetProcAddress", found, first ? NULL : "the driver has none");
    found = NULL;
    if (second && second(FAMILY, &found, FAMILY_VERSION, 0, NULL) != CUDA_SUCCESS)
        found = NULL;
    tell("cuGetProcAddress_v2", found, second ? NULL : "the driver has none");
}

static void try_runtime(void)
{
    static const char *const names[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
    void *runtime = NULL, *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !runtime; i++)
        runtime = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    int (*get)(const char *, void **, unsigned long long, int *) =
        runtime ? (int (*)(const char *, void **, unsigned long long, int *))dlsym(runtime, "cudaGetDriverEntryPoint") : NULL;
    int status, rc = get ? get(FAMILY, &found, 0, &status) : 0;
    char nowhere[64] = "no CUDA runtime with it is on the library path";
    // A runtime that cannot start has no doors: other checks have blamed its driver or the pool.
    if (rc)
        snprintf(nowhere, sizeof nowhere, "the runtime does not start (error %d)", rc);
    tell("cudaGetDriverEntryPoint", rc == 0 ? found : NULL, nowhere);
}

// Under the library a program initialises CUDA, in a pool of the test's own, without a quota.
static void try_attach(void *driver)
{
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))dlsym(driver, "cuInit");
    CUresult rc = init ? init(0) : CUDA_ERROR_NOT_FOUND;
    if (rc == CUDA_SUCCESS)
        doctor_say(DOCTOR_OK, "start", "a program under the library gets its GPUs");
    else
        doctor_say(DOCTOR_FAIL, "start", "a program under the library gets error %d from cuInit", (int)rc);
}

void doctor_doors(void)
{
    if (!is_ours(dlsym(RTLD_DEFAULT, "dlsym"))) {
        doctor_say(DOCTOR_FAIL, "door",
                   "the library is not preloaded: does the dynamic linker accept it (LD_DEBUG=files), and is this "
                   "command neither set-user-ID nor given capabilities?");
        return;
    }
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!driver) {
        doctor_say(DOCTOR_WARN, "door", "without a driver the doors cannot be tried");
        return;
    }
    tell("a direct link", (void *)cuMemAlloc_v2, NULL);
    tell("dlsym with RTLD_DEFAULT", dlsym(RTLD_DEFAULT, FUNCTION), NULL);
    tell("dlsym with RTLD_NEXT", dlsym(RTLD_NEXT, FUNCTION), NULL);
    tell("dlsym with a handle", dlsym(driver, FUNCTION), NULL);
    tell("dlvsym", dlvsym(driver, FUNCTION, "libcuda.so.1"), "the driver's functions have no such version");
    try_proc_address(driver);
    try_runtime();
    try_attach(driver);
}
