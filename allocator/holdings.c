// SPDX-License-Identifier: AGPL-3.0-or-later
#include "allocator/holdings.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/clock.h"

// An allocation about to be refused waits at most this long for whoever has the pool lock.
#define REAP_PATIENCE_NS (100 * NS_PER_MS)
// The driver was seen to get a killed process's memory back 70 ms after the kill (H100, driver 580).
#define RETURN_PATIENCE_NS (250 * NS_PER_MS)
#define RETURN_MEMORY_NS (2 * NS_PER_S) // an earlier death explains no shortage
#define RETURN_LOOK_NS (5 * NS_PER_MS)

static uint64_t chunk_bytes(const struct holdings *holdings)
{
    return holdings->pool->chunk_bytes;
}

static struct account_ref account_of(const struct holdings *holdings)
{
    struct pool_layout *layout = holdings->pool->layout;
    return (struct account_ref){layout, pool_account(layout, holdings->vgpu), holdings->process, holdings->gpu};
}

void holdings_init(struct holdings *holdings, struct pool *pool, uint32_t process, uint32_t gpu, uint32_t vgpu)
{
    *holdings = (struct holdings){.pool = pool, .process = process, .gpu = gpu, .vgpu = vgpu};
    pthread_mutex_init(&holdings->mutex, NULL);
}

static bool is_open(const struct pool_layout *layout, uint32_t vgpu)
{
    return atomic_load(&layout->vgpus[vgpu].quota_chunks) == 0;
}

// -EAGAIN: refused for a lower quota that is only being tried.
static int reserve_chunks(struct holdings *holdings, uint64_t chunks, bool anyway)
{
    struct pool_layout *layout = holdings->pool->layout;
    struct account_ref account = account_of(holdings);
    if (anyway)
        return account_add(&account, (int64_t)chunks, ACCOUNT_MAX_COUNT);
    for (;;) {
        uint64_t limit = pool_vgpu_limit(layout, holdings->vgpu);
        int rc = account_add(&account, (int64_t)chunks, limit);
        // The other half of the handshakes with reservation_make and with try_quota in pool/change.c: charged first, then check
        // whether the limit has been lowered meanwhile.
        if (rc == 0 && account_count(account.word) > (limit = pool_vgpu_limit(layout, holdings->vgpu))) {
            account_add(&account, -(int64_t)chunks, ACCOUNT_MAX_COUNT);
            rc = -ENOMEM;
        }
        if (rc != -ENOMEM)
            return rc;
        // In this order: whoever takes a quota back stores it before removing the mark.
        bool tried = atomic_load(&layout->vgpus[holdings->vgpu].quota_before) != 0;
        if (pool_vgpu_limit(layout, holdings->vgpu) <= limit)
            return tried ? -EAGAIN : -ENOMEM;
    }
}

static bool shares_account(const struct holdings *holdings)
{
    const struct pool_layout *layout = holdings->pool->layout;
    const struct pool_vgpu *vgpu = &layout->vgpus[holdings->vgpu];
    uint32_t first = pool_bit_next(vgpu->members, POOL_MAX_PROCESSES, 0);
    return is_open(layout, holdings->vgpu) ||
           (first < POOL_MAX_PROCESSES && pool_bit_next(vgpu->members, POOL_MAX_PROCESSES, first + 1) < POOL_MAX_PROCESSES);
}

static bool reap(const struct holdings *holdings)
{
    struct pool *pool = holdings->pool;
    struct error error;
    int saved = errno, cancel = cancel_disable();
    int lock = pool_lock(pool, REAP_PATIENCE_NS, &error), reaped = lock;
    if (lock >= 0) {
        reaped = pool_reap(pool);
        pool_unlock(lock);
    }
    cancel_restore(cancel);
    errno = saved;
    return reaped >= 0; // even if nobody was found dead: another process may have been faster
}

bool holdings_reap(const struct holdings *holdings)
{
    return shares_account(holdings) && reap(holdings);
}

static void note_peak(struct holdings *holdings)
{
    struct pool_layout *layout = holdings->pool->layout;
    _Atomic uint64_t *peak = &layout->vgpus[holdings->vgpu].peak_chunks;
    uint64_t used = pool_vgpu_used(layout, holdings->vgpu), limit = pool_vgpu_limit(layout, holdings->vgpu);
    uint64_t seen = atomic_load(peak);
    // The members' figures are added up one after the other, while they change: the sum may be one that never existed.
    used = used < limit ? used : limit;
    while (used > seen && !atomic_compare_exchange_weak(peak, &seen, used))
        ;
}

static int take_locked(struct holdings *holdings, uint64_t bytes, bool anyway)
{
    uint64_t chunk = chunk_bytes(holdings);
    if (bytes > INT64_MAX - holdings->bytes)
        return -ENOMEM;
    uint64_t chunks = holdings_round_up(holdings->bytes + bytes, chunk) / chunk;
    if (chunks > ACCOUNT_MAX_COUNT)
        return -ENOMEM;
    if (chunks > holdings->chunks) {
        int rc = reserve_chunks(holdings, chunks - holdings->chunks, anyway);
        if (rc)
            return rc;
        holdings->chunks = chunks;
        note_peak(holdings);
    }
    holdings->bytes += bytes;
    return 0;
}

