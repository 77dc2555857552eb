// SPDX-License-Identifier: AGPL-3.0-or-later
#include "pool/tenancy.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "pool/reservation.h"

static bool has_members(const struct pool_vgpu *vgpu)
{
    return pool_bit_next(vgpu->members, POOL_MAX_PROCESSES, 0) < POOL_MAX_PROCESSES;
}

static bool has_vgpus(const struct pool_layout *layout, uint32_t gpu)
{
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++)
        if (pool_vgpu_is_on(&layout->vgpus[i], gpu))
            return true;
    return false;
}

int pool_gpu_enter(struct pool *pool, const uint8_t uuid[POOL_UUID_BYTES], const char *name, uint64_t total_bytes,
                   struct error *error)
{
    struct pool_layout *layout = pool->layout;
    uint32_t free_index = POOL_MAX_GPUS;
    uint32_t unused_index = POOL_MAX_GPUS;
    for (uint32_t i = POOL_MAX_GPUS; i-- > 0;) {
        if (atomic_load(&layout->gpus[i].state) != POOL_LIVE)
            free_index = i;
        else if (memcmp(layout->gpus[i].uuid, uuid, POOL_UUID_BYTES) == 0)
            return (int)i;
        else if (!has_vgpus(layout, i))
            unused_index = i;
    }
    // A GPU that is gone (MIG instances get a new UUID with every change) makes room when nobody is on it.
    if (free_index == POOL_MAX_GPUS)
        free_index = unused_index;
    if (free_index == POOL_MAX_GPUS)
        return error_set(error, -ENOSPC, "the pool %s is full: it has virtual GPUs on %u GPUs already", pool->path,
                         POOL_MAX_GPUS);
    struct pool_gpu *gpu = &layout->gpus[free_index];
    atomic_store(&gpu->state, POOL_FREE);
    atomic_store(&gpu->context_bytes, 0);
    atomic_store(&gpu->reserved_chunks, 0);
    atomic_store(&gpu->first, POOL_NO_INDEX);
    atomic_store(&gpu->on_deck, POOL_NO_INDEX);
    atomic_store(&gpu->switch_ns, 0);
    atomic_store(&gpu->switch_seen_ns, 0);
    atomic_store(&gpu->company, 0);
    account_clear(&gpu->open_used, free_index, free_index);
    memcpy(gpu->uuid, uuid, POOL_UUID_BYTES);
    snprintf(gpu->name, sizeof gpu->name, "%s", name);
    gpu->total_bytes = total_bytes;
    gpu->total_chunks = (uint32_t)(total_bytes / pool->chunk_bytes);
    atomic_store(&gpu->state, POOL_LIVE);
    return (int)free_index;
}

_Atomic uint64_t *pool_account(struct pool_layout *layout, uint32_t vgpu)
{
    struct pool_vgpu *record = &layout->vgpus[vgpu];
    if (atomic_load(&record->quota_chunks))
        return &record->used;
    return &layout->gpus[pool_gpu_of(record)].open_used;
}

uint64_t pool_vgpu_used(const struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    uint64_t used = 0;
    POOL_EACH_BIT(process, record->members, POOL_MAX_PROCESSES)
    used += account_holding(&layout->members[process][pool_gpu_of(record)]);
    return used;
}

uint64_t pool_vgpu_limit(const struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    const struct pool_gpu *gpu = &layout->gpus[pool_gpu_of(record)];
    uint64_t quota = atomic_load(&record->quota_chunks);
    if (quota)
        return quota;
    uint64_t reserved = atomic_load(&gpu->reserved_chunks);
    return reserved < gpu->total_chunks ? gpu->total_chunks - reserved : 0;
}

uint64_t pool_vgpu_launches(const struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    uint64_t launches = atomic_load(&record->departed_launches);
    POOL_EACH_BIT(process, record->members, POOL_MAX_PROCESSES)
    launches += atomic_load_explicit(&layout->members[process][pool_gpu_of(record)].entered, memory_order_relaxed);
    return launches;
}

