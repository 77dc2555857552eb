// SPDX-License-Identifier: AGPL-3.0-or-later
// context_grow MODULE: raised limits, kernels with large frames (MODULE holds simgpu/device/memkernels.cu), attached and green contexts: what they take is charged, refused where it does not fit, and given back.
#include "driver.h"

static size_t whole;

static size_t taken(void)
{
    return whole - told_free();
}

static CUcontext create(void)
{
    CUcontext context;
    OK(create_context(&context, 0));
    return context;
}

static void heap_grows(void)
{
    size_t before, now;
    OK(cuCtxGetLimit(&before, CU_LIMIT_MALLOC_HEAP_SIZE));
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before + 64 * MIB));
    OK(cuCtxGetLimit(&now, CU_LIMIT_MALLOC_HEAP_SIZE));
    if (now < before + 64 * MIB || taken() < 64 * MIB || taken() > now - before + 2 * MIB)
        fail("a heap that is 64 MiB larger takes %zu bytes", taken());
    EXPECT(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before + whole + 64 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, SIZE_MAX - 4096), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, before));
    expect_free(whole, "the heap as it was");
}

static size_t resident_threads(void)
{
    int multiprocessors, threads;
    OK(cuDeviceGetAttribute(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
    OK(cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 0));
    return (size_t)multiprocessors * (size_t)threads;
}

static void stack_grows(void)
{
    size_t before, resident = resident_threads();
    OK(cuCtxGetLimit(&before, CU_LIMIT_STACK_SIZE));
    OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, before + 1024));
    if (taken() < 1024 * resident || taken() > 1024 * resident + 8 * MIB)
        fail("1 KiB of stack for %zu threads takes %zu bytes", resident, taken());
    OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, before));
    expect_free(whole, "the stack as it was");
}

// Asked for, since it may be launched then.
static void frames_grow(CUcontext primary, const char *path)
{
    size_t limit;
    CUmodule module;
    CUfunction function;
    CUdeviceptr hog;
    CUcontext second = create();
    OK(cuCtxGetLimit(&limit, CU_LIMIT_STACK_SIZE));
    OK(cuModuleLoad(&module, path));
    OK(cuModuleGetFunction(&function, module, "heap_user"));
    size_t before = told_free(), bytes = (2048 - limit) * resident_threads();
    OK(cuMemAlloc(&hog, before - bytes / 2));
    size_t rest = told_free();
    EXPECT(cuModuleGetFunction(&function, module, "large_frame"), CUDA_ERROR_OUT_OF_MEMORY);
    if (function)
        fail("a function whose frames do not fit is given out");
    expect_free(rest, "frames that do not fit");
    OK(cuMemFree(hog));
    for (int round = 0; round < 2; round++) {
        OK(cuModuleGetFunction(&function, module, "large_frame"));
        size_t now = told_free();
        if (before - now < bytes || before - now > bytes + 8 * MIB)
            fail("frames of 2 KiB take %zu bytes where %zu are expected", before - now, bytes);
    }
    OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048));
    if (before - told_free() > bytes + 8 * MIB)
        fail("frames and a stack as large take %zu bytes", before - told_free());
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(primary));
    expect_free(whole, "a context with large frames is gone");
}

// The limit that would hold them may be lowered before the launch.
static void frames_below_the_limit_count(CUcontext primary, const char *path)
{
    size_t limit;
    CUmodule module;
    CUfunction function;
    CUcontext second = create();
    OK(cuCtxGetLimit(&limit, CU_LIMIT_STACK_SIZE));
    OK(cuModuleLoad(&module, path));
    size_t before = told_free(), bytes = (2048 - limit) * resident_threads();
    OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
    OK(cuModuleGetFunction(&function, module, "large_frame"));
    OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, limit));
    size_t now = told_free();
    if (before - now < bytes || before - now > bytes + 8 * MIB)
        fail("frames of 2 KiB below a limit that fell take %zu bytes where %zu are expected", before - now, bytes);
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(primary));
    expect_free(whole, "a context whose limit fell is gone");
}

static void growth_ends_with_the_context(CUcontext primary)
{
    size_t limit;
    CUcontext second = create();
    OK(cuCtxGetLimit(&limit, CU_LIMIT_MALLOC_HEAP_SIZE));
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit + 128 * MIB));
    OK(cuCtxDestroy(second));
    OK(cuCtxSetCurrent(primary));
    expect_free(whole, "a context with a large heap is gone");
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void detaching_ends_a_context(CUcontext primary)
{
    CUcontext context = create(), again;
    size_t with = taken();
    if (with < MIB)
        fail("a context takes %zu bytes", with);
    OK(cuCtxAttach(&again, 0));
    OK(cuCtxDetach(context));
    if (taken() != with)
        fail("a context that is attached once more takes %zu bytes", taken());
    OK(cuCtxDetach(context));
    OK(cuCtxSetCurrent(primary));
    expect_free(whole, "the last detach");
}
#pragma GCC diagnostic pop

// A green context keeps the primary one, and what is allocated in it is charged, and what grows by it.
static void green_contexts_keep_the_primary(const char *path)
{
    (void)path;
#if CUDA_VERSION >= 12040
    CUmodule module;
    CUfunction function;
    CUdevResource resource;
    CUdevResourceDesc description;
    CUgreenCtx green;
    CUcontext context, primary;
    CUdeviceptr address;
    OK(cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    OK(cuDevResourceGenerateDesc(&description, &resource, 1));
    OK(cuDevicePrimaryCtxRelease(0)); // the only one that holds it
    OK(cuGreenCtxCreate(&green, description, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    OK(cuCtxFromGreenCtx(&context, green));
    OK(cuCtxSetCurrent(context));
    size_t before = told_free();
    OK(cuMemAlloc(&address, 64 * MIB));
    expect_free(before - 64 * MIB, "an allocation in a green context");
    EXPECT(cuMemAlloc(&address, before), CUDA_ERROR_OUT_OF_MEMORY);
    size_t limit, rest = told_free();
    OK(cuCtxGetLimit(&limit, CU_LIMIT_MALLOC_HEAP_SIZE));
    if (cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit + before) == CUDA_SUCCESS)
        fail("a green context gets a heap that does not fit");
    if (cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit + 64 * MIB) == CUDA_SUCCESS && rest - told_free() < 64 * MIB)
        fail("a larger heap in a green context takes %zu bytes", rest - told_free());
    if (cuModuleLoad(&module, path) == CUDA_SUCCESS && cuModuleGetFunction(&function, module, "heap_user") == CUDA_SUCCESS) {
        rest = told_free();
        OK(cuModuleGetFunction(&function, module, "large_frame"));
        if (rest - told_free() < 16 * MIB)
            fail("large frames in a green context take %zu bytes", rest - told_free());
    }
    OK(cuCtxSetCurrent(NULL));
    OK(cuGreenCtxDestroy(green)); // and with it the primary context and what is in it
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
    expect_free(whole, "the green context is gone");
#endif
}

int main(int argc, char **argv)
{
    if (argc < 2)
        fail("usage: context_grow MODULE");
    CUcontext primary = start();
    whole = told_free();
    heap_grows();
    stack_grows();
    frames_grow(primary, argv[1]);
    frames_below_the_limit_count(primary, argv[1]);
    growth_ends_with_the_context(primary);
    detaching_ends_a_context(primary);
    green_contexts_keep_the_primary(argv[1]);
    return 0;
}
