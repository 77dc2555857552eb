// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_code ROUNDS: the code that a lazy driver loads when a kernel is asked for is charged once, refused where it does not fit, and given back.
// Each round loads modules anew and asks for their kernels from several threads at once.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "driver.h"
#include "large_code.h"

#define THREADS 8
#define MODULES 4 // a driver may have room for some code already
#define AGAIN 20000

static const char *image;
static CUmodule modules[MODULES];
static CUcontext context;

static void load_all(void)
{
    for (int i = 0; i < MODULES; i++)
        OK(cuModuleLoadData(&modules[i], image));
}

static void unload_all(void)
{
    for (int i = 0; i < MODULES; i++)
        OK(cuModuleUnload(modules[i]));
}

// Asks for all kernels. Returns the first error, with which no function is given out.
static CUresult ask_all(void)
{
    CUfunction function = NULL;
    CUresult rc = CUDA_SUCCESS;
    for (int i = 0; i < MODULES * LARGE_CODE_KERNELS && rc == CUDA_SUCCESS; i++)
        rc = cuModuleGetFunction(&function, modules[i / LARGE_CODE_KERNELS], large_code_names[i % LARGE_CODE_KERNELS]);
    if ((rc == CUDA_SUCCESS) != (function != NULL))
        fail("answered with %d, but %s", (int)rc, function ? "a function" : "none");
    return rc;
}

static pthread_barrier_t together;

// Asks for all kernels, beginning with another one in each thread.
static void *ask_too(void *number)
{
    CUfunction function;
    OK(cuCtxSetCurrent(context));
    pthread_barrier_wait(&together);
    for (int i = 0; i < MODULES * LARGE_CODE_KERNELS; i++) {
        int kernel = (i + (int)(uintptr_t)number) % (MODULES * LARGE_CODE_KERNELS);
        OK(cuModuleGetFunction(&function, modules[kernel / LARGE_CODE_KERNELS], large_code_names[kernel % LARGE_CODE_KERNELS]));
    }
    return NULL;
}

static void ask_together(size_t with_code)
{
    pthread_t threads[THREADS];
    load_all();
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, ask_too, (void *)(uintptr_t)i))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    expect_free(with_code, "asked for by several threads at once");
    unload_all();
}

static atomic_bool enough;

static void *allocate_meanwhile(void *unused)
{
    CUdeviceptr memory;
    (void)unused;
    OK(cuCtxSetCurrent(context));
    while (!atomic_load(&enough)) {
        OK(cuMemAlloc(&memory, 4 * MIB));
        OK(cuMemFree(memory));
    }
    return NULL;
}

// What somebody else allocates while a function is asked for once more is not its code.
static void ask_beside_allocations(size_t before)
{
    CUfunction function;
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate_meanwhile, NULL))
        fail("no thread");
    for (int i = 0; i < AGAIN; i++)
        OK(cuModuleGetFunction(&function, modules[0], large_code_names[0]));
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    expect_free(before, "asked for again and again, beside allocations");
}

static void expect_code(size_t whole, const char *when)
{
    size_t taken = whole - told_free();
    if (taken < 2 * MIB || taken > 32 * MIB)
        fail("%s: %zu bytes are taken for code", when, taken);
}

int main(int argc, char **argv)
{
    CUdeviceptr rest;
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    context = start();
    image = large_code_image();
    if (!image)
        fail("no memory for an image");
    // The first module that is loaded may make the driver load what all of them need.
    load_all();
    OK(ask_all());
    unload_all();
    size_t whole = told_free();

    load_all();
    size_t loaded = told_free();
    OK(ask_all());
    expect_code(loaded, "asked for once");
    size_t with_code = told_free();
    OK(ask_all());
    expect_free(with_code, "asked for again");
    ask_beside_allocations(with_code);
    unload_all();
    expect_free(whole, "after unloading");

    pthread_barrier_init(&together, NULL, THREADS);
    for (int round = 0; round < rounds; round++)
        ask_together(with_code);
    expect_free(whole, "after unloading again");

    load_all();
    OK(cuMemAlloc(&rest, told_free()));
    expect(ask_all(), CUDA_ERROR_OUT_OF_MEMORY, "code that does not fit");
    expect(ask_all(), CUDA_ERROR_OUT_OF_MEMORY, "code that does not fit, asked for again");
    OK(cuMemFree(rest));
    OK(ask_all());
    expect_free(with_code, "once there is room");
    unload_all();
    expect_free(whole, "in the end");

#if CUDA_VERSION >= 12000
    CUlibrary library[MODULES];
    CUkernel kernel;
    CUfunction function;
    CUmodule module;
    for (int i = 0; i < MODULES; i++)
        OK(cuLibraryLoadData(&library[i], image, NULL, NULL, 0, NULL, NULL, 0));
    for (int i = 0; i < MODULES * LARGE_CODE_KERNELS; i++)
        OK(cuLibraryGetKernel(&kernel, library[i / LARGE_CODE_KERNELS], large_code_names[i % LARGE_CODE_KERNELS]));
    expect_code(whole, "asked of a library");
    size_t with_kernels = told_free();
    OK(cuKernelGetFunction(&function, kernel));
    OK(cuLibraryGetModule(&module, library[0]));
    OK(cuModuleGetFunction(&function, module, large_code_names[0]));
    expect_free(with_kernels, "asked of its module as well");
    for (int i = 0; i < MODULES; i++)
        OK(cuLibraryUnload(library[i]));
    expect_free(whole, "after unloading the libraries");
    OK(cuLibraryLoadData(&library[0], image, NULL, NULL, 0, NULL, NULL, 0));
    OK(cuLibraryGetModule(&module, library[0]));
    OK(cuModuleGetFunction(&function, module, large_code_names[0]));
    OK(cuLibraryUnload(library[0]));
    expect_free(whole, "after unloading a library whose module was asked");
    OK(cuLibraryLoadData(&library[0], image, NULL, NULL, 0, NULL, NULL, 0));
    OK(cuLibraryGetKernel(&kernel, library[0], large_code_names[0]));
    OK(cuKernelGetFunction(&function, kernel));
    OK(cuFuncGetModule(&module, function));
    OK(cuModuleGetFunction(&function, module, large_code_names[1]));
    OK(cuLibraryUnload(library[0]));
    expect_free(whole, "after unloading a library whose function told its module");
#endif
    return 0;
}
