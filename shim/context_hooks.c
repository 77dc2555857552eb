// SPDX-License-Identifier: AGPL-3.0-or-later
// Contexts: each is charged what it takes, from its creation to its end. And a thread's current context.
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "allocator/allocations.h"
#include "shim/arrays.h"
#include "shim/context_table.h"
#include "shim/green.h"
#include "shim/heap_memory.h"
#include "shim/memory_pools.h"
#include "shim/modules.h"
#include "shim/stream_table.h"

// Makes "is it active, then charge it" one step. Held while the driver makes or destroys a primary context, which it does one
// at a time itself.
static pthread_mutex_t primary_mutex = PTHREAD_MUTEX_INITIALIZER;

// Held while the books of a context are closed or opened. As soon as the driver has destroyed a context it may give the handle
// to another thread's: whichever comes first, the destroyer or the maker of the next one, closes the old one's books.
static pthread_mutex_t books_mutex = PTHREAD_MUTEX_INITIALIZER;

// How often the program has retained each primary context, less its releases. Never more than the driver's count.
static uint32_t primary_retains[DEVICE_MAX];

void context_hooks_reset(void)
{
    pthread_mutex_init(&primary_mutex, NULL);
    pthread_mutex_init(&books_mutex, NULL);
    memset(primary_retains, 0, sizeof primary_retains);
}

// A context under way.
struct creation {
    struct device *device; // NULL: no such device, or no place for the context, as the driver will say
    uint64_t bytes;
};

static CUresult creation_begin(struct creation *creation, const CUcontext *context, CUdevice ordinal, const char *function)
{
    *creation = (struct creation){.device = context ? device_of(ordinal) : NULL};
    if (!creation->device)
        return device_attached() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
    creation->bytes = device_context_bytes(creation->device);
    if (device_take(creation->device, creation->bytes))
        return device_refuse(creation->device, creation->bytes, function);
    return CUDA_SUCCESS;
}

// With the books mutex. Not retired: then it is the next one.
static void close_books(CUcontext context)
{
    if (!context_retired(context))
        return;
    streams_drop_context(context);
    arrays_drop_context(context);
    modules_drop_context(context);
    heap_memory_drop_context(context);
    allocations_drop_context(context);
    context_remove(context);
}

static void context_gone(CUcontext context)
{
    pthread_mutex_lock(&books_mutex);
    close_books(context);
    pthread_mutex_unlock(&books_mutex);
    pools_settle();
}

