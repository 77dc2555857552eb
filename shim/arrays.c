// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/arrays.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/hash.h"
#include "shim/measure.h"
#include "shim/stream_table.h"
#include "shim/vmm.h"

// The driver packs allocations up to this size into blocks that it already has (H100, driver 580).
#define SMALL_BYTES (1ull << 20)

// Takes no memory when it is made.
#define WITHOUT_MEMORY (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)

// The small arrays of one context.
struct small {
    CUcontext context;
    uint32_t arrays;
    uint64_t bytes; // charged for all of them
    UT_hash_handle hh;
};

struct array {
    const void *handle;
    struct device *device;
    CUcontext context;
    uint64_t bytes; // charged for this one; 0: a small one
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct array *arrays;
static struct small *smalls;

void arrays_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    arrays = NULL;
    smalls = NULL;
}

static struct small *small_of(CUcontext context)
{
    struct small *small;
    HASH_FIND_PTR(smalls, &context, small);
    return small;
}

static bool enroll(struct array *array)
{
    HASH_ADD_PTR(arrays, handle, array);
    return array->hh.tbl != NULL;
}

// An array under way. Without a device, nothing is charged and the driver answers.
struct request {
    struct device *device;
    CUcontext context;
    uint64_t bytes; // as the driver will round them, or an estimate
    uint64_t taken;
    bool packed; // a small array: the source of its memory is measured
    struct measurement measurement;
    const char *function;
};

static unsigned channel_bytes(CUarray_format format)
{
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2;
    default: // and what is compressed or packed takes less
        return 4;
    }
}

// An estimate if the driver does not say: without its padding, and half as much again for a mipmapped array's smaller levels.
static uint64_t estimate(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels)
{
    uint64_t bytes =
        holdings_product(holdings_product(d->Width, d->Height ? d->Height : 1),
                         holdings_product(d->Depth ? d->Depth : 1, (uint64_t)channel_bytes(d->Format) * d->NumChannels));
    return levels > 1 ? bytes > UINT64_MAX / 3 * 2 ? UINT64_MAX : bytes + bytes / 2 : bytes;
}

// What an array of this description takes. `levels` is 0 for a plain one. *rc is the driver's answer to making one without
// memory.
static uint64_t required_bytes(const struct device *device, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels,
                               CUresult *rc)
{
    CUDA_ARRAY3D_DESCRIPTOR deferred = *descriptor;
    CUDA_ARRAY_MEMORY_REQUIREMENTS required = {0};
    CUarray array;
    CUmipmappedArray mipmapped;
    deferred.Flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    CUresult known = CUDA_ERROR_NOT_SUPPORTED;
    if (levels) {
        *rc = REAL(cuMipmappedArrayCreate)(&mipmapped, &deferred, levels);
        if (*rc == CUDA_SUCCESS) {
            known = REAL(cuMipmappedArrayGetMemoryRequirements)(&required, mipmapped, device->ordinal);
            REAL(cuMipmappedArrayDestroy)(mipmapped);
        }
    } else {
        *rc = REAL(cuArray3DCreate_v2)(&array, &deferred);
        if (*rc == CUDA_SUCCESS) {
            known = REAL(cuArrayGetMemoryRequirements)(&required, array, device->ordinal);
            REAL(cuArrayDestroy)(array);
        }
    }
    return known == CUDA_SUCCESS && required.size ? required.size : estimate(descriptor, levels);
}

// Takes the block that a small array may need; none if the quota is full and the array may still fit into one that is paid for.
static int take_packed(struct request *request)
{
    request->taken = HOLDINGS_BLOCK_BYTES;
    if (device_take(request->device, request->taken) == 0)
        return 0;
    request->taken = 0;
    pthread_mutex_lock(&mutex);
    const struct small *small = small_of(request->context);
    bool may_fit = small && small->bytes;
    pthread_mutex_unlock(&mutex);
    return may_fit ? 0 : -ENOMEM;
}

