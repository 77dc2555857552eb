// SPDX-License-Identifier: AGPL-3.0-or-later
// How a public function fails: `return fail(-EINVAL, "...")` leaves the line for vgpu_detail and returns the number.
#ifndef VGPU_LIB_ERROR_H
#define VGPU_LIB_ERROR_H

#include <errno.h>

#include "base/error.h"
#include "shim/hooks.h"

extern __thread struct error error_of_thread __attribute__((visibility("hidden")));

#define fail(code, ...) error_set(&error_of_thread, (code), __VA_ARGS__)

// The same for what the driver said to the call named `call`; 0 for CUDA_SUCCESS.
int fail_driver(CUresult result, const char *call);

static inline void errno_restore(const int *saved)
{
    errno = *saved;
}

// At the beginning of every public function: errno is the program's.
#define KEEP_ERRNO __attribute__((cleanup(errno_restore), unused)) int errno_kept = errno

#endif
