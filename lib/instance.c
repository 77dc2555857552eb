// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/instance.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "lib/tasks.h"
#include "options/options.h"
#include "pool/change.h"
#include "scheduler/agent.h"
#include "scheduler/notice.h"
#include "shim/stream_table.h"

// How often destruction checks whether the last call has returned.
#define CALLS_LOOK_NS (100 * NS_PER_US)

// What a program that knows an older version of a structure has not set is 0; what one that knows a newer version sets must be
// 0.
static int read_config(const struct vgpu_config *from, struct vgpu_config *config)
{
    *config = (struct vgpu_config){0};
    if (!from || from->size < offsetof(struct vgpu_config, weight) || from->size > API_STRUCT_MOST)
        return fail(-EINVAL, "the configuration is %s: begin with VGPU_CONFIG_INIT", from ? "without a size" : "NULL");
    memcpy(config, from, from->size < sizeof *config ? from->size : sizeof *config);
    for (size_t i = sizeof *config; i < from->size; i++)
        if (((const unsigned char *)from)[i])
            return fail(-ENOTSUP, "the configuration sets something that this version of the library does not know");
    if (config->concurrency > OPTIONS_MAX_CONCURRENCY)
        return fail(-EINVAL, "concurrency %u: allowed is 1 to %u, or 0 for 1", config->concurrency, OPTIONS_MAX_CONCURRENCY);
    if (config->weight > OPTIONS_MAX_WEIGHT)
        return fail(-EINVAL, "weight %u: allowed is 1 to %u, or 0 for 100", config->weight, OPTIONS_MAX_WEIGHT);
    if (config->quantum_us && config->quantum_us != VGPU_QUANTUM_AUTO &&
        (config->quantum_us < 1000 || config->quantum_us > 1000000))
        return fail(-EINVAL, "quantum_us %llu: allowed is 1000 to 1000000, 0 or VGPU_QUANTUM_AUTO",
                    (unsigned long long)config->quantum_us);
    if (config->limit_percent > 100)
        return fail(-EINVAL, "limit_percent %u: allowed is 1 to 100, or 0", config->limit_percent);
    if (config->priority > VGPU_PRIORITY_HIGH)
        return fail(-EINVAL, "priority %u: allowed is 1 to %d, or 0 for %d", config->priority, VGPU_PRIORITY_HIGH,
                    VGPU_PRIORITY_NORMAL);
    return config->name ? instance_check_name(config->name) : 0;
}

static int quota_of(const struct vgpu_config *config, const struct vgpu *vgpu, uint64_t *chunks)
{
    uint64_t chunk = vgpu->pool.chunk_bytes;
    *chunks = config->memory_bytes / chunk;
    if (config->memory_bytes && *chunks == 0)
        return fail(-EINVAL, "memory_bytes %llu is less than one chunk, which is %llu bytes in the pool %s",
                    (unsigned long long)config->memory_bytes, (unsigned long long)chunk, vgpu->pool.path);
    return 0;
}

// NULL: none was asked for.
static const enum priority *class_of(const struct vgpu_config *config)
{
    static const enum priority classes[] = {
        [VGPU_PRIORITY_LOW] = PRIORITY_LOW, [VGPU_PRIORITY_NORMAL] = PRIORITY_NORMAL, [VGPU_PRIORITY_HIGH] = PRIORITY_HIGH};
    return config->priority ? &classes[config->priority] : NULL;
}

// `quantum_ns` is part of the request.
static int read_request(const struct vgpu_config *config, const struct vgpu *vgpu, struct tenancy_request *request,
                        uint64_t *quantum_ns)
{
    *quantum_ns = config->quantum_us == VGPU_QUANTUM_AUTO ? 0 : config->quantum_us * NS_PER_US;
    *request = (struct tenancy_request){
        .name = config->name,
        .weight = config->weight,
        .quantum_ns = config->quantum_us ? quantum_ns : NULL,
        .concurrency = config->concurrency,
        .limit_percent = config->limit_percent,
        .priority = class_of(config),
        .mps = vgpu->gpu->mps,
    };
    return quota_of(config, vgpu, &request->quota_chunks);
}

// With the pool locked.
static int join(struct vgpu *vgpu, const struct vgpu_config *config, bool existing)
{
    struct tenancy_request request;
    uint64_t quantum_ns;
    int rc = read_request(config, vgpu, &request, &quantum_ns);
    int gpu = rc ? rc : home_gpu_enter(&vgpu->pool, vgpu->gpu);
    if (gpu < 0)
        return gpu;
    bool found = config->name && pool_vgpu_find(&vgpu->pool, (uint32_t)gpu, config->name) >= 0;
    if (found && !existing)
        return fail(-EEXIST, "the virtual GPU %s exists already on %s: vgpu_open joins it", config->name, vgpu->gpu->name);
    if (!found && existing)
        return fail(-ENOENT, "there is no virtual GPU %s on %s", config->name, vgpu->gpu->name);
    rc = pool_vgpu_join(&vgpu->pool, vgpu->process, (uint32_t)gpu, &request, &error_of_thread);
    if (rc < 0)
        return rc;
    vgpu->gpu_index = (uint32_t)gpu;
    vgpu->vgpu_index = (uint32_t)rc;
    return 0;
}

