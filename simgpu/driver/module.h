// SPDX-License-Identifier: AGPL-3.0-or-later
// Modules, libraries and the functions in them. Needs the API lock.
//
// The image that a program loads says nothing here but for its global variables: every module and every library contains every kernel
// of every device library; the code of each takes what SIMGPU_CODE says from when it is first asked for or launched. Of an image that is PTX, the variables declared as `.global … .b8 NAME[BYTES]` exist, uninitialised.
// Functions belong to a module and die with it; kernels belong to a library, and each has one function in every
// context that asks.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_MODULE_H
#define SIMGPU_DRIVER_MODULE_H

#include "simgpu/device/kernel.h"
#include "simgpu/driver/api.h"

struct CUctx_st;

struct function_limits {
    int max_dynamic_shared;
    int shared_carveout;
};

// What the launches of CUDA before 4.0 find set in the function itself.
struct function_shape {
    struct simgpu_dim3 block;
    unsigned shared_bytes, param_bytes;
    char params[1024];
};

struct CUfunc_st {
    struct CUfunc_st *next; // in the module
    struct CUmod_st *module;
    const struct simgpu_kernel *kernel;
    uintptr_t code; // 0: not loaded yet
    struct function_limits limits;
    struct function_shape shape;
};

struct variable {
    struct variable *next;
    char name[64];
    size_t bytes;
    uintptr_t base; // in a module
};

struct CUmod_st {
    struct CUmod_st *next; // in ctx->modules
    struct CUctx_st *ctx;
    struct variable *variables;
    struct CUfunc_st *functions;
    struct CUlib_st *library; // whose per-context part this is, else NULL
};

struct CUkern_st {
    struct CUkern_st *next; // in the library
    struct CUlib_st *library;
    const struct simgpu_kernel *kernel;
    struct function_limits limits;
};

struct CUlib_st {
    struct variable *variables; // declared; every module of the library has its own
    struct CUkern_st *kernels;
};

// The variables that an image declares; and freeing such a list.
CUresult variables_parse(const char *image, struct variable **list);
void variables_free(struct variable *list);
// Finds one by name. CUDA_ERROR_NOT_FOUND where there is none.
CUresult variable_find(const struct CUmod_st *module, const char *name, CUdeviceptr *ptr, size_t *bytes);

// Writes what compiling has to say where the options want it, and how long that is in place of how long it may be.
void compile_log(unsigned count, const CUjit_option *options, void **values);
// A module of the context with memory for the variables declared.
CUresult module_new(struct CUctx_st *ctx, struct CUlib_st *library, const struct variable *declared, struct CUmod_st **module);
void module_free(struct CUmod_st *module);
// The module that a library has in a context, made where there is none.
CUresult library_module(struct CUlib_st *library, struct CUctx_st *ctx, struct CUmod_st **module);
// The function of a name, its code loaded.
CUresult module_function(struct CUmod_st *module, const char *name, struct CUfunc_st **function);
// Loads the code of what is about to be launched in a context: a function, or a kernel of a library.
CUresult function_load(struct CUctx_st *ctx, CUfunction handle);

// Accepts a function, or a kernel in its place, as launches do.
CUresult function_resolve(CUfunction handle, const struct simgpu_kernel **kernel, const struct function_limits **limits);

// The attribute calls, alike for functions and kernels.
CUresult function_get_attribute(const struct simgpu_kernel *kernel, const struct function_limits *limits,
                                CUfunction_attribute attribute, int *value);
CUresult function_set_attribute(struct function_limits *limits, CUfunction_attribute attribute, int value);

// Offset and size of a parameter in the buffer form of a launch. CUDA_ERROR_INVALID_VALUE behind the last one.
CUresult function_param_info(const struct simgpu_kernel *kernel, size_t index, size_t *offset, size_t *bytes);

// Device libraries: the kernel of a mangled name, NULL if no library has it; and all of them by number.
const struct simgpu_kernel *device_library_find(const char *name);
const struct simgpu_kernel *device_library_kernel(unsigned index);

#endif
