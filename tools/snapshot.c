// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tools/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "pool/tenancy.h"
#include "scheduler/company.h"
#include "scheduler/grant.h"
#include "scheduler/turn.h"

// How often the figures of a grant are read again if the token moved meanwhile. A hand-over takes microseconds and turns last
// milliseconds, so the second try almost always succeeds.
#define TRIES 8

struct reader {
    const struct pool_layout *layout;
    uint64_t chunk_bytes; // as checked when the pool was opened; the one in shared memory may change
    bool alive[POOL_MAX_PROCESSES];
};

static uint64_t saturating_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t chunks_to_bytes(const struct reader *reader, uint64_t chunks)
{
    uint64_t bytes;
    return __builtin_mul_overflow(chunks, reader->chunk_bytes, &bytes) ? UINT64_MAX : bytes;
}

// Copies text that may be unterminated and contain anything, even control sequences for the terminal.
static void copy_text(char *to, size_t to_bytes, const char *from, size_t from_bytes)
{
    size_t length = 0;
    for (; length < from_bytes && length < to_bytes - 1 && from[length]; length++)
        to[length] = from[length] >= ' ' && from[length] <= '~' ? from[length] : '?';
    to[length] = '\0';
}

void snapshot_format_uuid(char text[SNAPSHOT_UUID_BYTES], const uint8_t uuid[POOL_UUID_BYTES])
{
    int length = snprintf(text, SNAPSHOT_UUID_BYTES, "GPU");
    for (int i = 0; i < (int)POOL_UUID_BYTES; i++)
        length += snprintf(text + length, SNAPSHOT_UUID_BYTES - (size_t)length, "%s%02x",
                           i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static int find_living(struct reader *reader, const struct pool *pool, struct error *error)
{
    int probe = pool_probe_open(pool);
    if (probe < 0)
        return error_set(error, probe, "the pool %s was removed or replaced while it was read", pool->path);
    for (uint32_t slot = 0; slot < POOL_MAX_PROCESSES; slot++)
        reader->alive[slot] = atomic_load(&reader->layout->processes[slot].state) == POOL_LIVE && pool_alive(probe, slot);
    pool_probe_close(probe);
    return 0;
}

static void read_gpu(const struct reader *reader, uint32_t index, struct snapshot_gpu *out)
{
    const struct pool_gpu *gpu = &reader->layout->gpus[index];
    *out = (struct snapshot_gpu){
        .index = index,
        .total_bytes = gpu->total_bytes,
        .context_bytes = atomic_load(&gpu->context_bytes),
        .switch_ns = turn_switch_ns(gpu),
        .mps = atomic_load(&gpu->mps) != 0,
        .holder = POOL_NO_INDEX,
    };
    snapshot_format_uuid(out->uuid, gpu->uuid);
    copy_text(out->name, sizeof out->name, gpu->name, sizeof gpu->name);
}

static int read_processes(const struct reader *reader, const struct pool_vgpu *vgpu, struct snapshot_vgpu *out)
{
    size_t count = 0;
    POOL_EACH_BIT(slot, vgpu->members, POOL_MAX_PROCESSES)
    count += reader->alive[slot];
    if (count == 0)
        return 0;
    out->processes = calloc(count, sizeof *out->processes);
    if (!out->processes)
        return -ENOMEM;
    // The bitmap may have grown since it was counted.
    POOL_EACH_BIT(slot, vgpu->members, POOL_MAX_PROCESSES)
    {
        if (!reader->alive[slot] || out->process_count == count)
            continue;
        const struct pool_process *process = &reader->layout->processes[slot];
        const struct pool_member *member = &reader->layout->members[slot][out->gpu];
        struct snapshot_process *entry = &out->processes[out->process_count++];
        entry->pid = process->pid;
        copy_text(entry->command, sizeof entry->command, process->command, sizeof process->command);
        entry->used_bytes = chunks_to_bytes(reader, account_holding(member));
        entry->launches = atomic_load_explicit(&member->entered, memory_order_relaxed);
        out->used_bytes = saturating_add(out->used_bytes, entry->used_bytes);
    }
    return 0;
}

static uint64_t beyond(uint64_t ns, uint64_t less_ns)
{
    return ns > less_ns ? ns - less_ns : 0;
}

// Reads the figures that change with the token, all of the same grant as far as can be told.
static void read_grant(const struct reader *reader, const struct pool_vgpu *vgpu, struct snapshot_vgpu *out)
{
    const struct pool_gpu *gpu = &reader->layout->gpus[out->gpu];
    uint64_t token, begun_ns = 0, charge_from_ns = 0, company_ns = 0;
    for (int i = 0; i < TRIES; i++) {
        token = atomic_load(&gpu->token);
        begun_ns = grant_get(&vgpu->begun, token);
        charge_from_ns = grant_get(&vgpu->charged_from, token);
        company_ns = grant_get(&gpu->company_ns, token);
        out->held_ns = atomic_load(&vgpu->held_ns);
        out->charged_ns = atomic_load(&vgpu->charged_ns);
        out->grants = atomic_load(&vgpu->grants);
        if (atomic_load(&gpu->token) == token && atomic_load(&vgpu->held_ns) == out->held_ns)
            break;
    }
    out->holder = token_holder(token) == out->index;
    out->companion = company_has(vgpu, token);
    uint64_t now_ns = clock_now_ns();
    if (!out->holder)
        return;
    // What was charged to companions is not the holder's.
    if (begun_ns < now_ns && begun_ns >= out->created_ns)
        out->held_ns = saturating_add(out->held_ns, beyond(now_ns - begun_ns, company_ns));
    out->contended = charge_from_ns != 0;
    if (charge_from_ns && charge_from_ns < now_ns && charge_from_ns >= out->created_ns)
        out->charged_ns = saturating_add(out->charged_ns, beyond(now_ns - charge_from_ns, company_ns));
}

static void read_histogram(const struct pool_histogram *histogram, uint32_t out[POOL_HISTOGRAM_BUCKETS])
{
    for (uint32_t i = 0; i < POOL_HISTOGRAM_BUCKETS; i++)
        out[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
}

static double part(uint64_t some_ns, uint64_t whole_ns)
{
    if (whole_ns == 0)
        return 0;
    return some_ns < whole_ns ? (double)some_ns / (double)whole_ns : 1;
}

static int read_vgpu(const struct reader *reader, uint32_t index, uint64_t now_ns, struct snapshot_vgpu *out)
{
    const struct pool_vgpu *vgpu = &reader->layout->vgpus[index];
    *out = (struct snapshot_vgpu){
        .index = index,
        .gpu = vgpu->gpu,
        .weight = atomic_load(&vgpu->weight),
        .priority = atomic_load(&vgpu->priority),
        .limit_percent = atomic_load(&vgpu->limit_percent),
        .quantum_ns = atomic_load(&vgpu->quantum_ns),
        .concurrency = atomic_load(&vgpu->concurrency),
        .quota_bytes = chunks_to_bytes(reader, atomic_load(&vgpu->quota_chunks)),
        .peak_bytes = chunks_to_bytes(reader, atomic_load(&vgpu->peak_chunks)),
        .refusals = atomic_load(&vgpu->refusals),
        .refused_bytes = atomic_load(&vgpu->refused_bytes),
        .created_ns = vgpu->created_ns,
        .waited_ns = atomic_load(&vgpu->waited_ns),
        .idle_ns = atomic_load(&vgpu->idle_ns),
        .waits = atomic_load(&vgpu->waits),
        .revokes = atomic_load(&vgpu->revokes),
        .overruns = atomic_load(&vgpu->overruns),
        .overrun_ns = atomic_load(&vgpu->overrun_ns),
        .share_interval = SNAPSHOT_UNKNOWN,
    };
    if (out->gpu >= POOL_MAX_GPUS || atomic_load(&reader->layout->gpus[out->gpu].state) != POOL_LIVE)
        return 0;
    copy_text(out->name, sizeof out->name, vgpu->name, sizeof vgpu->name);
    int rc = read_processes(reader, vgpu, out);
    if (rc)
        return rc;
    // Including those of the dead: they happened, and a falling counter would look like a wrong rate.
    out->launches = pool_vgpu_launches(reader->layout, index);
    out->waiting = pool_bit_get(reader->layout->gpus[out->gpu].wanting, index);
    read_grant(reader, vgpu, out);
    read_histogram(&vgpu->wait, out->wait);
    read_histogram(&vgpu->handover, out->handover);
    read_histogram(&vgpu->drain, out->drain);
    out->share_since_start = part(out->held_ns, now_ns > out->created_ns ? now_ns - out->created_ns : 0);
    return 0;
}

static int read_pool(struct snapshot *snapshot, struct reader *reader)
{
    uint32_t place[POOL_MAX_GPUS];
    for (uint32_t i = 0; i < POOL_MAX_GPUS; i++) {
        place[i] = POOL_NO_INDEX;
        if (atomic_load(&reader->layout->gpus[i].state) != POOL_LIVE)
            continue;
        place[i] = (uint32_t)snapshot->gpu_count;
        read_gpu(reader, i, &snapshot->gpus[snapshot->gpu_count++]);
    }
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        if (atomic_load(&reader->layout->vgpus[i].state) != POOL_LIVE)
            continue;
        struct snapshot_vgpu *vgpu = &snapshot->vgpus[snapshot->vgpu_count];
        int rc = read_vgpu(reader, i, snapshot->at_ns, vgpu);
        if (rc)
            return rc;
        if (vgpu->process_count == 0)
            continue;
        if (place[vgpu->gpu] == POOL_NO_INDEX) { // the GPU was entered a moment ago
            free(vgpu->processes);
            continue;
        }
        snapshot->vgpu_count++;
        struct snapshot_gpu *gpu = &snapshot->gpus[place[vgpu->gpu]];
        if (vgpu->quota_bytes)
            gpu->reserved_bytes = saturating_add(gpu->reserved_bytes, vgpu->quota_bytes);
        else
            gpu->open_used_bytes = saturating_add(gpu->open_used_bytes, vgpu->used_bytes);
        if (vgpu->holder)
            gpu->holder = i;
    }
    return 0;
}

int snapshot_take(struct snapshot *snapshot, const char *path, struct error *error)
{
    *snapshot = (struct snapshot){0};
    snprintf(snapshot->path, sizeof snapshot->path, "%s", path);
    struct pool pool;
    int rc = pool_open_readonly(&pool, path, error);
    snapshot->at_ns = clock_now_ns();
    if (rc == -ENOENT)
        return 0;
    if (rc)
        return rc;
    snapshot->exists = true;
    snapshot->version = POOL_VERSION;
    struct reader reader = {.layout = pool.layout, .chunk_bytes = pool.chunk_bytes};
    snapshot->chunk_bytes = reader.chunk_bytes;
    rc = find_living(&reader, &pool, error);
    if (!rc) {
        rc = read_pool(snapshot, &reader);
        if (rc)
            error_set(error, rc, "out of memory");
    }
    pool_close(&pool);
    return rc;
}

static const struct snapshot_vgpu *same_vgpu(const struct snapshot *before, const struct snapshot_vgpu *vgpu)
{
    for (size_t i = 0; i < before->vgpu_count; i++)
        if (before->vgpus[i].index == vgpu->index && before->vgpus[i].created_ns == vgpu->created_ns)
            return &before->vgpus[i];
    return NULL;
}

void snapshot_compare(struct snapshot *now, const struct snapshot *before)
{
    now->interval_ns = now->at_ns > before->at_ns ? now->at_ns - before->at_ns : 0;
    for (size_t i = 0; i < now->vgpu_count; i++) {
        struct snapshot_vgpu *vgpu = &now->vgpus[i];
        const struct snapshot_vgpu *then = same_vgpu(before, vgpu);
        if (!then) {
            // It came during the interval: it had nothing before.
            vgpu->share_interval = part(vgpu->held_ns, now->interval_ns);
            continue;
        }
        // Having the token without using it, as its holder does until somebody else asks, is no use of the GPU.
        bool idle = vgpu->launches == then->launches && vgpu->charged_ns == then->charged_ns && !vgpu->contended;
        uint64_t held_ns = vgpu->held_ns > then->held_ns ? vgpu->held_ns - then->held_ns : 0;
        vgpu->share_interval = idle ? 0 : part(held_ns, now->interval_ns);
    }
}

void snapshot_clear(struct snapshot *snapshot)
{
    for (size_t i = 0; i < POOL_MAX_VGPUS; i++)
        free(snapshot->vgpus[i].processes);
    *snapshot = (struct snapshot){0};
}
