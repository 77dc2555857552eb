// SPDX-License-Identifier: AGPL-3.0-or-later
// How a public function fails: `return fail(-EINVAL, "...")` leaves the line for vgpu_detail and returns the number.
#ifndef VGPU_LIB_ERROR_H
#define VGPU_LIB_ERROR_H

#include <errno.h>

#include "base/error.h"
#include "shim/hooks.h"

extern __thread struct error error_of_thread __attribute__((visibility("hidden")));

// Leaves errno as it is. A macro, so that static analysis sees what it returns: it does not look into functions with variable arguments.
#define fail(code, ...)                                                                                                        \
    ({                                                                                                                         \
        int fail_code = (code), fail_errno = errno;                                                                            \
        error_set(&error_of_thread, fail_code, __VA_ARGS__);                                                                   \
        errno = fail_errno;                                                                                                    \
        fail_code;                                                                                                             \
    })

// For a NULL pointer where a result should go.
static inline int fail_no_result(void)
{
    return fail(-EINVAL, "there is no place for the result: it is NULL");
}

// The same for the driver's answer to the call named `call`; 0 for CUDA_SUCCESS.
int fail_driver(CUresult result, const char *call);

#endif
