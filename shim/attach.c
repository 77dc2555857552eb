// SPDX-License-Identifier: AGPL-3.0-or-later
// Attaching: what the program's first cuInit does. The process becomes a member of a virtual GPU on every GPU that it sees.
//
// Invariants
//  - Nothing happens before the program calls cuInit: no pool, no thread, no driver call.
//  - All or nothing: a refusal gives back its slot, memberships and mapping, and one line says why. A later cuInit tries again.
//    While refused, the hooks let nothing be allocated or launched.
//  - Once attached, further cuInit calls only ask the driver.
//  - A forked child is not attached, whatever its parent was; it attaches by its own cuInit.
//  - The program's errno and its stack of contexts are left as they were.
//
// What cuInit returns for a refusal:
//
//     CUDA_ERROR_INVALID_VALUE      an option that is not understood
//     CUDA_ERROR_SYSTEM_NOT_READY   a pool that cannot be made, opened, mapped, locked or that is full
//     CUDA_ERROR_OUT_OF_MEMORY      a quota that does not fit: not beside the other reservations, not on the GPU, or smaller
//                                   than a chunk or a context
//     CUDA_ERROR_NOT_PERMITTED      options that differ from those of the virtual GPU joined; no quota where one is required
//
// Thread safe. Lock order: first the attach mutex, then the pool lock, then all others.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "allocator/allocations.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "options/aliases.h"
#include "scheduler/agent.h"
#include "scheduler/policy.h"
#include "shim/api_door.h"
#include "shim/arrays.h"
#include "shim/calibrate.h"
#include "shim/context_table.h"
#include "shim/device.h"
#include "shim/gpu_ops.h"
#include "shim/graph_memory.h"
#include "shim/green.h"
#include "shim/heap_memory.h"
#include "shim/limits.h"
#include "shim/loader.h"
#include "shim/measure.h"
#include "shim/memory_pools.h"
#include "shim/modules.h"
#include "shim/newer.h"
#include "shim/nvml.h"
#include "shim/runtime.h"
#include "shim/stream_table.h"
#include "shim/vmm.h"

// A process that is killed keeps its reservation until the driver has taken it down, about a tenth of a second. Restarting it
// at once must not be refused for that.
#define RESERVATION_PATIENCE_NS (300 * NS_PER_MS)
#define RESERVATION_LOOK_NS (20 * NS_PER_MS)

#define MIB(bytes) ((unsigned long long)((bytes) >> 20))
#define GIB(bytes) ((double)(bytes) / (1ull << 30))

// options/ knows neither the pool nor the scheduler: they meet here.
_Static_assert(OPTIONS_NAME_BYTES <= POOL_NAME_BYTES, "a name that is understood fits");
_Static_assert((int)PRIORITY_NORMAL == POLICY_NORMAL && (int)PRIORITY_HIGH == POLICY_HIGH && (int)PRIORITY_LOW == POLICY_LOW,
               "a class means to the policy what it means to people");
_Static_assert(OPTIONS_MAX_DEVICES <= POOL_MAX_GPUS, "every device that has options fits");

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pool pool;
static bool handlers_registered; // inherited by a forked child, like the handlers
static pid_t attached_pid;       // whose state this is: in a child made by _Fork or clone no fork handler ran

// The state of one attempt, dropped as a whole if it is refused.
struct attempt {
    struct options options;
    uint32_t process;
    struct error error;
    CUresult refusal; // what cuInit will return
    bool outbid;      // refused for what others have reserved or hold now
};

static int refuse(struct attempt *attempt, CUresult refusal)
{
    attempt->refusal = refusal;
    return -1;
}

static void forget_parent(void)
{
    attached_pid = 0;
    pool_forget_after_fork(&pool);
    device_table_reset();
    allocations_reset();
    agent_reset();
    contexts_reset();
    context_hooks_reset();
    streams_reset();
    pools_reset();
    vmm_reset();
    arrays_reset();
    modules_reset();
    limits_reset();
    green_reset();
    graph_memory_reset();
    measure_reset();
    heap_memory_reset();
    runtime_unseen_reset();
    nvml_reset();
}

