// Initialisation, devices' primary contexts, and the state of each thread.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct device {
    CUdevice handle;
    size_t total_bytes;
    CUcontext primary; // while retained, else NULL
    unsigned flags;
    bool has_flags;
};

static struct device devices[RUNTIME_MAX_DEVICES];
static int device_count;
static cudaError_t init_error;
static pid_t owner; // of the initialisation: a forked child must not end what its parent uses
static _Atomic bool unloading;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static _Thread_local int chosen_device;
static _Thread_local cudaError_t last_error;

// The driver is still there: handlers of exit run before any library's destructor.
static void at_exit(void)
{
    if (getpid() != owner)
        return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < device_count; i++) {
        if (devices[i].primary)
            LEGACY->cuDevicePrimaryCtxReset(devices[i].handle);
        devices[i].primary = NULL;
    }
    unloading = true;
    pthread_mutex_unlock(&lock);
}

static void init(void)
{
    owner = getpid();
    init_error = driver_load();
    if (!init_error)
        init_error = (cudaError_t)LEGACY->cuDeviceGetCount(&device_count);
    if (init_error)
        return;
    if (device_count > RUNTIME_MAX_DEVICES)
        device_count = RUNTIME_MAX_DEVICES;
    for (int i = 0; i < device_count && !init_error; i++) {
        init_error = (cudaError_t)LEGACY->cuDeviceGet(&devices[i].handle, i);
        if (!init_error)
            init_error = (cudaError_t)LEGACY->cuDeviceTotalMem(&devices[i].total_bytes, devices[i].handle);
    }
    if (!device_count)
        init_error = cudaErrorNoDevice;
    atexit(at_exit);
}

cudaError_t runtime_init(void)
{
    pthread_once(&once, init);
    return unloading ? cudaErrorCudartUnloading : init_error;
}

// The primary context of a device, retained once for the process.
static cudaError_t retain(int device, CUcontext *context)
{
    struct device *d = &devices[device];
    CUresult rc = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    if (!d->primary && d->has_flags)
        rc = LEGACY->cuDevicePrimaryCtxSetFlags(d->handle, d->flags);
    if (!d->primary && !rc)
        rc = LEGACY->cuDevicePrimaryCtxRetain(&d->primary, d->handle);
    if (rc)
        d->primary = NULL;
    *context = d->primary;
    pthread_mutex_unlock(&lock);
    return (cudaError_t)rc;
}

static cudaError_t make_current(int device)
{
    CUcontext context;
    cudaError_t error = retain(device, &context);
    return error ? error : (cudaError_t)LEGACY->cuCtxSetCurrent(context);
}

cudaError_t runtime_enter(void)
{
    CUcontext current = NULL;
    cudaError_t error = runtime_init();

    if (error)
        return error;
    error = (cudaError_t)LEGACY->cuCtxGetCurrent(&current);
    // A thread whose primary context was reset by another one gets the new one.
    if (error == cudaErrorContextIsDestroyed)
        current = NULL;
    else if (error)
        return error;
    return current ? cudaSuccess : make_current(chosen_device);
}

// Errors after which the context, or the process, is of no use; every further call reports them.
static bool is_sticky(cudaError_t error)
{
    return error == cudaErrorECCUncorrectable || error == cudaErrorIllegalAddress || error == cudaErrorLaunchTimeout ||
           error == cudaErrorAssert || (error >= cudaErrorHardwareStackError && error <= cudaErrorLaunchFailure);
}