static int take(struct holdings *holdings, uint64_t bytes)
{
    pthread_mutex_lock(&holdings->mutex);
    int rc = take_locked(holdings, bytes, false);
    pthread_mutex_unlock(&holdings->mutex);
    return rc;
}

int holdings_take_now(struct holdings *holdings, uint64_t bytes)
{
    int rc = take(holdings, bytes);
    return rc == -EAGAIN ? -ENOMEM : rc;
}

void holdings_impose(struct holdings *holdings, uint64_t bytes)
{
    pthread_mutex_lock(&holdings->mutex);
    take_locked(holdings, bytes, true);
    pthread_mutex_unlock(&holdings->mutex);
}

int holdings_take(struct holdings *holdings, uint64_t bytes)
{
    int rc = take(holdings, bytes);
    // Whoever tries a lower quota holds the pool lock until that is decided.
    if (rc == -EAGAIN ? reap(holdings) : rc == -ENOMEM && holdings_reap(holdings))
        rc = take(holdings, bytes);
    return rc == -EAGAIN ? -ENOMEM : rc;
}

bool holdings_await_return(const struct holdings *holdings, uint64_t *deadline_ns)
{
    uint64_t now = clock_now_ns();
    uint64_t reaped = atomic_load(&holdings->pool->layout->header.reaped_ns);
    if (reaped == 0 || now - reaped > RETURN_MEMORY_NS)
        return false;
    if (*deadline_ns == 0)
        *deadline_ns = now + RETURN_PATIENCE_NS;
    if (now >= *deadline_ns)
        return false;
    int saved = errno, cancel = cancel_disable();
    clock_sleep_ns(RETURN_LOOK_NS);
    cancel_restore(cancel);
    errno = saved;
    return true;
}

void holdings_give(struct holdings *holdings, uint64_t bytes)
{
    pthread_mutex_lock(&holdings->mutex);
    uint64_t chunk = chunk_bytes(holdings);
    holdings->bytes -= bytes < holdings->bytes ? bytes : holdings->bytes;
    uint64_t chunks = holdings_round_up(holdings->bytes, chunk) / chunk;
    if (chunks < holdings->chunks) {
        struct account_ref account = account_of(holdings);
        account_add(&account, -(int64_t)(holdings->chunks - chunks), ACCOUNT_MAX_COUNT);
        holdings->chunks = chunks;
    }
    pthread_mutex_unlock(&holdings->mutex);
}

void holdings_count_refusal(struct holdings *holdings, uint64_t bytes)
{
    struct pool_vgpu *vgpu = &holdings->pool->layout->vgpus[holdings->vgpu];
    atomic_fetch_add_explicit(&vgpu->refusals, 1, memory_order_relaxed);
    // Programs ask for 2^64 bytes to see what happens: the sum stays at its greatest value.
    uint64_t sum = atomic_load_explicit(&vgpu->refused_bytes, memory_order_relaxed), more;
    do
        more = bytes > UINT64_MAX - sum ? UINT64_MAX : sum + bytes;
    while (
        !atomic_compare_exchange_weak_explicit(&vgpu->refused_bytes, &sum, more, memory_order_relaxed, memory_order_relaxed));
}

struct holdings_view holdings_look(const struct holdings *holdings)
{
    struct pool_layout *layout = holdings->pool->layout;
    uint64_t chunk = chunk_bytes(holdings);
    uint64_t limit = pool_vgpu_limit(layout, holdings->vgpu);
    // A tenant without a quota competes with all others without one, so their use too lessens what is free to it.
    uint64_t taken = account_count(pool_account(layout, holdings->vgpu));
    if (limit > UINT64_MAX / chunk)
        limit = UINT64_MAX / chunk; // a damaged pool
    return (struct holdings_view){
        .total_bytes = limit * chunk,
        .used_bytes = pool_vgpu_used(layout, holdings->vgpu) * chunk,
        .free_bytes = taken < limit ? (limit - taken) * chunk : 0,
    };
}

bool holdings_may_fit(const struct holdings *holdings, uint64_t bytes)
{
    return bytes <= holdings_look(holdings).free_bytes + chunk_bytes(holdings);
}

uint64_t holdings_of_all(const struct holdings *holdings, uint64_t *stamp)
{
    struct pool_layout *layout = holdings->pool->layout;
    uint64_t chunks = 0;
    *stamp = 0;
    POOL_EACH_BIT(vgpu, layout->gpus[holdings->gpu].vgpus, POOL_MAX_VGPUS)
    {
        chunks += pool_vgpu_used(layout, vgpu);
        *stamp = *stamp * 31 + atomic_load(pool_account(layout, vgpu)); // the word names its last operation
    }
    return chunks * chunk_bytes(holdings);
}
