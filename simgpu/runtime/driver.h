// The driver as the runtime sees it: a table of functions, asked for by name and version.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Nothing is linked. libcuda.so.1 is opened at the first call, dlsym finds cuGetProcAddress_v2 in it, and that finds everything
// else, once as it is and once for per-thread default streams. A function that the driver lacks reports
// CUDA_ERROR_NOT_SUPPORTED.
#ifndef SIMGPU_RUNTIME_DRIVER_H
#define SIMGPU_RUNTIME_DRIVER_H

// With the internal switch the headers declare both variants of everything that has one for per-thread default streams, so that
// each definition here is checked; and names of driver functions are not macros.
#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

struct driver {
#define ROW(name, version) PFN_##name##_v##version name;
#include "simgpu/runtime/driver.def"
#undef ROW
};

enum driver_streams { DRIVER_LEGACY, DRIVER_PER_THREAD };

// Valid once driver_load has succeeded; never changes afterwards.
const struct driver *driver_table(enum driver_streams streams);

// What cudaGetDriverEntryPoint needs: the driver's own resolver.
CUresult driver_resolve(const char *name, void **function, int version, cuuint64_t flags,
                        CUdriverProcAddressQueryResult *status);

// Opens the driver, and initialises it. The result is the same for every call; thread-safe.
cudaError_t driver_load(void);

#endif
