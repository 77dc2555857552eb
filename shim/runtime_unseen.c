// SPDX-License-Identifier: AGPL-3.0-or-later
// Runtime layer: enforcement for a runtime whose driver calls do not pass the driver layer.
//
// It charges by what the program asks for, stream-ordered memory too: what the driver's pools keep beyond that is not seen.
#include "shim/runtime_api.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "allocator/allocations.h"
#include "base/hash.h"
#include "base/log.h"
#include "shim/context_table.h"

bool runtime_decide(struct runtime *runtime, cudaError_t result, unsigned calls)
{
    enum runtime_sight sight = RUNTIME_UNDECIDED;
    if (driver_layer_calls != calls) {
        atomic_compare_exchange_strong(&runtime->sight, &sight, RUNTIME_SEEN);
        return false;
    }
    if (result != cudaSuccess)
        return false;
    bool first = atomic_compare_exchange_strong(&runtime->sight, &sight, RUNTIME_UNSEEN);
    if (!first && sight == RUNTIME_SEEN)
        return false;
    int saved = errno;
    if (first)
        log_warn(
            "a CUDA runtime reaches the driver past the driver hooks (loaded with RTLD_DEEPBIND?): its memory and launches are "
            "limited at the runtime's own functions instead");
    if (!device_attached())
        cuInit(0); // the program has initialised CUDA, if out of sight; a refusal is logged, and leaves the process unattached
    errno = saved;
    return true;
}

// The device of the current context; NULL if there is none or the quota has no room for it. Such a runtime makes contexts
// current out of sight, primary ones: one more retain, through the hook, books and charges it.
static struct device *current_device(void)
{
    CUcontext context = NULL;
    unsigned int flags;
    int active = 0;
    device_forget_current();
    struct device *device = device_current();
    if (device && !context_primary(device) &&
        REAL(cuDevicePrimaryCtxGetState)(device->ordinal, &flags, &active) == CUDA_SUCCESS && active &&
        cuDevicePrimaryCtxRetain(&context, device->ordinal) != CUDA_SUCCESS)
        return NULL;
    return device;
}

bool runtime_charge_begin(struct runtime_charge *charge, struct runtime *runtime, size_t bytes)
{
    *charge = (struct runtime_charge){.runtime = runtime, .calls = driver_layer_calls};
    if (__builtin_expect(runtime_sight(runtime) != RUNTIME_UNSEEN, 1))
        return true;
    int saved = errno;
    struct device *device = current_device();
    bool fits = device && allocation_begin(&device->holdings, bytes, &charge->taken) == 0;
    if (fits)
        charge->holdings = &device->holdings;
    else if (device)
        device_refuse(device, bytes, "CUDA runtime");
    errno = saved;
    return fits;
}

cudaError_t runtime_charge_end(struct runtime_charge *charge, cudaError_t result, void **pointer, size_t bytes, bool async,
                               cudaStream_t stream)
{
    struct runtime *runtime = charge->runtime;
    if (__builtin_expect(runtime_sight(runtime) == RUNTIME_SEEN, 1))
        return result;
    if (result != cudaSuccess || bytes == 0) {
        if (charge->holdings)
            allocation_cancel(charge->holdings, charge->taken);
        else if (bytes != 0)
            runtime_decide(runtime, result, charge->calls);
        return result;
    }
    if (!charge->holdings && !runtime_decide(runtime, result, charge->calls))
        return result;
    int saved = errno;
    // Nothing was taken: the runtime was not known to be unseen when the call began.
    bool charged = charge->holdings || runtime_charge_begin(charge, runtime, bytes);
    if (charged) {
        struct allocation allocation = {.address = (uint64_t)(uintptr_t)*pointer,
                                        .bytes = bytes,
                                        .holdings = charge->holdings,
                                        .context = NULL};
        charged = allocation_commit(&allocation, charge->taken) == 0;
    }
    errno = saved;
    if (charged)
        return cudaSuccess;
    if (async)
        RUNTIME_REAL(runtime, cudaFreeAsync)(*pointer, stream);
    else
        RUNTIME_REAL(runtime, cudaFree)(*pointer);
    *pointer = NULL;
    return runtime_refuse(runtime);
}

// More than any GPU has: the runtime says that it is out of memory, and remembers it for cudaGetLastError().
cudaError_t runtime_refuse(struct runtime *runtime)
{
    void *pointer = NULL;
    if (!device_attached())
        return cudaErrorInitializationError;
    cudaError_t result = RUNTIME_REAL(runtime, cudaMalloc)(&pointer, SIZE_MAX / 4);
    return result == cudaSuccess ? cudaErrorMemoryAllocation : result;
}

// What was taken without an address, by its handle.
struct handle {
    const void *handle;
    struct holdings *holdings;
    uint64_t bytes;
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;

bool runtime_take(size_t bytes, struct holdings **holdings, uint64_t *taken)
{
    struct device *device = current_device();
    *taken = holdings_round_up(bytes, HOLDINGS_BLOCK_BYTES);
    if (!device)
        return false;
    *holdings = &device->holdings;
    bool fits = device_take(device, *taken) == 0;
    if (!fits)
        device_refuse(device, bytes, "CUDA runtime");
    return fits;
}

bool runtime_keep(const void *pointer, struct holdings *holdings, uint64_t taken)
{
    int saved = errno;
    bool kept = false;
    struct handle *handle = calloc(1, sizeof *handle);
    if (handle) {
        *handle = (struct handle){.handle = pointer, .holdings = holdings, .bytes = taken};
        pthread_mutex_lock(&mutex);
        HASH_ADD_PTR(handles, handle, handle);
        kept = handle->hh.tbl != NULL;
        pthread_mutex_unlock(&mutex);
    }
    if (!kept) {
        free(handle);
        holdings_give(holdings, taken);
    }
    errno = saved;
    return kept;
}

void runtime_give(const void *pointer)
{
    struct handle *handle;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(handles, &pointer, handle);
    if (handle)
        HASH_DEL(handles, handle);
    pthread_mutex_unlock(&mutex);
    if (handle && device_attached())
        holdings_give(handle->holdings, handle->bytes);
    free(handle);
}

bool runtime_turn_begin(struct runtime_turn *turn, void *stream, const void *function)
{
    struct device *device = current_device();
    if (!device)
        return false;
    *turn = (struct runtime_turn){.device = device, .stream = stream, .function = function};
    turn->pass = launch_enter(device, stream, function);
    return true;
}

void runtime_turn_end(const struct runtime_turn *turn)
{
    launch_leave(turn->device, turn->pass, turn->stream, turn->function);
}

void runtime_tell_current(size_t *free_bytes, size_t *total_bytes)
{
    struct device *device = current_device();
    if (!device)
        return;
    struct holdings_view view = device_view(device);
    *total_bytes = view.total_bytes;
    if (*free_bytes > view.free_bytes)
        *free_bytes = view.free_bytes;
}

void runtime_tell_total(int ordinal, size_t *total_bytes)
{
    struct device *device = device_of(ordinal);
    if (device)
        *total_bytes = device_view(device).total_bytes;
}

void runtime_end_context(void)
{
    struct device *device = current_device();
    if (device && context_primary(device))
        cuDevicePrimaryCtxReset_v2(device->ordinal);
}

void runtime_unseen_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    handles = NULL;
}
