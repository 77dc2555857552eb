// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/memory_pools.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/hash.h"
#include "shim/stream_table.h"

// A pool grows in steps of this size, or by more if a single allocation needs it (H100, driver 580).
#define STEP_BYTES (32ull << 20)

// How long an allocation about to be refused waits for others from the same pool, most of which take microseconds.
#define OTHERS_PATIENCE_NS (20 * NS_PER_MS)
#define OTHERS_LOOK_NS (50 * NS_PER_US)

struct memory_pool {
    CUmemoryPool handle; // of a device's graph memory, which has none: the device
    bool graphs;
    uint64_t trims;        // of graph memory: how often it was given back, plus 1
    struct device *device; // NULL: its memory is not on a GPU and not charged
    uint64_t charged_bytes;
    uint64_t promised_bytes; // allocations under way, as asked for
    uint64_t growth_bytes;   // the most that these can make it grow by
    bool made;               // by the program, which can destroy it
    bool destroyed;          // by the program; the driver's pool lives until all that came from it is freed
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory_pool *memory_pools;
static _Atomic int charged_pools; // pools with a charge, for the early way out of pools_settle
static _Atomic int ending_pools;  // those that the program has destroyed among them, for the early way out of pool_exists

// The memory of a device's graphs behaves like a pool: it grows when a graph is launched, and keeps what it has until it is
// trimmed.
static uint64_t attribute(const struct memory_pool *pool, CUmemPool_attribute which, CUgraphMem_attribute graphs,
                          uint64_t fallback)
{
    cuuint64_t value;
    CUresult rc = pool->graphs ? REAL(cuDeviceGetGraphMemAttribute)(pool->device->ordinal, graphs, &value)
                               : REAL(cuMemPoolGetAttribute)(pool->handle, which, &value);
    return rc == CUDA_SUCCESS ? value : fallback;
}

static uint64_t reserved_bytes(const struct memory_pool *pool, uint64_t fallback)
{
    return attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, fallback);
}

static uint64_t used_bytes(const struct memory_pool *pool)
{
    return attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, 0);
}

static void trim(struct memory_pool *pool)
{
    if (pool->graphs) {
        REAL(cuDeviceGraphMemTrim)(pool->device->ordinal);
        pool->trims++;
    } else {
        REAL(cuMemPoolTrimTo)(pool->handle, 0);
    }
}

static void set_charge(struct memory_pool *pool, uint64_t bytes)
{
    atomic_fetch_add_explicit(&charged_pools, (bytes > 0) - (pool->charged_bytes > 0), memory_order_relaxed);
    pool->charged_bytes = bytes;
}

// The device whose default pool this is: pools that the program did not make belong to a device from the start.
static struct device *device_of_default(CUmemoryPool handle)
{
    for (CUdevice ordinal = 0; device_of(ordinal); ordinal++) {
        CUmemoryPool other;
        if (REAL(cuDeviceGetDefaultMemPool)(&other, ordinal) == CUDA_SUCCESS && other == handle)
            return device_of(ordinal);
    }
    return device_current();
}

// NULL: out of memory.
static struct memory_pool *enroll(CUmemoryPool handle, struct device *device)
{
    struct memory_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->handle = handle;
    pool->device = device;
    HASH_ADD_PTR(memory_pools, handle, pool);
    if (pool->hh.tbl)
        return pool;
    free(pool);
    return NULL;
}

static struct memory_pool *find(CUmemoryPool handle)
{
    struct memory_pool *pool;
    HASH_FIND_PTR(memory_pools, &handle, pool);
    return pool;
}

static void forget(struct memory_pool *pool)
{
    if (pool->device && pool->charged_bytes)
        holdings_give(&pool->device->holdings, pool->charged_bytes);
    set_charge(pool, 0);
    atomic_fetch_sub_explicit(&ending_pools, pool->destroyed, memory_order_relaxed);
    HASH_DEL(memory_pools, pool);
    free(pool);
}

