// SPDX-License-Identifier: AGPL-3.0-or-later
// Mapping the pool, the pool lock, and the lifetime of process slots.
//
// Invariants
//  - A pool file appears whole or not at all: it is filled in while unnamed and then linked to its name, so a partial one is
//    never visible.
//  - The library keeps no file descriptor. A process slot is held by an open-file-description lock, and the mapping keeps that
//    description alive after its descriptor is closed: neither a program that closes all descriptors nor a forked child (the
//    mapping is not inherited) can drop or prolong it. It ends when the process's address space does, however the process dies.
//  - Liveness is never judged by pid.
//  - The pool lock is a kernel-held lock, released by the death of its holder. Everything done under it can be repeated or
//    repaired by the next holder: see pool/tenancy.h.
//  - Lock order: pool lock, then a member's own mutex. Nothing that may block on the GPU happens under either.
#ifndef VGPU_POOL_POOL_H
#define VGPU_POOL_POOL_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/histogram.h"
#include "pool/layout.h"

#define POOL_DEFAULT_CHUNK_BYTES (2ull << 20) // the driver's physical block
#define POOL_MIN_CHUNK_BYTES POOL_DEFAULT_CHUNK_BYTES
#define POOL_MAX_CHUNK_BYTES (1ull << 30)

struct pool {
    struct pool_layout *layout; // NULL while not open
    dev_t device;               // identity of the mapped file
    ino_t inode;
    uint64_t chunk_bytes; // from the header, checked once: a value that others may overwrite must not become a divisor
    char path[PATH_MAX];  // absolute: the program may change its working directory
};

// The name of the pool file: `configured` if given, else /run/vgpu/pool if an administrator made that directory for a group
// that this process is in, else the user's own /dev/shm/vgpu.<uid>.
void pool_default_path(char path[PATH_MAX], const char *configured);

// Opens the pool at `path`, creating it if there is none. chunk_bytes is the chunk of a new pool (0: the default); if the pool
// exists, it must be 0 or the pool's own. No slot is claimed yet. Returns 0, or -errno with `error` filled in.
int pool_open(struct pool *pool, const char *path, uint64_t chunk_bytes, struct error *error);

// Opens an existing pool, to change it or only to read it; the latter mapping cannot be written. -ENOENT if there is none.
int pool_open_existing(struct pool *pool, const char *path, struct error *error);
int pool_open_readonly(struct pool *pool, const char *path, struct error *error);

// Unmaps the pool, which makes a slot claimed through this mapping dead.
void pool_close(struct pool *pool);

// For a forked child: forgets the pool, whose mapping the child did not inherit, and closes inherited descriptors that another
// thread of the parent had open for a moment; each would keep a lock of the parent's alive. Async-signal-safe.
void pool_forget_after_fork(struct pool *pool);

// The lock is held for microseconds; a process that holds it for this long is stopped or stuck.
#define POOL_LOCK_PATIENCE_NS 5000000000ull

// Takes the pool lock, trying for patience_ns (0: once), and returns the descriptor that holds it, for pool_unlock; or -errno,
// with -ETIMEDOUT if another process keeps it. Not recursive.
int pool_lock(struct pool *pool, uint64_t patience_ns, struct error *error);
void pool_unlock(int lock);

// Claims a free process slot for the caller, for as long as `pool` stays mapped. Call under the pool lock, after reaping. The
// pool must have been opened by pool_open in this process. Each mapping holds one slot: a process that wants several opens the
// pool several times. Returns the slot, or -errno (-ENOSPC: all slots are taken).
int pool_claim(struct pool *pool, struct error *error);

// Whether the owner of `slot` is alive, by its lock; `probe` is a descriptor from pool_probe_open. If that cannot be
// determined, it counts as alive: nothing is taken from a process that may live.
bool pool_alive(int probe, uint32_t slot);

// A descriptor for pool_alive; -errno if the pool file can't be reached under its name (-ESTALE: removed or replaced).
int pool_probe_open(const struct pool *pool);
void pool_probe_close(int probe);

// The index of a virtual GPU's GPU: within bounds, whatever the pool says.
static inline uint32_t pool_gpu_of(const struct pool_vgpu *vgpu)
{
    return vgpu->gpu % POOL_MAX_GPUS;
}

static inline bool pool_bit_get(const _Atomic uint64_t *bits, uint32_t index)
{
    return atomic_load_explicit(&bits[index / 64], memory_order_acquire) >> (index % 64) & 1;
}

static inline void pool_bit_set(_Atomic uint64_t *bits, uint32_t index)
{
    atomic_fetch_or(&bits[index / 64], 1ull << (index % 64));
}

static inline void pool_bit_clear(_Atomic uint64_t *bits, uint32_t index)
{
    atomic_fetch_and(&bits[index / 64], ~(1ull << (index % 64)));
}

// The first set bit at or after `from` among `count` bits, or `count`.
static inline uint32_t pool_bit_next(const _Atomic uint64_t *bits, uint32_t count, uint32_t from)
{
    for (uint32_t i = from; i < count; i = (i / 64 + 1) * 64) {
        uint64_t word = atomic_load_explicit(&bits[i / 64], memory_order_acquire) >> (i % 64);
        uint32_t found = word ? i + (uint32_t)__builtin_ctzll(word) : count;
        if (word)
            return found < count ? found : count;
    }
    return count;
}

#define POOL_EACH_BIT(index, bits, count)                                                                                      \
    for (uint32_t index = pool_bit_next(bits, count, 0); index < (count); index = pool_bit_next(bits, count, index + 1))

static inline void pool_histogram_add(struct pool_histogram *histogram, uint64_t ns)
{
    uint32_t bucket = histogram_bucket(ns, POOL_HISTOGRAM_BUCKETS);
    atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
}

#endif