static void leave_pool(struct vgpu *vgpu)
{
    struct error ignored;
    int lock = pool_lock(&vgpu->pool, POOL_LOCK_PATIENCE_NS, &ignored);
    if (lock >= 0) {
        pool_leave(&vgpu->pool, vgpu->process);
        pool_unlock(lock);
    }
    pool_close(&vgpu->pool); // if the lock could not be had, the slot is dead from here on, and is taken back as such
}

static int enter_pool(struct vgpu *vgpu, const struct vgpu_config *config, bool existing)
{
    int lock;
    int rc = home_pool_claim(&vgpu->pool, &vgpu->process, &lock);
    if (rc)
        return rc;
    rc = join(vgpu, config, existing);
    if (rc)
        pool_leave(&vgpu->pool, vgpu->process);
    pool_unlock(lock);
    if (rc)
        pool_close(&vgpu->pool);
    return rc;
}

// With the GPU acquired and the place in the pool taken.
static int equip(struct vgpu *vgpu)
{
    CUcontext context = vgpu->gpu->context;
    int rc = fail_driver(REAL(cuCtxPushCurrent_v2)(context), "cuCtxPushCurrent");
    if (rc)
        return rc;
    rc = streams_init(&vgpu->streams, context);
    if (rc == 0) {
        holdings_init(&vgpu->holdings, &vgpu->pool, vgpu->process, vgpu->gpu_index, vgpu->vgpu_index);
        rc = memory_init(vgpu);
        if (rc)
            streams_free(&vgpu->streams);
    }
    REAL(cuCtxPopCurrent_v2)(&context);
    if (rc == 0)
        gate_init(&vgpu->gate, &vgpu->pool, vgpu->process, vgpu->gpu_index, vgpu->vgpu_index, &streams_ops, &vgpu->streams);
    return rc;
}

static int make(const struct vgpu_config *given, struct vgpu **out, bool existing)
{
    struct vgpu_config config;
    int rc = read_config(given, &config);
    if (rc == 0 && !out)
        rc = fail_no_result();
    if (rc == 0 && existing && !config.name)
        rc = fail(-EINVAL, "vgpu_open needs a name");
    if (rc)
        return rc;
    struct vgpu *vgpu = calloc(1, sizeof *vgpu);
    if (!vgpu)
        return fail(-ENOMEM, "out of memory");
    vgpu->generation = atomic_load(&home_generation);
    rc = tasks_init(vgpu, config.queue_tasks);
    if (rc)
        goto free_vgpu;
    rc = home_gpu_acquire(config.device_uuid, config.device, &vgpu->gpu);
    if (rc)
        goto free_tasks;
    rc = enter_pool(vgpu, &config, existing);
    if (rc)
        goto release_gpu;
    rc = equip(vgpu);
    if (rc)
        goto leave_pool;
    *out = vgpu;
    return 0;

leave_pool:
    leave_pool(vgpu);
release_gpu:
    home_gpu_release(vgpu->gpu);
free_tasks:
    tasks_free(vgpu);
free_vgpu:
    free(vgpu);
    return rc;
}

static int make_or_say(const struct vgpu_config *config, struct vgpu **vgpu, bool existing)
{
    struct error earlier = error_of_thread;
    int rc = make(config, vgpu, existing);
    if (rc == 0)
        error_of_thread = earlier; // what did not succeed at once on the way is no failure
    return rc;
}

VGPU_API int vgpu_create(const struct vgpu_config *config, struct vgpu **vgpu)
{
    ENTRY;
    return make_or_say(config, vgpu, false);
}

VGPU_API int vgpu_open(const struct vgpu_config *config, struct vgpu **vgpu)
{
    ENTRY;
    return make_or_say(config, vgpu, true);
}

// With the pool locked.
static int change(struct vgpu *vgpu, const struct tenancy_request *request)
{
    const struct pool_vgpu *record = &vgpu->pool.layout->vgpus[vgpu->vgpu_index];
    uint32_t weight = atomic_load(&record->weight), priority = atomic_load(&record->priority);
    const struct pool_change wanted = {
        .vgpu = vgpu->vgpu_index,
        .quota_chunks = request->quota_chunks,
        .contextless = true,
        .weight = request->weight,
        .limit_percent = request->limit_percent,
        .priority = request->priority,
        .quantum_ns = request->quantum_ns,
        .concurrency = request->concurrency,
    };
    int rc = pool_change(&vgpu->pool, &wanted, 1, &error_of_thread);
    if (rc == 0)
        notice_change(vgpu->pool.layout, vgpu->vgpu_index, weight, priority);
    return rc;
}