// Brings the charge to what the pool has reserved, or down to what it can have reserved once the allocations under way are
// made: what they took beforehand may not be reserved yet, and they can bring back what is trimmed meanwhile. Returns 0, or
// -ENOMEM if the pool has grown by more than the quota has left.
static int settle(struct memory_pool *pool)
{
    uint64_t charged = pool->charged_bytes;
    uint64_t reserved = reserved_bytes(pool, charged);
    if (reserved > charged) {
        int rc = holdings_take_now(&pool->device->holdings, reserved - charged);
        if (rc)
            return rc;
        set_charge(pool, reserved);
    } else if (charged - reserved > pool->growth_bytes) {
        holdings_give(&pool->device->holdings, charged - reserved - pool->growth_bytes);
        set_charge(pool, reserved + pool->growth_bytes);
    }
    return 0;
}

static void settle_all(void)
{
    struct memory_pool *pool, *next;
    HASH_ITER(hh, memory_pools, pool, next)
    {
        if (!pool->device || !pool->charged_bytes)
            continue;
        if (pool->destroyed)
            trim(pool);
        settle(pool);
        if (pool->destroyed && pool->charged_bytes == 0) {
            REAL(cuMemPoolDestroy)(pool->handle);
            forget(pool);
        }
    }
}

void pools_settle(void)
{
    if (atomic_load_explicit(&charged_pools, memory_order_relaxed) == 0 || !device_attached())
        return;
    int saved = errno;
    CUstreamCaptureMode mode = capture_relax();
    pthread_mutex_lock(&mutex);
    settle_all();
    pthread_mutex_unlock(&mutex);
    capture_restore(mode);
    errno = saved;
}

static uint64_t charged_on(const struct device *device)
{
    uint64_t bytes = 0;
    for (const struct memory_pool *pool = memory_pools; pool; pool = pool->hh.next)
        bytes += pool->device == device ? pool->charged_bytes : 0;
    return bytes;
}

bool pools_reclaim(struct device *device)
{
    if (atomic_load_explicit(&charged_pools, memory_order_relaxed) == 0)
        return false;
    CUstreamCaptureMode mode = capture_relax();
    pthread_mutex_lock(&mutex);
    uint64_t before = charged_on(device);
    for (struct memory_pool *pool = memory_pools; pool; pool = pool->hh.next)
        if (pool->device == device && pool->charged_bytes)
            trim(pool);
    settle_all();
    bool reclaimed = charged_on(device) < before;
    pthread_mutex_unlock(&mutex);
    capture_restore(mode);
    return reclaimed;
}

void pools_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    memory_pools = NULL;
    atomic_store(&charged_pools, 0);
    atomic_store(&ending_pools, 0);
}

// The most by which an allocation of `bytes` can make the pool grow.
static uint64_t growth_of(const struct memory_pool *pool, uint64_t bytes)
{
    return holdings_round_up(bytes, pool->graphs ? HOLDINGS_BLOCK_BYTES : STEP_BYTES);
}

// Takes what an allocation of `bytes` from the pool can make it grow by: nothing if it fits into what the pool has, which the
// driver cannot promise (fragments), so the end checks again. The driver goes on counting memory freed by cuMemFree as used
// (580), so more may be unused than it seems, never less.
static int take(struct memory_pool *pool, uint64_t bytes)
{
    uint64_t reserved = reserved_bytes(pool, 0);
    uint64_t used = used_bytes(pool);
    uint64_t unused = reserved > used ? reserved - used : 0;
    if (unused >= pool->promised_bytes && unused - pool->promised_bytes >= bytes)
        return 0;
    uint64_t step = growth_of(pool, bytes);
    int rc = holdings_take_now(&pool->device->holdings, step);
    if (rc == 0)
        set_charge(pool, pool->charged_bytes + step);
    return rc;
}

// An allocation from a pool, under way.
struct request {
    struct memory_pool *pool; // NULL: nothing is charged
    struct device *device;    // the pool's, whichever is current
    uint64_t bytes;
    uint64_t growth_bytes;  // the most by which it can make the pool grow
    bool others;            // were under way when this request began, or was refused
    uint64_t backed, trims; // of a graph: the pool's trims when it last had its memory, and when this request began
    const char *function;
};

