// SPDX-License-Identifier: AGPL-3.0-or-later
// Functions: the local memory that the frames of kernels need is charged when the program asks for them, see shim/limits.h.
#include "shim/device.h"
#include "shim/limits.h"

// `rc` is the answer to a question for a function, `known` that to one for its frame.
static CUresult foresee(CUresult rc, CUresult known, int frame_bytes, const char *function)
{
    return rc == CUDA_SUCCESS && known == CUDA_SUCCESS && frame_bytes > 0 ? limits_foresee_frame((size_t)frame_bytes, function)
                                                                          : rc;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    int frame = 0;
    CUresult rc = REAL(cuModuleGetFunction)(function, module, name);
    CUresult known = rc == CUDA_SUCCESS ? REAL(cuFuncGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *function) : rc;
    return foresee(rc, known, frame, __func__);
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    int frame = 0;
    CUresult rc = REAL(cuKernelGetFunction)(function, kernel);
    CUresult known = rc == CUDA_SUCCESS ? REAL(cuFuncGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *function) : rc;
    return foresee(rc, known, frame, __func__);
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    int frame = 0;
    CUresult rc = REAL(cuLibraryGetKernel)(kernel, library, name), known = rc;
    const struct device *device = rc == CUDA_SUCCESS ? device_current() : NULL;
    if (device)
        known = REAL(cuKernelGetAttribute)(&frame, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, *kernel, device->ordinal);
    return foresee(rc, known, frame, __func__);
}
