// SPDX-License-Identifier: AGPL-3.0-or-later
// What every entry point of the simulated driver begins and ends with, and the one lock of the process.
//
// Lock order: there is one lock, taken by api_enter and released by api_leave. It guards every object of the driver: handles,
// contexts, streams and their queues, events, memory ranges, pools, graphs. The executor threads take it to choose and to
// complete an operation, and run the operation without it. Nothing under the lock waits for another process: the shared state
// is lock-free.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_API_H
#define SIMGPU_DRIVER_API_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h> // cuda.h includes it as well, but what it declares is not ours to export

// With the internal switch the header declares every exported variant under its own name, so each definition is checked against
// it. Protected visibility exports them and binds our own references here: a preloaded library that defines the same names must
// see calls of the program, never those of the driver to itself.
#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#pragma GCC visibility push(protected)
#include <cuda.h>
#include <cudaTypedefs.h>
#pragma GCC visibility pop

#define DRIVER_VERSION 13000

// Defines an entry point and its per-thread-default-stream twin. Both call name_any with the twin's choice first.
#define TWIN_API(name, suffix, params, ...)                                                                                    \
    CUresult name params                                                                                                       \
    {                                                                                                                          \
        return name##_any(false, __VA_ARGS__);                                                                                 \
    }                                                                                                                          \
    CUresult name##suffix params                                                                                               \
    {                                                                                                                          \
        return name##_any(true, __VA_ARGS__);                                                                                  \
    }

struct CUctx_st;

// Takes the lock. Fails without it when cuInit has not succeeded in this process (a forked child's parent does not count), or
// when called from a host function, where the driver must not be used.
CUresult api_enter(void);

// api_enter for calls that need a current context, which it returns.
CUresult api_enter_context(struct CUctx_st **ctx);

// Releases the lock and passes the result through.
CUresult api_leave(CUresult result);

// The lock as seen by the executor and callback threads.
void api_lock(void);
void api_unlock(void);
// Waits on a condition with the lock held; `deadline_ns` of CLOCK_MONOTONIC, 0 for none.
void api_wait(pthread_cond_t *condition, uint64_t deadline_ns);

// Sleeps until some operation has completed, and wakes those who do. Both with the lock held.
void api_wait_progress(void);
void api_progress(void);

// Marks the calling thread as being inside a host function, where driver calls are refused.
void api_set_in_host_function(bool inside);

// True in a process whose cuInit has succeeded.
bool api_ready(void);

// A line on stderr when SIMGPU_LOG is set.
void api_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);

#endif
