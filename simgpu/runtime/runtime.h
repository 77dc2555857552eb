// What the entry points of the runtime share: their beginning, their end, and the state of thread and process.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// An entry point begins with runtime_enter (or runtime_init, if it needs no context) and ends with runtime_leave, which
// remembers the error for cudaGetLastError. Results of the driver are passed on unchanged: CUresult and cudaError_t have equal
// values. Locks: the one in context.c guards the primary contexts, the one in registry.c what programs have registered. Neither
// is held when the other is taken; both may be held while the driver is called.
#ifndef SIMGPU_RUNTIME_RUNTIME_H
#define SIMGPU_RUNTIME_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simgpu/runtime/driver.h"

#define RUNTIME_MAX_DEVICES 64

// Defines an entry point and its twin for per-thread default streams. Both call name_any, whose first parameter is the table of
// driver functions to use.
#define TWIN(name, suffix, params, ...)                                                                                        \
    cudaError_t name params                                                                                                    \
    {                                                                                                                          \
        return name##_any(driver_table(DRIVER_LEGACY), __VA_ARGS__);                                                           \
    }                                                                                                                          \
    cudaError_t name##suffix params                                                                                            \
    {                                                                                                                          \
        return name##_any(driver_table(DRIVER_PER_THREAD), __VA_ARGS__);                                                       \
    }

// Loads and initialises the driver; no context.
cudaError_t runtime_init(void);

// Makes sure that the thread has a current context: its own, or the primary one of its device.
cudaError_t runtime_enter(void);

// Remembers an error, and passes it through.
cudaError_t runtime_leave(cudaError_t error);

// Calls a driver function with a current context: DRIVER(legacy, cuMemFree, pointer).
#define DRIVER(table, function, ...) runtime_leave(runtime_enter() ?: (cudaError_t)(table)->function(__VA_ARGS__))
#define LEGACY driver_table(DRIVER_LEGACY)

int context_device_count(void);
size_t context_total_bytes(int device); // as the driver said when it was loaded

// The device of the current context, or else the one that the thread has chosen.
int context_device(void);

// The kernel that a program means by `function`: the address of a stub that nvcc made, or a kernel itself.
cudaError_t registry_kernel(const void *function, cudaKernel_t *kernel);

// The reverse: the stub's address if there is one, else the kernel.
const void *registry_function(cudaKernel_t kernel);

// Lets registry_kernel accept a kernel that was got from a library.
cudaError_t registry_add_kernel(cudaKernel_t kernel);

// Address and size of the device variable whose host shadow is at `symbol`.
cudaError_t registry_symbol(const void *symbol, void **address, size_t *bytes);

#endif
