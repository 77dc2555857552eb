// SPDX-License-Identifier: AGPL-3.0-or-later
// Global variables of modules and libraries are charged once they are there, refused where they do not fit, and given back.
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

#if CUDA_VERSION >= 13000
    OK(cuCtxCreate(&second, NULL, 0, 0));
#else
    OK(cuCtxCreate(&second, 0, 0));
#endif
    OK(cuModuleLoadData(&module, image(64 * MIB)));
    OK(cuModuleGetGlobal(&address, &bytes, module, "big"));
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(first));
    expect_free(whole, "after the context of a module");
    return 0;
}