static void after_fork(void)
{
    pthread_mutex_init(&mutex, NULL);
    forget_parent();
}

static void at_exit(void)
{
    int saved = errno;
    // A child in the parent's address space (vfork) must not stop the parent's agent.
    if (device_attached() && getpid() == attached_pid)
        agent_stop();
    errno = saved;
}

// The quota in whole chunks that the options ask for on this device, 0 if none.
static int quota_of(struct attempt *attempt, const struct device *device, uint32_t gpu, uint64_t *chunks)
{
    char source[OPTIONS_SOURCE_BYTES];
    uint64_t chunk = pool.chunk_bytes;
    uint64_t context = context_bytes_or_usual(atomic_load(&pool.layout->gpus[gpu].context_bytes), device->physical_bytes);
    uint64_t bytes = options_memory_bytes(&attempt->options.memory[device->ordinal], device->physical_bytes);
    const struct option_memory *memory = &attempt->options.memory[device->ordinal];
    *chunks = bytes / chunk;
    if (!memory->bytes && !memory->millionths)
        return 0;
    options_source(OPTION_MEMORY, device->ordinal, source);
    if (*chunks == 0)
        error_set(&attempt->error, -ENOMEM, "%s is less than one chunk, which is %llu MiB in the pool %s", source, MIB(chunk),
                  pool.path);
    else if (bytes > device->physical_bytes || *chunks > pool.layout->gpus[gpu].total_chunks)
        error_set(&attempt->error, -ENOMEM, "%s is more than GPU %d (%s) has: %llu MiB", source, device->ordinal, device->name,
                  MIB(device->physical_bytes));
    else if (*chunks * chunk < context)
        error_set(&attempt->error, -ENOMEM, "%s is %llu MiB, and a context alone takes %llu MiB on GPU %d (%s)", source,
                  MIB(*chunks * chunk), MIB(context), device->ordinal, device->name);
    else
        return 0;
    return refuse(attempt, CUDA_ERROR_OUT_OF_MEMORY);
}

static int join(struct attempt *attempt, struct device *device, bool mps)
{
    int gpu = pool_gpu_enter(&pool, device->uuid, device->name, device->physical_bytes, &attempt->error);
    if (gpu < 0)
        return refuse(attempt, CUDA_ERROR_SYSTEM_NOT_READY);
    _Atomic uint64_t *context_bytes = &pool.layout->gpus[gpu].context_bytes;
    if (atomic_load(context_bytes) == 0)
        atomic_store(context_bytes, calibrate_context(device->ordinal));

    const struct options *options = &attempt->options;
    struct tenancy_request request = {
        .name = options->given[OPTION_NAME] ? options->name : NULL,
        .weight = options->weight,
        .limit_percent = options->limit_percent,
        .priority = options->given[OPTION_PRIORITY] ? &options->priority : NULL,
        .quantum_ns = options->given[OPTION_QUANTUM] ? &options->quantum_ns : NULL,
        .concurrency = options->concurrency,
        .mps = mps,
    };
    if (quota_of(attempt, device, (uint32_t)gpu, &request.quota_chunks))
        return -1;
    int vgpu = pool_vgpu_join(&pool, attempt->process, (uint32_t)gpu, &request, &attempt->error);
    attempt->outbid = vgpu == -ENOMEM;
    if (vgpu < 0)
        return refuse(attempt, vgpu == -ENOMEM   ? CUDA_ERROR_OUT_OF_MEMORY
                               : vgpu == -EEXIST ? CUDA_ERROR_NOT_PERMITTED
                                                 : CUDA_ERROR_SYSTEM_NOT_READY);
    // A joiner may leave the quota to the virtual GPU it joins, so that one's counts.
    if (options->require_quota && atomic_load(&pool.layout->vgpus[vgpu].quota_chunks) == 0) {
        error_set(&attempt->error, -EPERM, "%s=1 and no memory quota for GPU %d (%s): set %s",
                  option_table[OPTION_REQUIRE_QUOTA].variable, device->ordinal, device->name,
                  option_table[OPTION_MEMORY].variable);
        return refuse(attempt, CUDA_ERROR_NOT_PERMITTED);
    }
    holdings_init(&device->holdings, &pool, attempt->process, (uint32_t)gpu, (uint32_t)vgpu);
    return 0;
}

