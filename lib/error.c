// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/error.h"

#include <string.h>

#include "base/version.h"
#include "lib/api.h"

__thread struct error error_of_thread;

static const struct {
    int code;
    const char *text;
} meanings[] = {
    {0, "success"},
    {EINVAL, "an argument is not understood"},
    {ENOENT, "there is no such name, device or allocation"},
    {EEXIST, "the name is taken, or what was asked differs from what is there"},
    {ENOMEM, "the quota or the GPU has no room"},
    {ENODEV, "there is no such GPU, or no driver"},
    {ENOSPC, "the pool is full, or no more of these fit"},
    {ENOTSUP, "not supported"},
    {EFAULT, "the pointer is inside an allocation, not its beginning"},
    {EALREADY, "nothing is allocated there now"},
    {EAGAIN, "not possible right now"},
    {EBUSY, "it is in use"},
    {EDEADLK, "the call would wait for itself"},
    {ETIMEDOUT, "the time is up"},
    {ECANCELED, "the task was cancelled"},
    {ESHUTDOWN, "the virtual GPU is being destroyed"},
    {ECHILD, "the virtual GPU belongs to the parent of this process"},
    {EIO, "the CUDA driver reports an error"},
    {EPERM, "not permitted"},
    {ESTALE, "the pool was removed or replaced"},
    {EPROTO, "the pool has another layout version, or is damaged"},
};

VGPU_API const char *vgpu_strerror(int code)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].code == (code < 0 ? -code : code))
            return meanings[i].text;
    return "a system call failed";
}

VGPU_API const char *vgpu_detail(void)
{
    return error_of_thread.text;
}

VGPU_API const char *vgpu_version(void)
{
    return VGPU_VERSION;
}

static int code_of(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return -ENOMEM;
    case CUDA_ERROR_INVALID_VALUE:
    case CUDA_ERROR_INVALID_HANDLE:
        return -EINVAL;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_INVALID_DEVICE:
        return -ENODEV;
    case CUDA_ERROR_NOT_PERMITTED:
        return -EPERM;
    case CUDA_ERROR_NOT_SUPPORTED:
    case CUDA_ERROR_NOT_FOUND:
        return -ENOTSUP;
    default:
        return -EIO;
    }
}

int fail_driver(CUresult result, const char *call)
{
    const char *name = NULL;
    if (result == CUDA_SUCCESS)
        return 0;
    if (REAL(cuGetErrorName)(result, &name) != CUDA_SUCCESS || !name)
        name = "an unknown error";
    return fail(code_of(result), "%s: %s (%d)", call, name, (int)result);
}
