// SPDX-License-Identifier: AGPL-3.0-or-later
// Global variables of modules and libraries are charged once they are there, refused where they do not fit, and given back.
#include <string.h>

#include "driver.h"

// A module with a variable of this size.
static const char *image(size_t bytes)
{
    static char text[256];
    snprintf(text, sizeof text, ".version 7.0\n.target sm_70\n.address_size 64\n\n.visible .global .align 8 .b8 big[%zu];\n",
             bytes);
    return text;
}

// What the code takes beside the variable: up to 8 MiB.
static void expect_taken(size_t whole, size_t bytes, const char *when)
{
    size_t taken = whole - told_free();
    if (taken < bytes || taken > bytes + 8 * MIB)
        fail("%s: %zu bytes are taken where %zu are expected", when, taken, bytes);
}

// What compiling had to say reaches the program whole, also where a module is large.
static void logs_are_whole(void)
{
    enum { LOGS = 4 };
    static const size_t bytes[LOGS] = {16, 64 * MIB, 16, 64 * MIB};
    char logs[LOGS][1000] = {""};
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_LOG_VERBOSE, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES};
    for (int i = 0; i < LOGS; i++) {
        void *values[] = {logs[i], (void *)0, (void *)sizeof logs[i]};
        CUmodule module;
#if CUDA_VERSION >= 12000
        CUlibrary library;
        if (i >= LOGS / 2) {
            OK(cuLibraryLoadData(&library, image(bytes[i]), options, values, 3, NULL, NULL, 0));
            OK(cuLibraryUnload(library));
            continue;
        }
#endif
        OK(cuModuleLoadDataEx(&module, image(bytes[i]), 3, options, values));
        OK(cuModuleUnload(module));
    }
    for (int i = 0; i < LOGS; i += 2)
        if (strcmp(logs[i], logs[i + 1]) != 0)
            fail("of a large module the log is \"%s\" and of a small one \"%s\"", logs[i + 1], logs[i]);
}

int main(void)
{
    CUmodule module, other;
    CUcontext second;
    CUdeviceptr address, rest;
    size_t bytes;
    CUcontext first = start();
    // The first module that is loaded may make the driver load what all of them need.
    OK(cuModuleLoadData(&module, image(16)));
    OK(cuModuleUnload(module));
    size_t whole = told_free();
    logs_are_whole();
    expect_free(whole, "after loading with logs");

    OK(cuModuleLoadData(&module, image(64 * MIB)));
    OK(cuModuleGetGlobal(&address, &bytes, module, "big"));
    if (bytes != 64 * MIB)
        fail("the variable has %zu bytes", bytes);
    expect_taken(whole, 64 * MIB, "with a module");
    OK(cuModuleGetGlobal(&address, &bytes, module, "big"));
    expect_taken(whole, 64 * MIB, "asked twice");
    OK(cuMemAlloc(&rest, told_free() - 32 * MIB));
    size_t full = told_free();
    // A driver that loads lazily says so at the first question.
    CUresult rc = cuModuleLoadData(&other, image(512 * MIB));
    if (rc == CUDA_SUCCESS) {
        rc = cuModuleGetGlobal(&address, &bytes, other, "big");
        OK(cuModuleUnload(other));
    }
    expect(rc, CUDA_ERROR_OUT_OF_MEMORY, "a module that does not fit");
    expect_free(full, "after a refusal");
    OK(cuMemFree(rest));
    OK(cuModuleUnload(module));
    expect_free(whole, "after unloading");
    OK(cuModuleLoadDataEx(&module, image(64 * MIB), 0, NULL, NULL));
    OK(cuModuleGetGlobal(&address, NULL, module, "big"));
    expect_taken(whole, 64 * MIB, "with a module loaded with options");
    OK(cuModuleUnload(module));
    expect_free(whole, "after unloading that");

#if CUDA_VERSION >= 12000
    CUlibrary library;
    OK(cuLibraryLoadData(&library, image(64 * MIB), NULL, NULL, 0, NULL, NULL, 0));
    OK(cuLibraryGetGlobal(&address, &bytes, library, "big"));
    expect_taken(whole, 64 * MIB, "with a library");
    OK(cuLibraryUnload(library));
    expect_free(whole, "after unloading the library");
#endif

    OK(create_context(&second, 0));
    OK(cuModuleLoadData(&module, image(64 * MIB)));
    OK(cuModuleGetGlobal(&address, &bytes, module, "big"));
    size_t loaded = told_free();
    OK(cuCtxSetCurrent(first));
    OK(cuModuleGetGlobal(&address, &bytes, module, "big"));
    expect_free(loaded, "asked while another context is current");
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(first));
    expect_free(whole, "after the context of a module");
    return 0;
}
