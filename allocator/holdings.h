// SPDX-License-Identifier: AGPL-3.0-or-later
// What this process holds of one GPU's physical memory: in bytes, as the driver takes them, and in chunks, as the ledger counts
// them.
//
// Invariants
//  - chunks == bytes rounded up to whole chunks == what the pool's account holds on behalf of this process.
//  - Memory is taken here before it is taken from the driver, and given back here after it was given back to the driver. So the
//    ledger never says less than the truth, and a quota is never exceeded.
//  - holdings_take takes all or nothing.
// Thread safe. The mutex is the innermost lock of the library; nothing blocks under it.
#ifndef VGPU_ALLOCATOR_HOLDINGS_H
#define VGPU_ALLOCATOR_HOLDINGS_H

#include <pthread.h>
#include <stdint.h>

#include "pool/tenancy.h"

// The driver takes physical memory in blocks of this size (H100, driver 580: every allocation above 1 MiB is a whole number of
// blocks, smaller ones share blocks).
#define HOLDINGS_BLOCK_BYTES (2ull << 20)

static inline uint64_t holdings_round_up(uint64_t bytes, uint64_t unit)
{
    return bytes > UINT64_MAX - unit ? UINT64_MAX / unit * unit : (bytes + unit - 1) / unit * unit;
}

// a times b, or the largest number if that is more.
static inline uint64_t holdings_product(uint64_t a, uint64_t b)
{
    uint64_t result;
    return __builtin_mul_overflow(a, b, &result) ? UINT64_MAX : result;
}

struct holdings {
    struct pool *pool;
    uint32_t process; // slot in the pool
    uint32_t gpu;     // index in the pool
    uint32_t vgpu;    // index in the pool
    pthread_mutex_t mutex;
    uint64_t bytes;
    uint64_t chunks;
};

// What the tenant is told about its GPU, in bytes.
struct holdings_view {
    uint64_t total_bytes; // the quota; without one, what is not reserved
    uint64_t used_bytes;  // held by all processes of the virtual GPU
    uint64_t free_bytes;  // total - used; what the driver has free may be less
};

void holdings_init(struct holdings *holdings, struct pool *pool, uint32_t process, uint32_t gpu, uint32_t vgpu);

// Takes `bytes` more. Returns 0, or -ENOMEM if they do not fit the quota (or, without one, what is not reserved). If others
// share the account, or while a lower quota is being tried, it reclaims what dead processes held and tries again before it
// refuses. For that it may wait for the pool lock, so call it without a lock. Preserves errno.
int holdings_take(struct holdings *holdings, uint64_t bytes);

// Takes `bytes` more whether they fit or not: for memory that exists and that no other process pays for any more.
void holdings_impose(struct holdings *holdings, uint64_t bytes);

// holdings_take without the second attempt: never waits.
int holdings_take_now(struct holdings *holdings, uint64_t bytes);

// Whether `bytes` more may fit: the process's last chunk may have room for some of it. Takes nothing.
bool holdings_may_fit(const struct holdings *holdings, uint64_t bytes);

// If others share the account: reclaims what dead processes held, waiting at most a tenth of a second for others that do the
// same. Returns whether another attempt is worthwhile. Call it without a lock. Preserves errno.
bool holdings_reap(const struct holdings *holdings);

// For a request that the ledger has granted but for which the driver is out of memory. If the memory may be that of a process
// that died a moment ago and is still on its way back, sleeps a little and returns true: ask again. *deadline_ns starts at 0.
// Preserves errno.
bool holdings_await_return(const struct holdings *holdings, uint64_t *deadline_ns);

// Gives `bytes` back, at most what is held.
void holdings_give(struct holdings *holdings, uint64_t bytes);

// Counts a refused request of `bytes` for monitoring.
void holdings_count_refusal(struct holdings *holdings, uint64_t bytes);

struct holdings_view holdings_look(const struct holdings *holdings);

// What all members of the pool hold of this GPU. *stamp changes whenever one of them takes or gives a chunk.
uint64_t holdings_of_all(const struct holdings *holdings, uint64_t *stamp);

#endif
