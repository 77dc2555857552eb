// Modules and their functions.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/module.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "simgpu/driver/capture.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/stream.h"
#include "simgpu/state/state.h"

static CUresult variable_place(struct CUmod_st *module, const struct variable *declared)
{
    struct allocation *allocation;
    struct variable *variable = calloc(1, sizeof *variable);
    CUresult rc =
        variable ? memory_alloc(module->ctx, ALLOCATION_DEVICE, declared->bytes, &allocation) : CUDA_ERROR_OUT_OF_MEMORY;

    if (rc) {
        free(variable);
        return rc;
    }
    *variable = *declared;
    variable->base = allocation->base;
    variable->next = module->variables;
    module->variables = variable;
    return CUDA_SUCCESS;
}

static void variables_release(struct CUmod_st *module)
{
    for (struct variable *variable = module->variables; variable; variable = variable->next) {
        struct allocation *allocation = range_find(variable->base);
        if (allocation)
            memory_free(allocation);
    }
    variables_free(module->variables);
}

CUresult module_new(struct CUctx_st *ctx, struct CUlib_st *library, const struct variable *declared, struct CUmod_st **out)
{
    CUresult rc = context_grow_for_module(ctx);

    if (rc)
        return rc;
    struct CUmod_st *module = calloc(1, sizeof *module);
    if (!module || !handle_add(module, HANDLE_MODULE)) {
        free(module);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    module->ctx = ctx;
    module->library = library;
    module->next = ctx->modules;
    ctx->modules = module;
    for (; declared && !rc; declared = declared->next)
        rc = variable_place(module, declared);
    if (rc)
        module_free(module);
    else
        *out = module;
    return rc;
}

void module_free(struct CUmod_st *module)
{
    struct CUmod_st **link = &module->ctx->modules;

    while (*link != module)
        link = &(*link)->next;
    *link = module->next;
    for (struct CUfunc_st *function = module->functions, *next; function; function = next) {
        struct allocation *code = function->code ? range_find(function->code) : NULL;
        next = function->next;
        if (code)
            memory_free(code);
        handle_remove(function);
        free(function);
    }
    variables_release(module);
    handle_remove(module);
    free(module);
}

static CUresult function_of(struct CUmod_st *module, const struct simgpu_kernel *kernel, struct CUfunc_st **out)
{
    struct CUfunc_st *function = module->functions;

    while (function && function->kernel != kernel)
        function = function->next;
    if (!function) {
        function = calloc(1, sizeof *function);
        if (!function || !handle_add(function, HANDLE_FUNCTION)) {
            free(function);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        *function = (struct CUfunc_st){.next = module->functions,
                                       .module = module,
                                       .kernel = kernel,
                                       .limits = {.max_dynamic_shared = DEVICE_SHARED_PER_BLOCK, .shared_carveout = -1}};
        module->functions = function;
    }
    *out = function;
    return CUDA_SUCCESS;
}

static CUresult code_place(struct CUfunc_st *function)
{
    struct allocation *allocation;

    if (function->code || !state_file()->code_bytes)
        return CUDA_SUCCESS;
    CUresult rc = memory_alloc(function->module->ctx, ALLOCATION_DEVICE, state_file()->code_bytes, &allocation);
    if (!rc)
        function->code = allocation->base;
    return rc;
}

CUresult module_function(struct CUmod_st *module, const char *name, struct CUfunc_st **function)
{
    const struct simgpu_kernel *kernel = device_library_find(name);
    CUresult rc = kernel ? function_of(module, kernel, function) : CUDA_ERROR_NOT_FOUND;
    return rc ? rc : code_place(*function);
}

CUresult function_load(struct CUctx_st *ctx, CUfunction handle)
{
    struct CUkern_st *kernel = (struct CUkern_st *)(void *)handle;
    struct CUmod_st *module;

    if (handle_is(handle, HANDLE_FUNCTION))
        return code_place(handle);
    if (!handle_is(kernel, HANDLE_KERNEL) || !state_file()->code_bytes)
        return CUDA_SUCCESS;
    CUresult rc = library_module(kernel->library, ctx, &module);
    return rc ? rc : module_function(module, kernel->kernel->name, &handle);
}

void compile_log(unsigned count, const CUjit_option *options, void **values)
{
    static const char text[] = "nothing to compile\n";
    char *buffer = NULL;
    void **room = NULL;

    for (unsigned i = 0; i < count; i++) {
        if (options[i] == CU_JIT_INFO_LOG_BUFFER)
            buffer = values[i];
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES)
            room = &values[i];
    }
    if (!buffer || !room || !*room)
        return;
    size_t bytes = (size_t)*room < sizeof text ? (size_t)*room : sizeof text;
    memcpy(buffer, text, bytes - 1);
    buffer[bytes - 1] = '\0';
    *room = (void *)(bytes - 1); // the terminator is no message
}

static CUresult load(CUmodule *out, bool readable, const char *image)
{
    struct CUctx_st *ctx;
    struct variable *declared;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!out || !readable)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    // Loading may allocate and synchronise, as far as a program can know.
    rc = capture_check_unsafe();
    if (!rc)
        rc = variables_parse(image, &declared);
    if (rc)
        return api_leave(rc);
    rc = module_new(ctx, NULL, declared, out);
    variables_free(declared);
    return api_leave(rc);
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    if (path && access(path, R_OK))
        return api_ready() ? CUDA_ERROR_FILE_NOT_FOUND : CUDA_ERROR_NOT_INITIALIZED;
    return load(module, path != NULL, NULL);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return load(module, image != NULL, image);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
    CUresult rc = load(module, image != NULL && (count == 0 || options != NULL), image);

    if (!rc)
        compile_log(count, options, values);
    return rc;
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return load(module, image != NULL, image);
}

CUresult cuModuleUnload(CUmodule module)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(module, HANDLE_MODULE) || module->library)
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    rc = capture_check_unsafe();
    if (rc)
        return api_leave(rc);
    stream_wait_context_idle(module->ctx);
    if (handle_is(module, HANDLE_MODULE))
        module_free(module);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !name || !*name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(module, HANDLE_MODULE))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    return api_leave(module_function(module, name, out));
}

CUresult cuModuleGetFunctionCount(unsigned *count, CUmodule module)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!count)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(module, HANDLE_MODULE))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (*count = 0; device_library_kernel(*count); (*count)++)
        ;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned count, CUmodule module)
{
    const struct simgpu_kernel *kernel;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!functions || !count)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (!handle_is(module, HANDLE_MODULE))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    for (unsigned i = 0; i < count && !rc && (kernel = device_library_kernel(i)); i++)
        rc = function_of(module, kernel, &functions[i]);
    return api_leave(rc);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *ptr, size_t *bytes, CUmodule module, const char *name)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if ((!ptr && !bytes) || !name)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(handle_is(module, HANDLE_MODULE) ? variable_find(module, name, ptr, bytes) : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}