// CUDA_SUCCESS: ask the driver.
static CUresult begin(struct request *request, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels, const char *function)
{
    *request = (struct request){.function = function};
    struct device *device = device_current();
    if (!device)
        return device_absent();
    if (!descriptor || !descriptor->Width || descriptor->Flags & WITHOUT_MEMORY)
        return CUDA_SUCCESS;
    CUresult answer;
    CUstreamCaptureMode mode = capture_relax();
    request->bytes = required_bytes(device, descriptor, levels, &answer);
    capture_restore(mode);
    if (REAL(cuCtxGetCurrent)(&request->context) != CUDA_SUCCESS)
        request->context = NULL;
    request->device = device;
    request->packed = request->bytes <= SMALL_BYTES;
    if (!request->packed)
        request->taken = holdings_round_up(request->bytes, HOLDINGS_BLOCK_BYTES);
    if (request->packed ? take_packed(request) : device_take(device, request->taken)) {
        CUresult refusal = device_refuse(device, request->bytes, function);
        // What is wrong without memory is wrong with it, too. (A driver may also lack arrays without memory.)
        return answer == CUDA_ERROR_INVALID_VALUE || answer == CUDA_ERROR_INVALID_CONTEXT ? answer : refusal;
    }
    if (request->packed)
        measure_begin(&request->measurement, device, 0);
    return CUDA_SUCCESS;
}

// How much of the block taken for a small array stays charged: none if the driver took none. Under the mutex.
static int settle_packed(struct request *request, bool quiet, int64_t lost_bytes)
{
    struct small *small = small_of(request->context);
    if (!small) {
        small = calloc(1, sizeof *small);
        if (!small)
            return -ENOMEM;
        small->context = request->context;
        HASH_ADD_PTR(smalls, context, small);
        if (!small->hh.tbl) {
            free(small);
            return -ENOMEM;
        }
    }
    bool fitted = quiet && lost_bytes <= 0 && small->bytes;
    if (!request->taken && !fitted)
        return -ENOMEM;
    if (fitted)
        holdings_give(&request->device->holdings, request->taken);
    else
        small->bytes += request->taken;
    small->arrays++;
    return 0;
}

// Books an array that the driver has made on a device.
static CUresult book(struct request *request, void *handle, CUresult (*destroy)(void *handle), bool quiet, int64_t lost_bytes)
{
    struct device *device = request->device;
    int saved = errno, rc = -ENOMEM;
    struct array *array = calloc(1, sizeof *array);
    if (array) {
        *array = (struct array){handle, device, request->context, request->packed ? 0 : request->taken, .hh = {0}};
        pthread_mutex_lock(&mutex);
        rc = enroll(array) ? 0 : -ENOMEM;
        if (rc == 0 && request->packed && (rc = settle_packed(request, quiet, lost_bytes)))
            HASH_DEL(arrays, array);
        pthread_mutex_unlock(&mutex);
    }
    CUresult result = CUDA_SUCCESS;
    if (rc) {
        free(array);
        destroy(handle);
        holdings_give(&device->holdings, request->taken);
        result = device_refuse(device, request->bytes, request->function);
    }
    errno = saved;
    return result;
}

static CUresult end(struct request *request, CUresult result, void *handle, CUresult (*destroy)(void *handle))
{
    int64_t lost_bytes = 0;
    bool packed = request->device && request->packed;
    bool quiet = packed && measure_end(&request->measurement, &lost_bytes);
    if (request->device && result == CUDA_SUCCESS)
        result = book(request, handle, destroy, quiet, lost_bytes);
    else if (request->device)
        holdings_give(&request->device->holdings, request->taken);
    if (packed)
        measure_leave(&request->measurement);
    return result;
}

static CUresult destroy_plain(void *handle)
{
    return REAL(cuArrayDestroy)(handle);
}

static CUresult destroy_mipmapped(void *handle)
{
    return REAL(cuMipmappedArrayDestroy)(handle);
}

// The fields of a description in its widest form.
#define FLAT descriptor->Width, descriptor->Height, 0, descriptor->Format, descriptor->NumChannels, 0
#define DEEP                                                                                                                   \
    descriptor->Width, descriptor->Height, descriptor->Depth, descriptor->Format, descriptor->NumChannels, descriptor->Flags