static int check_agreement(const struct pool_vgpu *vgpu, const struct tenancy_request *request, uint64_t chunk_bytes,
                           struct error *error)
{
    uint64_t quota = atomic_load(&vgpu->quota_chunks), quantum = atomic_load(&vgpu->quantum_ns);
    uint32_t weight = atomic_load(&vgpu->weight), limit = atomic_load(&vgpu->limit_percent);
    uint32_t priority = atomic_load(&vgpu->priority);
    if (request->quota_chunks && request->quota_chunks != quota)
        return error_set(error, -EEXIST, "VGPU_MEMORY asks for %llu MiB but the virtual GPU %s has %llu MiB%s",
                         (unsigned long long)(request->quota_chunks * chunk_bytes >> 20), request->name,
                         (unsigned long long)(quota * chunk_bytes >> 20), quota ? "" : " (no quota)");
    if (request->weight && request->weight != weight)
        return error_set(error, -EEXIST, "VGPU_WEIGHT asks for %u but the virtual GPU %s has %u", request->weight,
                         request->name, weight);
    if (request->limit_percent && request->limit_percent % 100 != limit)
        return error_set(error, -EEXIST, "VGPU_COMPUTE_LIMIT asks for %u %% but the virtual GPU %s has %u %%%s",
                         request->limit_percent, request->name, limit ? limit : 100, limit ? "" : " (none)");
    if (request->priority && *request->priority != priority)
        return error_set(error, -EEXIST, "VGPU_PRIORITY asks for %s but the virtual GPU %s has %s",
                         priority_name(*request->priority), request->name, priority_name(priority));
    if (request->quantum_ns && *request->quantum_ns != quantum)
        return error_set(error, -EEXIST, "VGPU_QUANTUM asks for %.10g ms%s but the virtual GPU %s has %.10g ms%s",
                         (double)*request->quantum_ns / NS_PER_MS, *request->quantum_ns ? "" : " (auto)", request->name,
                         (double)quantum / NS_PER_MS, quantum ? "" : " (auto)");
    uint32_t concurrency = atomic_load(&vgpu->concurrency);
    if (request->concurrency && request->concurrency != concurrency)
        return error_set(error, -EEXIST, "VGPU_CONCURRENCY asks for %u but the virtual GPU %s has %u", request->concurrency,
                         request->name, concurrency);
    return 0;
}

// For one more member.
static void note_mps(struct pool_gpu *record, bool mps)
{
    bool others = pool_bit_next(record->vgpus, POOL_MAX_VGPUS, 0) < POOL_MAX_VGPUS;
    bool before = atomic_load(&record->mps) != 0, now = mps && (before || !others);
    if (now == before)
        return;
    atomic_store(&record->mps, now);
    atomic_store(&record->switch_ns, 0);
    atomic_store(&record->switch_seen_ns, 0);
}

void pool_vgpu_note_class(struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    struct pool_gpu *gpu = &layout->gpus[pool_gpu_of(record)];
    if (atomic_load(&record->state) == POOL_LIVE && atomic_load(&record->priority) == PRIORITY_HIGH)
        pool_bit_set(gpu->high, vgpu);
    else
        pool_bit_clear(gpu->high, vgpu);
}

static void admit(struct pool_layout *layout, uint32_t process, uint32_t gpu, uint32_t vgpu)
{
    struct pool_member *member = &layout->members[process][gpu];
    atomic_store(&member->entered, 0);
    atomic_store(&member->left, 0);
    atomic_store(&member->idle_at, 0);
    atomic_store(&member->active_gen, POOL_NO_GENERATION);
    atomic_store(&member->drained_gen, POOL_NO_GENERATION);
    account_begin(member);
    atomic_store(&member->vgpu, vgpu);
    pool_bit_set(layout->vgpus[vgpu].members, process);
    pool_bit_set(layout->gpus[gpu].vgpus, vgpu);
}

// Whether a virtual GPU that this process is no member of has the name, on whichever GPU.
static bool is_taken(const struct pool_layout *layout, uint32_t process, const char *name)
{
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        const struct pool_vgpu *vgpu = &layout->vgpus[i];
        if (atomic_load(&vgpu->state) == POOL_LIVE && !pool_bit_get(vgpu->members, process) &&
            strncmp(vgpu->name, name, POOL_NAME_BYTES) == 0)
            return true;
    }
    return false;
}