static int join_all(struct attempt *attempt, int count)
{
    for (CUdevice ordinal = 0; ordinal < count; ordinal++) {
        struct device *device = &device_table.devices[ordinal];
        struct identity identity;
        attempt->refusal = identify(ordinal, &identity);
        if (attempt->refusal != CUDA_SUCCESS)
            return error_set(&attempt->error, -1, "the driver does not describe GPU %d (error %d)", ordinal,
                             (int)attempt->refusal);
        memset(device, 0, sizeof *device);
        device->ordinal = ordinal;
        device->physical_bytes = identity.bytes;
        memcpy(device->uuid, identity.uuid, sizeof device->uuid);
        memcpy(device->name, identity.name, sizeof device->name);
        if (join(attempt, device, identity.mps))
            return -1;
    }
    return 0;
}

static int enter_pool(struct attempt *attempt, int count)
{
    char path[PATH_MAX];
    pool_default_path(path, attempt->options.pool);
    if (pool_open(&pool, path, attempt->options.chunk_bytes, &attempt->error))
        return refuse(attempt, CUDA_ERROR_SYSTEM_NOT_READY);
    int lock = pool_lock(&pool, POOL_LOCK_PATIENCE_NS, &attempt->error);
    if (lock < 0) {
        pool_close(&pool);
        return refuse(attempt, CUDA_ERROR_SYSTEM_NOT_READY);
    }
    pool_reap(&pool);
    int slot = pool_claim(&pool, &attempt->error);
    int rc = slot < 0 ? refuse(attempt, CUDA_ERROR_SYSTEM_NOT_READY) : 0;
    if (rc == 0) {
        attempt->process = (uint32_t)slot;
        rc = join_all(attempt, count);
        if (rc)
            pool_leave(&pool, attempt->process);
    }
    pool_unlock(lock);
    if (rc)
        pool_close(&pool);
    return rc;
}

static int enter_pool_patiently(struct attempt *attempt, int count)
{
    uint64_t deadline = clock_now_ns() + RESERVATION_PATIENCE_NS;
    int rc = enter_pool(attempt, count);
    while (rc && attempt->outbid && clock_now_ns() < deadline) {
        clock_sleep_ns(RESERVATION_LOOK_NS);
        attempt->outbid = false;
        rc = enter_pool(attempt, count);
    }
    return rc;
}

// Both fail only for want of memory. A fork would then leave the child with our state, so the attempt is refused.
static int register_handlers(struct attempt *attempt)
{
    if (!handlers_registered && (pthread_atfork(NULL, NULL, after_fork) || atexit(at_exit))) {
        error_set(&attempt->error, -ENOMEM, "out of memory");
        return refuse(attempt, CUDA_ERROR_OUT_OF_MEMORY);
    }
    handlers_registered = true;
    return 0;
}

static void announce(const struct device *device, const struct options *options)
{
    const struct holdings *holdings = &device->holdings;
    const struct pool_vgpu *vgpu = &pool.layout->vgpus[holdings->vgpu];
    struct holdings_view view = device_view(device);
    char memory[120];
    if (atomic_load(&vgpu->quota_chunks))
        snprintf(memory, sizeof memory, "quota %.2f GiB", GIB(view.total_bytes));
    else
        snprintf(memory, sizeof memory, "no quota%s: shares the %.2f GiB that nobody has reserved",
                 options->given[OPTION_MEMORY] ? ", since quotas are given for other GPUs" : "", GIB(view.total_bytes));
    // Class and limit are mentioned unless they are the defaults.
    uint32_t limit = atomic_load(&vgpu->limit_percent), priority = atomic_load(&vgpu->priority);
    char more[64] = "";
    size_t length = 0;
    if (limit)
        length = (size_t)snprintf(more, sizeof more, ", at most %u %% of its time", limit);
    if (priority != PRIORITY_NORMAL)
        snprintf(more + length, sizeof more - length, ", %s priority", priority_name(priority));
    log_info("%.*s on GPU %d (%s): %s, weight %u%s, pool %s", (int)POOL_NAME_BYTES, vgpu->name, device->ordinal, device->name,
             memory, atomic_load(&vgpu->weight), more, pool.path);
}

