// Libraries: modules that are not tied to a context, and their kernels.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdlib.h>
#include <unistd.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/module.h"

static CUresult load(CUlibrary *out, bool readable, const char *image)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !readable)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUlib_st *library = calloc(1, sizeof *library);
    rc = library ? variables_parse(image, &library->variables) : CUDA_ERROR_OUT_OF_MEMORY;
    if (!rc && !handle_add(library, HANDLE_LIBRARY)) {
        variables_free(library->variables);
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (rc) {
        free(library);
        return api_leave(rc);
    }
    *out = library;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit, void **jit_values, unsigned jit_count,
                           CUlibraryOption *options, void **values, unsigned count)
{
    CUresult rc = load(library, code && (!jit_count || jit) && (!count || options), code);

    (void)values;
    if (!rc)
        compile_log(jit_count, jit, jit_values);
    return rc;
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *jit, void **jit_values, unsigned jit_count,
                               CUlibraryOption *options, void **values, unsigned count)
{
    (void)jit_values;
    (void)values;
    if (path && access(path, R_OK))
        return api_ready() ? CUDA_ERROR_FILE_NOT_FOUND : CUDA_ERROR_NOT_INITIALIZED;
    return load(library, path && (!jit_count || jit) && (!count || options), NULL);
}

// The library's module in a context, NULL if it has none.
static struct CUmod_st *find_module(struct CUlib_st *library, struct CUctx_st *ctx)
{
    struct CUmod_st *module = ctx->modules;
    while (module && module->library != library)
        module = module->next;
    return module;
}

CUresult library_module(struct CUlib_st *library, struct CUctx_st *ctx, struct CUmod_st **module)
{
    *module = find_module(library, ctx);
    return *module ? CUDA_SUCCESS : module_new(ctx, library, library->variables, module);
}

CUresult cuLibraryUnload(CUlibrary library)
{
    struct device *device;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(library, HANDLE_LIBRARY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (int i = 0; (device = device_get(i)); i++) {
        for (struct CUctx_st *ctx = device->contexts; ctx; ctx = ctx->next) {
            struct CUmod_st *module = find_module(library, ctx);
            if (module)
                module_free(module);
        }
    }
    for (struct CUkern_st *kernel = library->kernels, *next; kernel; kernel = next) {
        next = kernel->next;
        handle_remove(kernel);
        free(kernel);
    }
    handle_remove(library);
    variables_free(library->variables);
    free(library);
    return api_leave(CUDA_SUCCESS);
}

static CUresult kernel_of(struct CUlib_st *library, const struct simgpu_kernel *code, struct CUkern_st **out)
{
    struct CUkern_st *kernel = library->kernels;

    while (kernel && kernel->kernel != code)
        kernel = kernel->next;
    if (!kernel) {
        kernel = calloc(1, sizeof *kernel);
        if (!kernel || !handle_add(kernel, HANDLE_KERNEL)) {
            free(kernel);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        *kernel = (struct CUkern_st){.next = library->kernels,
                                     .library = library,
                                     .kernel = code,
                                     .limits = {.max_dynamic_shared = DEVICE_SHARED_PER_BLOCK, .shared_carveout = -1}};
        library->kernels = kernel;
    }
    *out = kernel;
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !name || !*name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(library, HANDLE_LIBRARY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    const struct simgpu_kernel *code = device_library_find(name);
    return api_leave(code ? kernel_of(library, code, out) : CUDA_ERROR_NOT_FOUND);
}

CUresult cuLibraryGetKernelCount(unsigned *count, CUlibrary library)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(library, HANDLE_LIBRARY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (*count = 0; device_library_kernel(*count); (*count)++)
        ;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned count, CUlibrary library)
{
    const struct simgpu_kernel *code;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!kernels || !count)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(library, HANDLE_LIBRARY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (unsigned i = 0; i < count && !rc && (code = device_library_kernel(i)); i++)
        rc = kernel_of(library, code, &kernels[i]);
    return api_leave(rc);
}

CUresult cuLibraryGetModule(CUmodule *out, CUlibrary library)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(handle_is(library, HANDLE_LIBRARY) ? library_module(library, ctx, out) : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuLibraryGetGlobal(CUdeviceptr *ptr, size_t *bytes, CUlibrary library, const char *name)
{
    struct CUctx_st *ctx;
    struct CUmod_st *module;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(library, HANDLE_LIBRARY))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = library_module(library, ctx, &module);
    return api_leave(rc ? rc : variable_find(module, name, ptr, bytes));
}

// There are no managed variables.
CUresult cuLibraryGetManaged(CUdeviceptr *ptr, size_t *bytes, CUlibrary library, const char *name)
{
    CUresult rc = api_enter();

    (void)ptr;
    (void)bytes;
    if (rc)
        return rc;
    if (!name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(handle_is(library, HANDLE_LIBRARY) ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel)
{
    struct CUctx_st *ctx;
    struct CUmod_st *module;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = library_module(kernel->library, ctx, &module);
    if (!rc)
        rc = module_function(module, kernel->kernel->name, out);
    if (!rc)
        (*out)->limits = kernel->limits;
    return api_leave(rc);
}

CUresult cuKernelGetLibrary(CUlibrary *out, CUkernel kernel)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    *out = kernel->library;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuKernelGetName(const char **name, CUkernel kernel)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    *name = kernel->kernel->name;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *bytes)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(function_param_info(kernel->kernel, index, offset, bytes));
}

CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(device_get(dev) ? function_get_attribute(kernel->kernel, &kernel->limits, attribute, value)
                                     : CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel, CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(device_get(dev) ? function_set_attribute(&kernel->limits, attribute, value) : CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    CUresult rc = api_enter();

    (void)config;
    if (rc)
        return rc;
    if (!handle_is(kernel, HANDLE_KERNEL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(device_get(dev) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE);
}
