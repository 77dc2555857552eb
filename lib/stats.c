// SPDX-License-Identifier: AGPL-3.0-or-later
// Figures, read from the pool as the command does: without a lock, and trusting nothing.
#include <stdlib.h>
#include <string.h>

#include "lib/tasks.h"
#include "scheduler/policy.h"
#include "tools/snapshot.h"

static const struct snapshot_gpu *gpu_of(const struct snapshot *snapshot, const struct snapshot_vgpu *vgpu)
{
    for (size_t i = 0; i < snapshot->gpu_count; i++)
        if (snapshot->gpus[i].index == vgpu->gpu)
            return &snapshot->gpus[i];
    return NULL;
}

static uint32_t priority_of(uint32_t class)
{
    return class == POLICY_LOW ? VGPU_PRIORITY_LOW : class == POLICY_HIGH ? VGPU_PRIORITY_HIGH : VGPU_PRIORITY_NORMAL;
}

static struct vgpu_instance_stats stats_of(const struct snapshot *snapshot, const struct snapshot_vgpu *vgpu)
{
    const struct snapshot_gpu *gpu = gpu_of(snapshot, vgpu);
    struct vgpu_instance_stats stats = {
        .size = sizeof stats,
        .weight = vgpu->weight,
        .limit_percent = vgpu->limit_percent,
        .priority = priority_of(vgpu->priority),
        .processes = (uint32_t)vgpu->process_count,
        .quantum_us = vgpu->quantum_ns / 1000,
        .quota_bytes = vgpu->quota_bytes,
        .used_bytes = vgpu->used_bytes,
        .peak_bytes = vgpu->peak_bytes,
        .refusals = vgpu->refusals,
        .refused_bytes = vgpu->refused_bytes,
        .launches = vgpu->launches,
        .grants = vgpu->grants,
        .held_ns = vgpu->held_ns,
        .charged_ns = vgpu->charged_ns,
        .waits = vgpu->waits,
        .waited_ns = vgpu->waited_ns,
        .overruns = vgpu->overruns,
    };
    snprintf(stats.name, sizeof stats.name, "%.63s", vgpu->name);
    snprintf(stats.device_uuid, sizeof stats.device_uuid, "%s", gpu ? gpu->uuid : "");
    return stats;
}

// Takes a snapshot of the pool at `path`; for `drop`. It is too large for a stack.
static int take(const char *path, struct snapshot **snapshot)
{
    *snapshot = malloc(sizeof **snapshot);
    if (!*snapshot)
        return fail(-ENOMEM, "out of memory");
    return snapshot_take(*snapshot, path, &error_of_thread);
}

static void drop(struct snapshot *snapshot)
{
    if (snapshot)
        snapshot_clear(snapshot);
    free(snapshot);
}

static int find(const struct vgpu *vgpu, struct vgpu_instance_stats *stats)
{
    struct snapshot *snapshot;
    int rc = take(vgpu->pool.path, &snapshot);
    size_t i = 0;
    while (rc == 0 && i < snapshot->vgpu_count && snapshot->vgpus[i].index != vgpu->vgpu_index)
        i++;
    if (rc == 0 && i == snapshot->vgpu_count)
        rc = fail(-ESTALE, "the pool %s has been replaced", vgpu->pool.path);
    if (rc == 0)
        *stats = stats_of(snapshot, &snapshot->vgpus[i]);
    drop(snapshot);
    return rc;
}

VGPU_API int vgpu_stats(struct vgpu *vgpu, struct vgpu_instance_stats *out)
{
    CALL call = call_begin(vgpu);
    struct vgpu_instance_stats stats;
    if (call.rc)
        return call.rc;
    if (!out || out->size < offsetof(struct vgpu_instance_stats, weight))
        return fail(-EINVAL, "the figures are %s: begin with VGPU_STATS_INIT", out ? "without a size" : "NULL");
    int rc = find(vgpu, &stats);
    if (rc)
        return rc;
    struct heap_stats heap = heap_look(vgpu->heap);
    struct tasks_view tasks = tasks_look(vgpu);
    stats.heap_bytes = heap.physical_bytes;
    stats.live_bytes = heap.live_bytes;
    stats.allocations = heap.live_count;
    stats.tasks_waiting = tasks.waiting;
    stats.tasks_finished = tasks.finished;
    // A program that knows an older version gets what it has room for.
    stats.size = out->size < sizeof stats ? out->size : sizeof stats;
    memcpy(out, &stats, stats.size);
    return 0;
}

static int take_default(struct snapshot **snapshot)
{
    char path[PATH_MAX];
    int rc = home_pool_path(path);
    *snapshot = NULL;
    return rc ? rc : take(path, snapshot);
}

VGPU_API int vgpu_each(int (*visit)(const struct vgpu_instance_stats *stats, void *argument), void *argument)
{
    ENTRY;
    struct snapshot *snapshot;
    if (!visit)
        return fail(-EINVAL, "there is no function to call");
    int rc = take_default(&snapshot);
    for (size_t i = 0; rc == 0 && i < snapshot->vgpu_count; i++) {
        struct vgpu_instance_stats stats = stats_of(snapshot, &snapshot->vgpus[i]);
        rc = visit(&stats, argument);
    }
    drop(snapshot);
    return rc;
}

VGPU_API int vgpu_each_gpu(int (*visit)(const struct vgpu_gpu_stats *stats, void *argument), void *argument)
{
    ENTRY;
    struct snapshot *snapshot;
    if (!visit)
        return fail(-EINVAL, "there is no function to call");
    int rc = take_default(&snapshot);
    for (size_t i = 0; rc == 0 && i < snapshot->gpu_count; i++) {
        const struct snapshot_gpu *gpu = &snapshot->gpus[i];
        struct vgpu_gpu_stats stats = {
            .size = sizeof stats,
            .total_bytes = gpu->total_bytes,
            .reserved_bytes = gpu->reserved_bytes,
            .open_bytes = gpu->open_used_bytes,
            .context_bytes = gpu->context_bytes,
        };
        snprintf(stats.name, sizeof stats.name, "%.63s", gpu->name);
        snprintf(stats.uuid, sizeof stats.uuid, "%s", gpu->uuid);
        for (size_t j = 0; j < snapshot->vgpu_count; j++)
            stats.virtual_gpus += snapshot->vgpus[j].gpu == gpu->index;
        rc = visit(&stats, argument);
    }
    drop(snapshot);
    return rc;
}