static void say_alias(const char *alias, const char *value, const char *option, bool used)
{
    if (used)
        log_info("%s=%s is taken as %s", alias, value, option);
    else
        log_info("%s is ignored, since %s is set", alias, option);
}

// Two copies would each make a virtual GPU and wait for each other at every launch.
static int refuse_second_copy(struct attempt *attempt)
{
    const void *other = loader_find(RTLD_NEXT, API_DOOR_NAME);
    if (!other)
        return 0;
    error_set(&attempt->error, -EEXIST, "the library is preloaded twice, also as %.300s: name one of them in LD_PRELOAD",
              loader_object(other)->l_name);
    return refuse(attempt, CUDA_ERROR_SYSTEM_NOT_READY);
}

static CUresult attach(unsigned int flags)
{
    static struct attempt attempt; // too large for a stack that may be small; guarded by the mutex
    int count = 0;
    attempt = (struct attempt){0};
    if (attached_pid && attached_pid != getpid())
        forget_parent();
    if (options_from_environment(&attempt.options, &attempt.error)) {
        refuse(&attempt, CUDA_ERROR_INVALID_VALUE);
        goto refused;
    }
    int reason = log_configure(attempt.options.log, attempt.options.log_file);
    if (reason) {
        error_set(&attempt.error, reason, "VGPU_LOG_FILE=%.200s cannot be opened: %s", attempt.options.log_file,
                  strerror(-reason));
        refuse(&attempt, CUDA_ERROR_INVALID_VALUE);
        goto refused;
    }
    if (refuse_second_copy(&attempt))
        goto refused;
    aliases_tell(&attempt.options, say_alias);
    const char *unknown = options_unknown_variable();
    if (unknown)
        log_warn("%.*s is not an option of this version and has no effect: see vgpu help env", (int)strcspn(unknown, "="),
                 unknown);
    CUresult rc = REAL(cuInit)(flags);
    if (rc == CUDA_SUCCESS)
        rc = REAL(cuDeviceGetCount)(&count);
    if (rc != CUDA_SUCCESS)
        return rc;
    newer_report();
    if (count < 1 || count > DEVICE_MAX) {
        error_set(&attempt.error, -ENODEV, "%d GPUs are visible and 1 to %d are supported: set CUDA_VISIBLE_DEVICES", count,
                  DEVICE_MAX);
        refuse(&attempt, CUDA_ERROR_SYSTEM_NOT_READY);
        goto refused;
    }
    if (register_handlers(&attempt) || enter_pool_patiently(&attempt, count))
        goto refused;
    for (int i = 0; i < count; i++) {
        struct device *device = &device_table.devices[i];
        const struct holdings *holdings = &device->holdings;
        gate_init(&device->gate, &pool, holdings->process, holdings->gpu, holdings->vgpu, &gpu_ops_cuda, device);
    }
    heap_memory_enable(attempt.options.chunk_allocator);
    attached_pid = getpid();
    device_table_publish(count);
    for (int i = 0; i < count; i++)
        announce(&device_table.devices[i], &attempt.options);
    return CUDA_SUCCESS;

refused:
    log_error("%s", attempt.error.text);
    return attempt.refusal;
}

CUresult cuInit(unsigned int flags)
{
    if (device_attached())
        return REAL(cuInit)(flags);
    int saved = errno, cancel = cancel_disable();
    driver_layer_seen();
    (void)REAL_EXISTS(cuInit); // finds the driver, if nobody has yet, before any lock is taken
    pthread_mutex_lock(&mutex);
    CUresult rc = device_attached() ? REAL(cuInit)(flags) : attach(flags);
    pthread_mutex_unlock(&mutex);
    cancel_restore(cancel);
    errno = saved;
    return rc;
}
