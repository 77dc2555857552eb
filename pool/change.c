// SPDX-License-Identifier: AGPL-3.0-or-later
#include "pool/change.h"

#include <errno.h>

#include "base/clock.h"
#include "pool/reservation.h"

static int refuse_quota(const struct pool *pool, const struct pool_change *change, int code, const char *what, uint64_t bytes,
                        struct error *error)
{
    const struct pool_vgpu *vgpu = &pool->layout->vgpus[change->vgpu];
    return error_set(error, code, "%.*s on %.*s cannot have a quota of %llu MiB: %s %llu MiB", (int)POOL_NAME_BYTES, vgpu->name,
                     (int)POOL_NAME_BYTES, pool->layout->gpus[pool_gpu_of(vgpu)].name,
                     (unsigned long long)(change->quota_chunks * pool->chunk_bytes >> 20), what,
                     (unsigned long long)(bytes >> 20));
}

// Refuses a quota below what is held now.
static int check_use(const struct pool *pool, const struct pool_change *change, struct error *error)
{
    uint64_t used = account_count(&pool->layout->vgpus[change->vgpu].used);
    return used <= change->quota_chunks ? 0 : refuse_quota(pool, change, -EBUSY, "it holds", used * pool->chunk_bytes, error);
}

static int check(const struct pool *pool, const struct pool_change *change, struct error *error)
{
    const struct pool_vgpu *vgpu = &pool->layout->vgpus[change->vgpu];
    if (vgpu->gpu >= POOL_MAX_GPUS)
        return error_set(error, -EINVAL, "the pool %s is damaged: stop the programs that use it and remove it", pool->path);
    if (!change->quota_chunks)
        return 0;
    const struct pool_gpu *gpu = &pool->layout->gpus[pool_gpu_of(vgpu)];
    uint64_t quota = atomic_load(&vgpu->quota_chunks), context = atomic_load(&gpu->context_bytes);
    if (quota == 0)
        return error_set(error, -EINVAL, "%.*s on %.*s began without a quota and cannot get one while it runs",
                         (int)POOL_NAME_BYTES, vgpu->name, (int)POOL_NAME_BYTES, gpu->name);
    // One that is too small for a context now has none in it.
    bool contextless = change->contextless || quota * pool->chunk_bytes < context;
    if (!contextless && change->quota_chunks * pool->chunk_bytes < context)
        return refuse_quota(pool, change, -EBUSY, "a context alone takes", context, error);
    if (change->quota_chunks > gpu->total_chunks)
        return refuse_quota(pool, change, -ENOMEM, "the GPU has", gpu->total_bytes, error);
    return check_use(pool, change, error);
}

// Makes sure that the quota can be had. A higher one is only reserved, a lower one is in force from here on.
static int try_quota(struct pool *pool, const struct pool_change *change, struct error *error)
{
    struct pool_vgpu *vgpu = &pool->layout->vgpus[change->vgpu];
    uint64_t quota = atomic_load(&vgpu->quota_chunks);
    if (change->quota_chunks > quota)
        return reservation_make(pool, pool_gpu_of(vgpu), change->vgpu, change->quota_chunks, error);
    atomic_store(&vgpu->quota_before, quota);
    atomic_store(&vgpu->quota_chunks, change->quota_chunks);
    return check_use(pool, change, error);
}

static void commit_quota(struct pool_layout *layout, const struct pool_change *change)
{
    struct pool_vgpu *vgpu = &layout->vgpus[change->vgpu];
    atomic_store(&vgpu->quota_chunks, change->quota_chunks);
    atomic_store(&vgpu->quota_before, 0);
    reservation_recount(layout, pool_gpu_of(vgpu));
}

static int change_quotas(struct pool *pool, const struct pool_change *changes, size_t count, struct error *error)
{
    struct pool_layout *layout = pool->layout;
    int rc = 0;
    size_t tried = 0;
    for (; tried < count && rc == 0; tried++)
        rc = changes[tried].quota_chunks ? try_quota(pool, &changes[tried], error) : 0;
    for (size_t i = 0; i < tried; i++) {
        if (!changes[i].quota_chunks)
            continue;
        if (rc == 0) {
            commit_quota(layout, &changes[i]);
        } else {
            pool_vgpu_restore_quota(&layout->vgpus[changes[i].vgpu]);
            reservation_recount(layout, pool_gpu_of(&layout->vgpus[changes[i].vgpu]));
        }
    }
    return rc;
}

static void change_turns(struct pool_layout *layout, const struct pool_change *change)
{
    struct pool_vgpu *vgpu = &layout->vgpus[change->vgpu];
    if (change->weight)
        atomic_store(&vgpu->weight, change->weight);
    if (change->priority)
        atomic_store(&vgpu->priority, *change->priority);
    pool_vgpu_note_class(layout, change->vgpu);
    if (change->quantum_ns)
        atomic_store(&vgpu->quantum_ns, *change->quantum_ns);
    if (change->concurrency)
        atomic_store(&vgpu->concurrency, change->concurrency);
    if (change->limit_percent) {
        // What was used before is not held against it.
        atomic_store(&vgpu->limited_ns, clock_now_ns());
        atomic_store(&vgpu->limit_percent, change->limit_percent % 100);
    }
}

int pool_change(struct pool *pool, const struct pool_change *changes, size_t count, struct error *error)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = check(pool, &changes[i], error);
    if (rc == 0)
        rc = change_quotas(pool, changes, count, error);
    for (size_t i = 0; i < count && rc == 0; i++)
        change_turns(pool->layout, &changes[i]);
    return rc;
}