VGPU_API int vgpu_change(struct vgpu *vgpu, const struct vgpu_config *given)
{
    CALL call = call_begin(vgpu);
    struct vgpu_config config;
    struct tenancy_request request;
    uint64_t quantum_ns;
    int rc = call.rc ? call.rc : read_config(given, &config);
    if (rc == 0)
        rc = read_request(&config, vgpu, &request, &quantum_ns);
    if (rc)
        return rc;
    // What this handle's heap keeps for the next allocation is not in use.
    if (request.quota_chunks && request.quota_chunks < pool_vgpu_used(vgpu->pool.layout, vgpu->vgpu_index))
        heap_trim(vgpu->heap, 0);
    int lock = pool_lock(&vgpu->pool, POOL_LOCK_PATIENCE_NS, &error_of_thread);
    if (lock < 0)
        return lock;
    rc = change(vgpu, &request);
    pool_unlock(lock);
    return rc;
}

static void close_for_calls(struct vgpu *vgpu)
{
    atomic_store(&vgpu->closing, true);
    while (atomic_load(&vgpu->calls))
        clock_sleep_ns(CALLS_LOOK_NS);
}

static void dismantle(struct vgpu *vgpu)
{
    CUcontext context = vgpu->gpu->context;
    // In a failed context every call fails; its end gives the memory back.
    REAL(cuCtxPushCurrent_v2)(context);
    CUstreamCaptureMode mode = capture_relax();
    streams_wait(&vgpu->streams);
    agent_dismiss(&vgpu->gate);
    window_clear(&vgpu->gate.window);
    heap_destroy(vgpu->heap);
    streams_free(&vgpu->streams);
    capture_restore(mode);
    REAL(cuCtxPopCurrent_v2)(&context);
    tasks_free(vgpu);
    leave_pool(vgpu);
    home_gpu_release(vgpu->gpu);
    free(vgpu);
}

static int refuse_with_regions(const struct vgpu *vgpu)
{
    uint32_t regions = atomic_load(&vgpu->regions);
    return regions ? fail(-EBUSY, "the virtual GPU has open regions: %u", regions) : 0;
}

static int refuse_destruction(struct vgpu *vgpu)
{
    CALL call = call_begin(vgpu);
    if (call.rc)
        return call.rc;
    if (section_of_thread.vgpu)
        return fail(-EDEADLK, "vgpu_destroy in a turn: what it waits for may itself wait for the turn to end");
    int rc = refuse_with_regions(vgpu);
    if (rc)
        return rc;
    return atomic_exchange(&vgpu->destroying, true) ? fail(-ESHUTDOWN, "the virtual GPU is being destroyed") : 0;
}

VGPU_API int vgpu_destroy(struct vgpu *vgpu)
{
    ENTRY;
    int rc = vgpu ? refuse_destruction(vgpu) : 0;
    if (rc || !vgpu)
        return rc;
    tasks_drain(vgpu); // its tasks still make calls
    close_for_calls(vgpu);
    rc = refuse_with_regions(vgpu); // from a task or a call that was under way
    if (rc == 0) {
        dismantle(vgpu);
        return 0;
    }
    tasks_resume(vgpu);
    atomic_store(&vgpu->closing, false);
    atomic_store(&vgpu->destroying, false);
    return rc;
}

VGPU_API vgpu_stream vgpu_own_stream(const struct vgpu *vgpu)
{
    return vgpu ? streams_own(&vgpu->streams) : NULL;
}

VGPU_API int vgpu_stream_create(struct vgpu *vgpu, vgpu_stream *stream)
{
    CALL call = call_begin_current(vgpu);
    if (call.rc)
        return call.rc;
    return stream ? streams_add(&vgpu->streams, stream) : fail_no_result();
}

static int wait_for_stream(struct vgpu *vgpu, vgpu_stream stream)
{
    int rc = instance_stream(vgpu, &stream);
    return rc ? rc : fail_driver(REAL(cuStreamSynchronize)(stream), "cuStreamSynchronize");
}

VGPU_API int vgpu_stream_destroy(struct vgpu *vgpu, vgpu_stream stream)
{
    CALL call = call_begin_current(vgpu);
    if (call.rc)
        return call.rc;
    if (!stream || stream == streams_own(&vgpu->streams))
        return fail(-EINVAL, "a virtual GPU's own stream is destroyed with it");
    int rc = wait_for_stream(vgpu, stream);
    if (rc)
        return rc;
    heap_stream_end(vgpu->heap, stream, true);
    return streams_remove(&vgpu->streams, stream);
}

VGPU_API int vgpu_synchronize(struct vgpu *vgpu, vgpu_stream stream)
{
    CALL call = call_begin_current(vgpu);
    if (call.rc)
        return call.rc;
    return stream ? wait_for_stream(vgpu, stream) : streams_wait(&vgpu->streams);
}
