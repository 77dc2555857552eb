// SPDX-License-Identifier: AGPL-3.0-or-later
// Functions: when the program asks for one, its code is charged to its module or library, see shim/modules.h, and the local memory that its
// frame needs to the context, see shim/limits.h.
#include "shim/device.h"
#include "shim/limits.h"
#include "shim/modules.h"
#include "shim/stream_table.h"

// `rc` is the answer to a question for a function, `known` that to one for its frame.
static CUresult foresee(CUresult rc, CUresult known, int frame_bytes, const char *function)
{
    return rc == CUDA_SUCCESS && known == CUDA_SUCCESS && frame_bytes > 0 ? limits_foresee_frame((size_t)frame_bytes, function)
                                                                          : rc;
}

static CUresult foresee_function(CUresult rc, const CUfunction *function, const char *name)
{
    int frame = 0;
    CUresult known = rc == CUDA_SUCCESS ? REAL(cuFuncGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *function) : rc;
    return foresee(rc, known, frame, name);
}

// Ends a load with the answer to the call that may have loaded code of `owner`.
static CUresult charged(struct module_load *load, CUresult rc, const void *owner, const char *name)
{
    CUresult fits = module_load_end(load, rc == CUDA_SUCCESS ? owner : NULL, name);
    return rc == CUDA_SUCCESS ? fits : rc;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    struct module_load load;
    module_load_begin(&load, MODULE_LOOK_UP_PATIENCE_NS);
    CUresult rc = REAL(cuModuleGetFunction)(function, module, name), fits = charged(&load, rc, module, __func__);
    if (rc == CUDA_SUCCESS && fits != CUDA_SUCCESS)
        *function = NULL;
    return foresee_function(fits, function, __func__);
}

// Loads the code of a kernel of a library in the current context, and gives the function there.
static CUresult load_kernel(CUfunction *function, CUkernel kernel, CUlibrary library, const char *name)
{
    struct module_load load;
    module_load_begin(&load, MODULE_LOOK_UP_PATIENCE_NS);
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuKernelGetFunction)(function, kernel);
    capture_restore(mode);
    CUresult fits = charged(&load, rc, library, name);
    if (rc == CUDA_SUCCESS && fits != CUDA_SUCCESS)
        *function = NULL;
    return fits;
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    CUlibrary library = NULL; // stays so with drivers before 12.5, where who asked for the kernel has been charged
    (void)REAL(cuKernelGetLibrary)(&library, kernel);
    return foresee_function(load_kernel(function, kernel, library, __func__), function, __func__);
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    int frame = 0;
    CUfunction function;
    CUresult rc = REAL(cuLibraryGetKernel)(kernel, library, name), known = rc;
    const struct device *device = rc == CUDA_SUCCESS ? device_current() : NULL;
    // The first launch would load the code, where it could not be refused. What is wrong with the kernel itself the launch will say.
    if (device && load_kernel(&function, *kernel, library, __func__) == CUDA_ERROR_OUT_OF_MEMORY) {
        *kernel = NULL;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (device)
        known = REAL(cuKernelGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *kernel, device->ordinal);
    return foresee(rc, known, frame, __func__);
}