// CREATES(name, (parameters), valid, fields, levels, destroy, arguments): a function that makes *array as *descriptor says.
// `valid`: whether it has everything else it needs to succeed.
#define CREATES(name, parameters, valid, fields, levels, destroy, ...)                                                         \
    CUresult name parameters                                                                                                   \
    {                                                                                                                          \
        struct request request;                                                                                                \
        CUresult rc = begin(&request, (valid) && descriptor ? &(CUDA_ARRAY3D_DESCRIPTOR){fields} : NULL, (levels), #name);     \
        if (rc != CUDA_SUCCESS)                                                                                                \
            return rc;                                                                                                         \
        rc = DEVICE_ASK(request.device, REAL(name)(__VA_ARGS__));                                                              \
        return end(&request, rc, rc == CUDA_SUCCESS ? *array : NULL, destroy);                                                 \
    }

CREATES(cuArrayCreate, (CUarray * array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor), array, FLAT, 0, destroy_plain, array,
        descriptor)
CREATES(cuArrayCreate_v2, (CUarray * array, const CUDA_ARRAY_DESCRIPTOR *descriptor), array, FLAT, 0, destroy_plain, array,
        descriptor)
CREATES(cuArray3DCreate, (CUarray * array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor), array, DEEP, 0, destroy_plain, array,
        descriptor)
CREATES(cuArray3DCreate_v2, (CUarray * array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor), array, DEEP, 0, destroy_plain, array,
        descriptor)
CREATES(cuMipmappedArrayCreate, (CUmipmappedArray * array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned int levels),
        (array && levels), DEEP, levels, destroy_mipmapped, array, descriptor, levels)

// The array leaves the books before the driver can reuse its handle.
static struct array *withdraw(const void *handle)
{
    struct array *array;
    pthread_mutex_lock(&mutex);
    HASH_FIND_PTR(arrays, &handle, array);
    if (array)
        HASH_DEL(arrays, array);
    pthread_mutex_unlock(&mutex);
    return array;
}

// One small array less: returns what it may have given back, of `freed` bytes that certainly came free. Under the mutex.
static uint64_t leave_small(CUcontext context, int64_t freed)
{
    struct small *small = small_of(context);
    if (!small)
        return 0;
    uint64_t spare = small->bytes > HOLDINGS_BLOCK_BYTES ? small->bytes - HOLDINGS_BLOCK_BYTES : 0;
    uint64_t bytes = freed > 0 ? (uint64_t)freed / HOLDINGS_BLOCK_BYTES * HOLDINGS_BLOCK_BYTES : 0;
    bytes = bytes < spare ? bytes : spare;
    small->bytes -= bytes;
    if (--small->arrays == 0) {
        bytes += small->bytes;
        HASH_DEL(smalls, small);
        free(small);
    }
    return bytes;
}

static CUresult destroy_array(void *handle, CUresult (*destroy)(void *handle))
{
    struct array *array = withdraw(handle);
    struct tile *tiles = vmm_withdraw_arrays(handle, NULL);
    bool packed = array && array->bytes == 0;
    struct measurement measurement;
    int64_t lost_bytes = 0;
    if (packed)
        measure_begin(&measurement, array->device, 0);
    CUresult rc = destroy(handle);
    bool quiet = packed && measure_end(&measurement, &lost_bytes);
    vmm_end_array(tiles, rc == CUDA_SUCCESS);
    if (!array)
        return rc;
    pthread_mutex_lock(&mutex);
    if (rc != CUDA_SUCCESS) {
        enroll(array);
    } else {
        uint64_t bytes = packed ? leave_small(array->context, quiet ? -lost_bytes : 0) : array->bytes;
        holdings_give(&array->device->holdings, bytes);
        free(array);
    }
    pthread_mutex_unlock(&mutex);
    if (packed)
        measure_leave(&measurement);
    return rc;
}

CUresult cuArrayDestroy(CUarray array)
{
    return destroy_array(array, destroy_plain);
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array)
{
    return destroy_array(array, destroy_mipmapped);
}

void arrays_drop_context(CUcontext context)
{
    struct array *array, *next;
    vmm_end_array(vmm_withdraw_arrays(NULL, context), true);
    pthread_mutex_lock(&mutex);
    HASH_ITER(hh, arrays, array, next)
    {
        if (array->context != context)
            continue;
        holdings_give(&array->device->holdings, array->bytes ? array->bytes : leave_small(context, 0));
        HASH_DEL(arrays, array);
        free(array);
    }
    pthread_mutex_unlock(&mutex);
}