cudaError_t runtime_leave(cudaError_t error)
{
    if (error && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    if (!is_sticky(error))
        last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

int context_device_count(void)
{
    return device_count;
}

size_t context_total_bytes(int device)
{
    return devices[device].total_bytes;
}

int context_device(void)
{
    CUcontext current = NULL;
    CUdevice handle;

    if (LEGACY->cuCtxGetCurrent(&current) || !current)
        return chosen_device;
    if (LEGACY->cuCtxGetDevice(&handle))
        return chosen_device;
    for (int i = 0; i < device_count; i++)
        if (devices[i].handle == handle)
            return i;
    return chosen_device;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t error = runtime_init();

    if (!count)
        return runtime_leave(cudaErrorInvalidValue);
    *count = error ? 0 : device_count;
    return runtime_leave(error);
}

cudaError_t cudaGetDevice(int *device)
{
    cudaError_t error = runtime_init();

    if (!error && !device)
        error = cudaErrorInvalidValue;
    if (!error)
        *device = context_device();
    return runtime_leave(error);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t error = runtime_init();

    if (!error && (device < 0 || device >= device_count))
        error = cudaErrorInvalidDevice;
    if (!error) {
        chosen_device = device;
        error = make_current(device);
    }
    return runtime_leave(error);
}

cudaError_t cudaInitDevice(int device, unsigned device_flags, unsigned flags)
{
    CUcontext context;
    cudaError_t error = runtime_init();

    if (!error && (device < 0 || device >= device_count))
        error = cudaErrorInvalidDevice;
    if (!error && flags == cudaInitDeviceFlagsAreValid)
        error = (cudaError_t)LEGACY->cuDevicePrimaryCtxSetFlags(devices[device].handle, device_flags);
    return runtime_leave(error ? error : retain(device, &context));
}

cudaError_t cudaSetDeviceFlags(unsigned flags)
{
    cudaError_t error = runtime_init();

    if (error)
        return runtime_leave(error);
    struct device *d = &devices[context_device()];
    pthread_mutex_lock(&lock);
    // Host memory can always be mapped; the driver knows this flag as one for contexts only.
    d->flags = flags & ~(unsigned)cudaDeviceMapHost;
    d->has_flags = true;
    if (d->primary)
        error = (cudaError_t)LEGACY->cuDevicePrimaryCtxSetFlags(d->handle, d->flags);
    pthread_mutex_unlock(&lock);
    return runtime_leave(error);
}

cudaError_t cudaGetDeviceFlags(unsigned *flags)
{
    int active;
    cudaError_t error = runtime_init();

    if (!error && !flags)
        error = cudaErrorInvalidValue;
    if (!error)
        error = (cudaError_t)LEGACY->cuDevicePrimaryCtxGetState(devices[context_device()].handle, flags, &active);
    if (!error)
        *flags |= cudaDeviceMapHost;
    return runtime_leave(error);
}

cudaError_t cudaDeviceReset(void)
{
    cudaError_t error = runtime_init();

    if (error)
        return runtime_leave(error);
    struct device *d = &devices[context_device()];
    pthread_mutex_lock(&lock);
    error = (cudaError_t)LEGACY->cuDevicePrimaryCtxReset(d->handle);
    d->primary = NULL;
    pthread_mutex_unlock(&lock);
    if (!error)
        error = (cudaError_t)LEGACY->cuCtxSetCurrent(NULL);
    return runtime_leave(error);
}

cudaError_t cudaDeviceSynchronize(void)
{
#if CUDA_VERSION >= 13000
    CUcontext current = NULL;
    cudaError_t error = runtime_enter() ?: (cudaError_t)LEGACY->cuCtxGetCurrent(&current);
    return runtime_leave(error ? error : (cudaError_t)LEGACY->cuCtxSynchronize(current));
#else
    return DRIVER(LEGACY, cuCtxSynchronize);
#endif
}

cudaError_t cudaDriverGetVersion(int *version)
{
    if (!version)
        return runtime_leave(cudaErrorInvalidValue);
    *version = 0;
    // Without a driver the version is 0, and that is no error.
    if (driver_load() == cudaErrorInsufficientDriver)
        return cudaSuccess;
    return runtime_leave((cudaError_t)LEGACY->cuDriverGetVersion(version));
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    if (!version)
        return runtime_leave(cudaErrorInvalidValue);
    *version = CUDART_VERSION;
    return cudaSuccess;
}
