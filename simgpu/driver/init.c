// cuInit, the process-wide lock and the guard at every entry point.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "simgpu/driver/api.h"
#include "simgpu/driver/context.h"
#include "simgpu/driver/device.h"
#include "simgpu/state/state.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER;
static unsigned progress_waiters;
static _Atomic(CUresult) init_result = CUDA_ERROR_NOT_INITIALIZED;
// A page that the kernel zeroes in a forked child: whoever finds it zero after a successful cuInit is such a child, even if it
// was made by a system call that runs no atfork handlers.
static _Atomic(volatile unsigned char *) process_mark;
static _Thread_local bool in_host_function;

static bool is_forked_child(void)
{
    volatile unsigned char *mark = atomic_load_explicit(&process_mark, memory_order_acquire);
    return mark && !*mark;
}

bool api_ready(void)
{
    return atomic_load_explicit(&init_result, memory_order_acquire) == CUDA_SUCCESS && !is_forked_child();
}

CUresult api_enter(void)
{
    if (!api_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (in_host_function)
        return CUDA_ERROR_NOT_PERMITTED;
    api_lock();
    return CUDA_SUCCESS;
}

CUresult api_enter_context(struct CUctx_st **ctx)
{
    CUresult rc = api_enter();
    if (rc)
        return rc;
    rc = context_current(ctx);
    return rc ? api_leave(rc) : CUDA_SUCCESS;
}

CUresult api_leave(CUresult result)
{
    api_unlock();
    return result;
}

void api_lock(void)
{
    pthread_mutex_lock(&lock);
}

void api_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void api_wait(pthread_cond_t *condition, uint64_t deadline_ns)
{
    if (!deadline_ns) {
        pthread_cond_wait(condition, &lock);
        return;
    }
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000), .tv_nsec = (long)(deadline_ns % 1000000000)};
    pthread_cond_clockwait(condition, &lock, CLOCK_MONOTONIC, &deadline);
}

void api_wait_progress(void)
{
    progress_waiters++;
    pthread_cond_wait(&progress, &lock);
    progress_waiters--;
}

void api_progress(void)
{
    if (progress_waiters)
        pthread_cond_broadcast(&progress);
}

void api_set_in_host_function(bool inside)
{
    in_host_function = inside;
}

void api_log(const char *format, ...)
{
    const char *wanted = getenv("SIMGPU_LOG");
    char line[512];
    va_list args;

    if (!wanted || !*wanted || !strcmp(wanted, "0"))
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "simgpu: %s\n", line);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

// Threads of this library run until the process ends, so its code must stay even if the program closes it.
static void stay_loaded(void)
{
    Dl_info info;

    if (dladdr((const void *)&lock, &info))
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static CUresult initialise(void)
{
    volatile unsigned char *mark;
    int rc = state_open(true);

    if (rc) {
        fprintf(stderr, "simgpu: the shared state cannot be used: %s; check the SIMGPU_ variables or remove the state file\n",
                strerror(-rc));
        return rc == -ENOSPC || rc == -ENOMEM ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_OPERATING_SYSTEM;
    }
    mark = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mark == MAP_FAILED || madvise((void *)mark, 4096, MADV_WIPEONFORK))
        return CUDA_ERROR_OPERATING_SYSTEM;
    *mark = 1;
    atomic_store_explicit(&process_mark, mark, memory_order_release);
    if (state_file()->device_count == 0)
        return CUDA_ERROR_NO_DEVICE;
    stay_loaded();
    api_lock();
    device_init();
    return api_leave(device_get(0) ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE);
}

CUresult cuInit(unsigned int flags)
{
    if (is_forked_child())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (api_ready())
        return CUDA_SUCCESS;
    pthread_mutex_lock(&init_lock);
    // A failure is final, as it is for the real driver: the state file has been read once.
    CUresult rc = atomic_load(&init_result);
    if (rc == CUDA_ERROR_NOT_INITIALIZED) {
        rc = initialise();
        atomic_store_explicit(&init_result, rc, memory_order_release);
    }
    pthread_mutex_unlock(&init_lock);
    return rc;
}

CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = DRIVER_VERSION;
    return CUDA_SUCCESS;
}