// Enters a context that the driver has made, or has it end again if there is no memory for the books.
static CUresult open_books(const struct creation *creation, CUcontext context, bool primary)
{
    int saved = errno;
    pthread_mutex_lock(&books_mutex);
    close_books(context);
    int rc = context_add(context, creation->device, creation->bytes, primary ? CONTEXT_PRIMARY : CONTEXT_CREATED);
    if (rc && primary)
        REAL(cuDevicePrimaryCtxRelease_v2)(creation->device->ordinal);
    else if (rc)
        REAL(cuCtxDestroy_v2)(context);
    pthread_mutex_unlock(&books_mutex);
    errno = saved;
    return rc ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUresult creation_end(const struct creation *creation, CUresult result, const CUcontext *context, bool primary)
{
    if (creation->device && result == CUDA_SUCCESS)
        result = open_books(creation, *context, primary);
    if (creation->device && result != CUDA_SUCCESS)
        holdings_give(&creation->device->holdings, creation->bytes);
    device_forget_current();
    return result;
}

// CREATES(name, (parameters), arguments): a function that makes `*context` on the device `ordinal`.
#define CREATES(name, parameters, ...)                                                                                         \
    CUresult name parameters                                                                                                   \
    {                                                                                                                          \
        struct creation creation;                                                                                              \
        CUresult rc = creation_begin(&creation, context, ordinal, #name);                                                      \
        if (rc != CUDA_SUCCESS)                                                                                                \
            return rc;                                                                                                         \
        rc = DEVICE_ASK(creation.device, REAL(name)(__VA_ARGS__));                                                             \
        return creation_end(&creation, rc, context, false);                                                                    \
    }

CREATES(cuCtxCreate, (CUcontext * context, unsigned int flags, CUdevice ordinal), context, flags, ordinal)
CREATES(cuCtxCreate_v2, (CUcontext * context, unsigned int flags, CUdevice ordinal), context, flags, ordinal)
CREATES(cuCtxCreate_v3, (CUcontext * context, CUexecAffinityParam *params, int count, unsigned int flags, CUdevice ordinal),
        context, params, count, flags, ordinal)
CREATES(cuCtxCreate_v4, (CUcontext * context, CUctxCreateParams *params, unsigned int flags, CUdevice ordinal), context, params,
        flags, ordinal)
// Contexts for graphics libraries are contexts like any others.
CREATES(cuGLCtxCreate, (CUcontext * context, unsigned int flags, CUdevice ordinal), context, flags, ordinal)
CREATES(cuGLCtxCreate_v2, (CUcontext * context, unsigned int flags, CUdevice ordinal), context, flags, ordinal)
CREATES(cuVDPAUCtxCreate,
        (CUcontext * context, unsigned int flags, CUdevice ordinal, uint32_t vdp_device, void *get_proc_address), context,
        flags, ordinal, vdp_device, get_proc_address)
CREATES(cuVDPAUCtxCreate_v2,
        (CUcontext * context, unsigned int flags, CUdevice ordinal, uint32_t vdp_device, void *get_proc_address), context,
        flags, ordinal, vdp_device, get_proc_address)

static CUresult destroy(CUcontext context, CUresult (*driver_destroy)(CUcontext))
{
    bool primary = false;
    bool retired = context_known(context, &primary) && !primary && context_retire(context);
    CUresult rc = driver_destroy(context);
    if (retired && rc == CUDA_SUCCESS)
        context_gone(context);
    else if (retired)
        context_revive(context);
    device_forget_current();
    return rc;
}

CUresult cuCtxDestroy(CUcontext context)
{
    return destroy(context, REAL(cuCtxDestroy));
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    return destroy(context, REAL(cuCtxDestroy_v2));
}

// cuCtxAttach and cuCtxDetach count the uses of a context made by the program; the last detach destroys it.
CUresult cuCtxAttach(CUcontext *context, unsigned int flags)
{
    CUresult rc = REAL(cuCtxAttach)(context, flags);
    if (rc == CUDA_SUCCESS)
        context_attach(*context, 1);
    return rc;
}

CUresult cuCtxDetach(CUcontext context)
{
    if (context_attach(context, 0) == 1)
        return destroy(context, REAL(cuCtxDetach));
    CUresult rc = REAL(cuCtxDetach)(context);
    if (rc == CUDA_SUCCESS)
        context_attach(context, -1);
    return rc;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice ordinal)
{
    struct creation creation;
    struct device *device = device_of(ordinal);
    CUresult rc;
    pthread_mutex_lock(&primary_mutex);
    if (device && context_primary(device)) {
        rc = REAL(cuDevicePrimaryCtxRetain)(context, ordinal);
        goto out;
    }
    rc = creation_begin(&creation, context, ordinal, __func__);
    if (rc != CUDA_SUCCESS)
        goto out;
    rc = DEVICE_ASK(creation.device, REAL(cuDevicePrimaryCtxRetain)(context, ordinal));
    rc = creation_end(&creation, rc, context, true);
out:
    if (device && rc == CUDA_SUCCESS)
        primary_retains[ordinal]++;
    pthread_mutex_unlock(&primary_mutex);
    return rc;
}

// A release that leaves other retains of the program ends nothing and must disturb nothing: a retired context's marks are lost.
static CUresult end_primary(CUdevice ordinal, CUresult (*driver_end)(CUdevice), bool at_once)
{
    struct device *device = device_of(ordinal);
    unsigned int flags;
    int active = 1;
    pthread_mutex_lock(&primary_mutex);
    CUcontext context = device ? context_primary(device) : NULL;
    bool last = context && (at_once || primary_retains[ordinal] <= 1);
    // Whether this call ends the context is known only afterwards: some retains may not have come through here. Until then
    // nobody uses it.
    if (last) {
        green_retire_device(device, true);
        context_retire(context);
    }
    CUresult rc = driver_end(ordinal);
    if (context && rc == CUDA_SUCCESS && !at_once && primary_retains[ordinal])
        primary_retains[ordinal]--;
    if (last && (REAL(cuDevicePrimaryCtxGetState)(ordinal, &flags, &active) != CUDA_SUCCESS || active)) {
        context_revive(context);
        green_retire_device(device, false);
    } else if (last) {
        context_gone(context);
        green_drop_device(device);
        primary_retains[ordinal] = 0;
    }
    pthread_mutex_unlock(&primary_mutex);
    device_forget_current();
    return rc;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal)
{
    return end_primary(ordinal, REAL(cuDevicePrimaryCtxRelease), false);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal)
{
    return end_primary(ordinal, REAL(cuDevicePrimaryCtxRelease_v2), false);
}

CUresult cuDevicePrimaryCtxReset(CUdevice ordinal)
{
    return end_primary(ordinal, REAL(cuDevicePrimaryCtxReset), true);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice ordinal)
{
    return end_primary(ordinal, REAL(cuDevicePrimaryCtxReset_v2), true);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    device_forget_current();
    return REAL(cuCtxSetCurrent)(context);
}

CUresult cuCtxPushCurrent(CUcontext context)
{
    device_forget_current();
    return REAL(cuCtxPushCurrent)(context);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    device_forget_current();
    return REAL(cuCtxPushCurrent_v2)(context);
}

CUresult cuCtxPopCurrent(CUcontext *context)
{
    device_forget_current();
    return REAL(cuCtxPopCurrent)(context);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    device_forget_current();
    return REAL(cuCtxPopCurrent_v2)(context);
}