static void name_after_process(const struct pool_layout *layout, uint32_t index, char name[POOL_NAME_BYTES])
{
    const struct pool_process *process = &layout->processes[index];
    // The colon, which given names cannot contain, keeps these names apart from them: nobody joins by accident.
    char command[sizeof process->command + 1] = {0};
    memcpy(command, process->command, sizeof process->command);
    snprintf(name, POOL_NAME_BYTES, "%s:%d", command, (int)process->pid);
    // Processes in different PID namespaces may have the same id, and a process may have several virtual GPUs.
    for (uint32_t number = 2; number <= POOL_MAX_VGPUS && is_taken(layout, index, name); number++)
        snprintf(name, POOL_NAME_BYTES, "%s:%d:%u", command, (int)process->pid, number);
}

// A free place for a virtual GPU. One that died while it held the token may have left others running under its grant (scheduler/company.h),
// which a new one in its place would take for its own: its place comes last.
static uint32_t free_place(const struct pool_layout *layout, uint32_t gpu)
{
    uint64_t token = atomic_load(&layout->gpus[gpu].token);
    uint32_t place = POOL_MAX_VGPUS;
    for (uint32_t i = 0; i < POOL_MAX_VGPUS && (place == POOL_MAX_VGPUS || place + 1 == token >> 32); i++)
        if (atomic_load(&layout->vgpus[i].state) != POOL_LIVE)
            place = i;
    return place;
}

static int create(struct pool *pool, uint32_t process, uint32_t gpu, const struct tenancy_request *request, struct error *error)
{
    struct pool_layout *layout = pool->layout;
    uint32_t index = free_place(layout, gpu);
    if (index == POOL_MAX_VGPUS)
        return error_set(error, -ENOSPC, "the pool %s is full: it has %u virtual GPUs", pool->path, POOL_MAX_VGPUS);
    int rc = reservation_make(pool, gpu, POOL_NO_INDEX, request->quota_chunks, error);
    if (rc)
        return rc;

    struct pool_vgpu *vgpu = &layout->vgpus[index];
    account_clear(&vgpu->used, vgpu->gpu, gpu);
    uint64_t account = atomic_load(&vgpu->used);
    memset((void *)vgpu, 0, sizeof *vgpu);
    atomic_store(&vgpu->used, account);
    vgpu->gpu = gpu;
    vgpu->created_ns = clock_now_ns();
    atomic_store(&vgpu->weight, request->weight ? request->weight : TENANCY_DEFAULT_WEIGHT);
    atomic_store(&vgpu->priority, request->priority ? *request->priority : PRIORITY_NORMAL);
    atomic_store(&vgpu->limit_percent, request->limit_percent % 100);
    atomic_store(&vgpu->quantum_ns, request->quantum_ns ? *request->quantum_ns : 0);
    atomic_store(&vgpu->concurrency, request->concurrency ? request->concurrency : 1);
    atomic_store(&vgpu->quota_chunks, request->quota_chunks);
    atomic_store(&vgpu->pass, atomic_load(&layout->gpus[gpu].level)); // as if it had been there and used its share
    if (request->name)
        snprintf(vgpu->name, sizeof vgpu->name, "%s", request->name);
    else
        name_after_process(layout, process, vgpu->name);
    atomic_store(&vgpu->state, POOL_LIVE);
    pool_vgpu_note_class(layout, index);
    return (int)index;
}

static bool is_member(const struct pool_layout *layout, uint32_t process, uint32_t gpu)
{
    uint32_t vgpu = atomic_load(&layout->members[process][gpu].vgpu);
    // A record that names a virtual GPU of another GPU was never used, or is damaged.
    return vgpu < POOL_MAX_VGPUS && layout->vgpus[vgpu].gpu == gpu && pool_bit_get(layout->vgpus[vgpu].members, process);
}

int pool_vgpu_find(const struct pool *pool, uint32_t gpu, const char *name)
{
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++)
        if (pool_vgpu_is_on(&pool->layout->vgpus[i], gpu) && strncmp(pool->layout->vgpus[i].name, name, POOL_NAME_BYTES) == 0)
            return (int)i;
    return -ENOENT;
}

