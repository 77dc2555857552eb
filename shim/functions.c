// SPDX-License-Identifier: AGPL-3.0-or-later
// Functions: when the program asks for one, its code is charged to its module or library (shim/modules.h), and the local memory
// that its frame needs to the context (shim/limits.h).
#include <string.h>

#include "shim/device.h"
#include "shim/limits.h"
#include "shim/modules.h"
#include "shim/stream_table.h"

// `rc` is the answer to a request for a function, `known` to one for its frame.
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

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    struct module_question question;
    module_question_begin(&question, module, name, name ? strlen(name) : 0);
    CUresult rc = REAL(cuModuleGetFunction)(function, module, name);
    CUresult answer = foresee_function(module_question_end(&question, rc, __func__), function, __func__);
    if (rc == CUDA_SUCCESS && answer != CUDA_SUCCESS)
        *function = NULL;
    return answer;
}

// Loads the code of a library's kernel in the current context, and gives the function there. *loaded: whether the driver did.
static CUresult load_kernel(CUfunction *function, CUkernel kernel, CUlibrary library, bool *loaded, const char *name)
{
    CUmodule module;
    struct module_question question;
    module_question_begin(&question, library, &kernel, sizeof kernel);
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuKernelGetFunction)(function, kernel);
    capture_restore(mode);
    *loaded = rc == CUDA_SUCCESS;
    // The program can ask a function for its module, and the module for more.
    if (*loaded && question.device && REAL(cuFuncGetModule)(&module, *function) == CUDA_SUCCESS)
        module_of_library(module, library);
    return module_question_end(&question, rc, name);
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    bool loaded;
    CUlibrary library = NULL; // stays NULL with drivers before 12.5, where whoever asked for the kernel was charged
    (void)REAL(cuKernelGetLibrary)(&library, kernel);
    CUresult rc = load_kernel(function, kernel, library, &loaded, __func__);
    rc = foresee_function(rc, function, __func__);
    if (loaded && rc != CUDA_SUCCESS)
        *function = NULL;
    return rc;
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    int frame = 0;
    bool loaded;
    CUfunction function;
    CUresult rc = REAL(cuLibraryGetKernel)(kernel, library, name);
    const struct device *device = rc == CUDA_SUCCESS ? device_current() : NULL;
    if (!device)
        return rc;
    // The first launch would load the code, when it is too late to refuse. The launch will report what is wrong with the kernel
    // itself.
    if (load_kernel(&function, *kernel, library, &loaded, __func__) == CUDA_ERROR_OUT_OF_MEMORY)
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    CUresult known = REAL(cuKernelGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *kernel, device->ordinal);
    rc = foresee(rc, known, frame, __func__);
    if (rc != CUDA_SUCCESS)
        *kernel = NULL;
    return rc;
}
