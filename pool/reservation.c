// SPDX-License-Identifier: AGPL-3.0-or-later
#include "pool/reservation.h"

#include <errno.h>

#include "pool/tenancy.h"

#define GIB(bytes) ((double)(bytes) / (1ull << 30))

uint64_t reservation_sum(const struct pool_layout *layout, uint32_t gpu)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++)
        if (pool_vgpu_is_on(&layout->vgpus[i], gpu))
            sum += atomic_load(&layout->vgpus[i].quota_chunks);
    return sum;
}

void reservation_recount(struct pool_layout *layout, uint32_t gpu)
{
    atomic_store(&layout->gpus[gpu].reserved_chunks, reservation_sum(layout, gpu));
}

// Says in words who, apart from `except`, has reserved or holds what.
static void describe(const struct pool *pool, uint32_t gpu, uint32_t except, char *text, size_t size)
{
    const struct pool_layout *layout = pool->layout;
    size_t length = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < POOL_MAX_VGPUS && length < size - 1; i++) {
        const struct pool_vgpu *vgpu = &layout->vgpus[i];
        if (!pool_vgpu_is_on(vgpu, gpu) || i == except)
            continue;
        uint64_t quota = atomic_load(&vgpu->quota_chunks);
        uint64_t used = quota ? quota : pool_vgpu_used(layout, i);
        if (used == 0)
            continue;
        int n = snprintf(text + length, size - length, "%s%.*s %s %.1f GiB", length ? ", " : "", (int)POOL_NAME_BYTES,
                         vgpu->name, quota ? "has reserved" : "holds", GIB(used * pool->chunk_bytes));
        length += n > 0 ? (size_t)n : 0;
    }
}

static int refuse(const struct pool *pool, uint32_t gpu, uint32_t vgpu, uint64_t quota_chunks, struct error *error)
{
    const struct pool_gpu *record = &pool->layout->gpus[gpu];
    char who[320];
    describe(pool, gpu, vgpu, who, sizeof who);
    return error_set(error, -ENOMEM, "a quota of %.1f GiB does not fit on %.*s with %.1f GiB%s%s",
                     GIB(quota_chunks * pool->chunk_bytes), (int)POOL_NAME_BYTES, record->name, GIB(record->total_bytes),
                     who[0] ? ": " : "", who);
}

// Raises the reservation first and looks at the open account second, while a tenant without a quota charges first and looks at
// the reservation second (reserve_chunks in allocator/holdings.c): whichever is later sees the other, so both never succeed on
// the same chunk.
int reservation_make(struct pool *pool, uint32_t gpu, uint32_t vgpu, uint64_t quota_chunks, struct error *error)
{
    struct pool_layout *layout = pool->layout;
    struct pool_gpu *record = &layout->gpus[gpu];
    uint64_t before = reservation_sum(layout, gpu);
    uint64_t others = before - (vgpu == POOL_NO_INDEX ? 0 : atomic_load(&layout->vgpus[vgpu].quota_chunks));
    atomic_store(&record->reserved_chunks, others + quota_chunks);
    if (quota_chunks == 0 || layout->header.flags & POOL_OVERCOMMIT ||
        others + quota_chunks + account_count(&record->open_used) <= record->total_chunks)
        return 0;
    atomic_store(&record->reserved_chunks, before);
    return refuse(pool, gpu, vgpu, quota_chunks, error);
}