static struct memory_pool *graph_pool(struct device *device)
{
    struct memory_pool *pool = find((CUmemoryPool)(void *)device);
    if (!pool)
        pool = enroll((CUmemoryPool)(void *)device, device);
    if (pool && !pool->graphs) {
        pool->graphs = true;
        pool->trims = 1;
    }
    return pool;
}

// Whether the driver knows the pool. It will refuse an allocation from one that it does not, such as one that was destroyed.
static bool exists(CUmemoryPool handle)
{
    cuuint64_t value;
    return REAL(cuMemPoolGetAttribute)(handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value) == CUDA_SUCCESS;
}

// `handle` NULL: the memory of the device's graphs.
static int try_begin(struct request *request, CUmemoryPool handle, struct device *device)
{
    int rc = -ENOMEM;
    pthread_mutex_lock(&mutex);
    struct memory_pool *pool = handle ? find(handle) : graph_pool(device);
    bool unknown = !pool && handle && !exists(handle);
    if (!pool && handle && !unknown)
        pool = enroll(handle, device_of_default(handle));
    request->pool = pool && pool->device ? pool : NULL;
    request->device = request->pool ? pool->device : NULL;
    request->others = request->pool && pool->growth_bytes > 0;
    // Even if a graph has its memory: what is trimmed before the end of the launch comes back.
    if (pool && !request->growth_bytes)
        request->growth_bytes = growth_of(pool, request->bytes);
    if (pool && pool->graphs && request->backed == pool->trims)
        request->bytes = 0;
    if (pool && pool->graphs)
        request->trims = pool->trims;
    if (pool || unknown)
        rc = request->pool ? take(pool, request->bytes) : 0;
    if (rc == 0 && request->pool) {
        pool->promised_bytes += request->bytes;
        pool->growth_bytes += request->growth_bytes;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

// After a refusal: whether others were under way, which may turn out not to need what they took. Then sleeps a little.
// *deadline_ns starts at 0.
static bool await_others(const struct request *request, uint64_t *deadline_ns)
{
    uint64_t now = clock_now_ns();
    if (*deadline_ns == 0)
        *deadline_ns = now + OTHERS_PATIENCE_NS;
    if (!request->others || now >= *deadline_ns)
        return false;
    int cancel = cancel_disable();
    clock_sleep_ns(OTHERS_LOOK_NS);
    cancel_restore(cancel);
    return true;
}

// With request->bytes, ->backed and ->function set.
static CUresult begin(struct request *request, CUmemoryPool handle, struct device *device)
{
    int saved = errno;
    uint64_t deadline_ns = 0;
    CUstreamCaptureMode mode = capture_relax();
    int rc = try_begin(request, handle, device);
    if (request->device)
        device = request->device;
    if (rc && device_reclaim(device))
        rc = try_begin(request, handle, device);
    if (rc && holdings_reap(&device->holdings))
        rc = try_begin(request, handle, device);
    while (rc && await_others(request, &deadline_ns))
        rc = try_begin(request, handle, device);
    capture_restore(mode);
    errno = saved;
    return rc ? device_refuse(device, request->bytes, request->function) : CUDA_SUCCESS;
}

// Returns 0, or -ENOMEM if the pool has grown by more than the quota has left.
static int conclude(struct memory_pool *pool, uint64_t bytes, uint64_t growth_bytes)
{
    pthread_mutex_lock(&mutex);
    pool->promised_bytes -= bytes;
    pool->growth_bytes -= growth_bytes;
    int rc = settle(pool);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static CUresult end(const struct request *request, CUresult result, CUdeviceptr address, CUstream stream)
{
    if (!request->pool)
        return result;
    int saved = errno;
    CUstreamCaptureMode mode = capture_relax();
    int rc = conclude(request->pool, request->bytes, request->growth_bytes);
    if (rc && result == CUDA_SUCCESS) {
        // The pool has grown more than foreseen and the quota is full: the memory goes back, and with it what the pool grew by.
        REAL(cuMemFreeAsync)(address, stream);
        REAL(cuStreamSynchronize)(stream);
        pools_reclaim(request->device);
        result = device_refuse(request->device, request->bytes, request->function);
    }
    capture_restore(mode);
    errno = saved;
    return result;
}

// Whether the driver answers by itself: a call that cannot succeed, or that only becomes a node of a graph. Else *device is
// set, or *rc is the answer.
static bool forward(bool valid, CUstream stream, struct device **device, CUresult *rc)
{
    *rc = CUDA_SUCCESS;
    *device = device_behind(stream);
    if (!*device)
        *rc = device_absent();
    return *device && (!valid || capture_under_way(stream));
}

// Whether a pool exists for the program: not if it has destroyed the pool. Then the driver is to be asked about none instead,
// so that it refuses, and says what else is wrong in its own order.
static bool pool_exists(CUmemoryPool *handle)
{
    if (!*handle || atomic_load_explicit(&ending_pools, memory_order_relaxed) == 0)
        return *handle != NULL;
    pthread_mutex_lock(&mutex);
    const struct memory_pool *pool = find(*handle);
    if (pool && pool->destroyed)
        *handle = NULL;
    pthread_mutex_unlock(&mutex);
    return *handle != NULL;
}

static CUmemoryPool current_pool(const struct device *device)
{
    CUmemoryPool handle = NULL;
    REAL(cuDeviceGetMemPool)(&handle, device->ordinal);
    return handle;
}

// ALLOCATES(name, (parameters), valid, stream, pool, arguments): a function that allocates *pointer of `bytes` from `pool` in
// the order of `stream`. `valid`: whether it has the arguments it needs to succeed.
#define ALLOCATES(name, parameters, valid, stream, pool, ...)                                                                  \
    CUresult name parameters                                                                                                   \
    {                                                                                                                          \
        CUresult rc;                                                                                                           \
        struct device *device;                                                                                                 \
        struct request request = {.bytes = bytes, .function = #name};                                                          \
        if (forward((valid), (stream), &device, &rc))                                                                          \
            return REAL(name)(__VA_ARGS__);                                                                                    \
        if (rc == CUDA_SUCCESS)                                                                                                \
            rc = begin(&request, (pool), device);                                                                              \
        if (rc != CUDA_SUCCESS)                                                                                                \
            return rc;                                                                                                         \
        rc = DEVICE_ASK(request.device, REAL(name)(__VA_ARGS__));                                                              \
        return end(&request, rc, *pointer, (stream));                                                                          \
    }

ALLOCATES(cuMemAllocAsync, (CUdeviceptr * pointer, size_t bytes, CUstream stream), pointer &&bytes, stream,
          current_pool(device), pointer, bytes, stream)
ALLOCATES(cuMemAllocAsync_ptsz, (CUdeviceptr * pointer, size_t bytes, CUstream stream), pointer &&bytes, own_stream(stream),
          current_pool(device), pointer, bytes, stream)
ALLOCATES(cuMemAllocFromPoolAsync, (CUdeviceptr * pointer, size_t bytes, CUmemoryPool pool, CUstream stream),
          pointer &&bytes &&pool_exists(&pool), stream, pool, pointer, bytes, pool, stream)
ALLOCATES(cuMemAllocFromPoolAsync_ptsz, (CUdeviceptr * pointer, size_t bytes, CUmemoryPool pool, CUstream stream),
          pointer &&bytes &&pool_exists(&pool), own_stream(stream), pool, pointer, bytes, pool, stream)

CUresult cuMemPoolCreate(CUmemoryPool *handle, const CUmemPoolProps *properties)
{
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult rc = REAL(cuMemPoolCreate)(handle, properties);
    if (rc != CUDA_SUCCESS)
        return rc;
    int saved = errno;
    // A pool of managed memory may name no location; its memory comes to the GPU that uses it.
    struct device *device = properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE  ? device_of(properties->location.id)
                            : properties->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED ? device_current()
                                                                                      : NULL;
    pthread_mutex_lock(&mutex);
    struct memory_pool *pool = enroll(*handle, device);
    if (pool)
        pool->made = true;
    pthread_mutex_unlock(&mutex);
    if (!pool) {
        REAL(cuMemPoolDestroy)(*handle);
        rc = CUDA_ERROR_OUT_OF_MEMORY;
    }
    errno = saved;
    return rc;
}

// A pool with memory still in use lives on in the driver until that is freed, but can't be asked how much it is. So it is
// destroyed only as far as the program can see, and for good at the first synchronisation that finds it empty. Pools that the
// program did not make are not its to destroy, as the driver will say.
CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    bool postpone = false;
    CUdevice ordinal = 0;
    CUmemoryPool current, standard;
    CUstreamCaptureMode mode = capture_relax();
    pthread_mutex_lock(&mutex);
    struct memory_pool *pool = find(handle);
    bool again = pool && pool->destroyed;
    if (pool && pool->made && pool->charged_bytes && !again) {
        REAL(cuMemPoolTrimTo)(handle, 0);
        settle(pool);
        postpone = pool->destroyed = pool->charged_bytes > 0;
        atomic_fetch_add_explicit(&ending_pools, postpone, memory_order_relaxed);
        ordinal = pool->device->ordinal;
    }
    if (pool && !pool->destroyed && (pool->made || !pool->device))
        forget(pool);
    pthread_mutex_unlock(&mutex);
    capture_restore(mode);
    if (again)
        return CUDA_ERROR_INVALID_VALUE;
    if (!postpone)
        return REAL(cuMemPoolDestroy)(handle);
    // As in the driver: a device whose pool goes away returns to its default pool.
    if (REAL(cuDeviceGetMemPool)(&current, ordinal) == CUDA_SUCCESS && current == handle &&
        REAL(cuDeviceGetDefaultMemPool)(&standard, ordinal) == CUDA_SUCCESS)
        REAL(cuDeviceSetMemPool)(ordinal, standard);
    return CUDA_SUCCESS;
}

// Another process's pool, charged there: nothing can be allocated from it here.
CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *handle, void *shareable, CUmemAllocationHandleType type,
                                            unsigned long long flags)
{
    if (!device_attached())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult rc = REAL(cuMemPoolImportFromShareableHandle)(handle, shareable, type, flags);
    if (rc != CUDA_SUCCESS)
        return rc;
    int saved = errno;
    pthread_mutex_lock(&mutex);
    enroll(*handle, NULL);
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return rc;
}

CUresult pools_graph_begin(struct pools_graph *graph, struct device *device, uint64_t bytes, uint64_t backed)
{
    struct request request = {.bytes = bytes, .backed = backed, .function = "cuGraphLaunch"};
    CUresult rc = begin(&request, NULL, device);
    *graph = (struct pools_graph){rc == CUDA_SUCCESS ? request.pool : NULL, request.bytes, request.growth_bytes, request.trims};
    return rc;
}

int pools_graph_end(const struct pools_graph *graph)
{
    int saved = errno;
    CUstreamCaptureMode mode = capture_relax();
    int rc = conclude(graph->pool, graph->bytes, graph->growth_bytes);
    capture_restore(mode);
    errno = saved;
    return rc;
}

CUresult cuDeviceGraphMemTrim(CUdevice ordinal)
{
    struct device *device = device_of(ordinal);
    pthread_mutex_lock(&mutex);
    struct memory_pool *pool = device ? find((CUmemoryPool)(void *)device) : NULL;
    CUresult rc = REAL(cuDeviceGraphMemTrim)(ordinal);
    if (pool) {
        pool->trims++;
        settle(pool);
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t bytes_to_keep)
{
    pool_exists(&handle);
    CUresult rc = REAL(cuMemPoolTrimTo)(handle, bytes_to_keep);
    pools_settle();
    return rc;
}

CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool handle)
{
    pool_exists(&handle);
    return REAL(cuDeviceSetMemPool)(ordinal, handle);
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute which, void *value)
{
    pool_exists(&handle);
    return REAL(cuMemPoolGetAttribute)(handle, which, value);
}

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute which, void *value)
{
    pool_exists(&handle);
    return REAL(cuMemPoolSetAttribute)(handle, which, value);
}