int pool_vgpu_join(struct pool *pool, uint32_t process, uint32_t gpu, const struct tenancy_request *request,
                   struct error *error)
{
    struct pool_layout *layout = pool->layout;
    if (is_member(layout, process, gpu))
        return error_set(error, -EALREADY, "this process has a virtual GPU on %.*s already", (int)POOL_NAME_BYTES,
                         layout->gpus[gpu].name);
    int index = request->name ? pool_vgpu_find(pool, gpu, request->name) : -ENOENT;
    if (index >= 0) {
        int rc = check_agreement(&layout->vgpus[index], request, pool->chunk_bytes, error);
        if (rc)
            return rc;
    } else {
        index = create(pool, process, gpu, request, error);
        if (index < 0)
            return index;
    }
    note_mps(&layout->gpus[gpu], request->mps);
    admit(layout, process, gpu, (uint32_t)index);
    return index;
}

static void release_member(struct pool_layout *layout, uint32_t process, uint32_t gpu)
{
    struct pool_member *member = &layout->members[process][gpu];
    if (!is_member(layout, process, gpu))
        return;
    uint32_t vgpu = atomic_load(&member->vgpu);
    struct account_ref ref = {layout, pool_account(layout, vgpu), process, gpu};
    account_recover(&ref);
    account_add(&ref, -(int64_t)account_holding(member), ACCOUNT_MAX_COUNT);
    atomic_fetch_add(&layout->vgpus[vgpu].departed_launches, atomic_load(&member->entered));
    pool_bit_clear(layout->vgpus[vgpu].members, process);
    atomic_store(&member->vgpu, POOL_NO_INDEX);
}

void pool_vgpu_restore_quota(struct pool_vgpu *vgpu)
{
    uint64_t before = atomic_load(&vgpu->quota_before);
    if (before)
        atomic_store(&vgpu->quota_chunks, before);
    atomic_store(&vgpu->quota_before, 0); // last: if the process is killed before this, it is done again
}

// Frees virtual GPUs without members, takes back quotas that were only tried, and recomputes the reservations from scratch,
// which repairs what anybody killed halfway through any of it has left.
static void sweep(struct pool_layout *layout)
{
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        struct pool_vgpu *vgpu = &layout->vgpus[i];
        pool_vgpu_restore_quota(vgpu);
        if (atomic_load(&vgpu->state) == POOL_LIVE && !has_members(vgpu)) {
            struct pool_gpu *gpu = &layout->gpus[pool_gpu_of(vgpu)];
            pool_bit_clear(gpu->wanting, i);
            pool_bit_clear(gpu->vgpus, i);
            atomic_store(&vgpu->state, POOL_FREE);
        }
        pool_vgpu_note_class(layout, i);
    }
    for (uint32_t gpu = 0; gpu < POOL_MAX_GPUS; gpu++)
        if (atomic_load(&layout->gpus[gpu].state) == POOL_LIVE)
            reservation_recount(layout, gpu);
}

void pool_leave(struct pool *pool, uint32_t process)
{
    struct pool_layout *layout = pool->layout;
    for (uint32_t gpu = 0; gpu < POOL_MAX_GPUS; gpu++)
        release_member(layout, process, gpu);
    // What is left if the process died between the steps of admit, or the last reaper between those of release_member.
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++)
        pool_bit_clear(layout->vgpus[i].members, process);
    for (uint32_t gpu = 0; gpu < POOL_MAX_GPUS; gpu++)
        atomic_store(&layout->members[process][gpu].vgpu, POOL_NO_INDEX);
    sweep(layout);
    atomic_store(&layout->processes[process].state, POOL_FREE);
}

int pool_reap(struct pool *pool)
{
    int probe = pool_probe_open(pool);
    if (probe < 0)
        return probe;
    int reaped = 0;
    for (uint32_t slot = 0; slot < POOL_MAX_PROCESSES; slot++) {
        if (atomic_load(&pool->layout->processes[slot].state) == POOL_FREE || pool_alive(probe, slot))
            continue;
        pool_leave(pool, slot);
        reaped++;
    }
    pool_probe_close(probe);
    sweep(pool->layout); // a process killed while changing a quota had no slot
    if (reaped)
        atomic_store(&pool->layout->header.reaped_ns, clock_now_ns());
    return reaped;
}

void pool_try_reap(struct pool *pool)
{
    struct error error;
    int lock = pool_lock(pool, 0, &error);
    if (lock < 0)
        return;
    pool_reap(pool);
    pool_unlock(lock);
}
