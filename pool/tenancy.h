// SPDX-License-Identifier: AGPL-3.0-or-later
// The contents of the pool: physical GPUs, virtual GPUs and their members, and reclaiming what dead processes held.
//
// Invariants, each restored by pool_reap whatever a killed process left behind
//  - A virtual GPU lives exactly as long as it has a member.
//  - gpu.reserved_chunks == the sum of the quotas of the virtual GPUs on it. Together with what the virtual GPUs without a
//    quota hold, it never exceeds total_chunks (except in a pool made for overcommit).
//  - A member record names a virtual GPU exactly while that virtual GPU's bitmap names the process.
//
// Everything here happens under the pool lock, except in the readers.
#ifndef VGPU_POOL_TENANCY_H
#define VGPU_POOL_TENANCY_H

#include "base/priority.h"
#include "pool/account.h"
#include "pool/pool.h"

#define TENANCY_DEFAULT_WEIGHT 100u

// What a process requests of its virtual GPU on one physical GPU. Zero and NULL mean: not specified, accept what is there.
struct tenancy_request {
    const char *name; // NULL: a virtual GPU of its own, named after the process
    uint64_t quota_chunks;
    uint32_t weight;
    uint32_t limit_percent; // of the GPU's time; 100: no limit
    const enum priority *priority;
    const uint64_t *quantum_ns; // of 0: chosen by the scheduler
    uint32_t concurrency;
    bool mps; // the process's contexts on that GPU are clients of MPS
};

// The index of the GPU with this UUID, added to the pool if it is new; or -errno.
int pool_gpu_enter(struct pool *pool, const uint8_t uuid[POOL_UUID_BYTES], const char *name, uint64_t total_bytes,
                   struct error *error);

// The virtual GPU of this name on a GPU, or -ENOENT.
int pool_vgpu_find(const struct pool *pool, uint32_t gpu, const char *name);

// Makes the process a member of the virtual GPU it asks for, creating that if it does not exist. Refuses (-EEXIST) options that
// differ from those of an existing virtual GPU and (-ENOMEM) a quota that does not fit beside what is reserved and held;
// `error` then says by which ones. A GPU counts as shared through MPS while all members joined as MPS clients; what was learned
// about its switches is forgotten when that changes. Returns the virtual GPU's index.
int pool_vgpu_join(struct pool *pool, uint32_t process, uint32_t gpu, const struct tenancy_request *request,
                   struct error *error);

// Ends the membership of a process on all GPUs and frees its slot: everything it holds in the pool is given back. For the
// calling process's own detach; pool_reap calls it for dead ones.
void pool_leave(struct pool *pool, uint32_t process);

// Reclaims the slots of all dead processes and what they held. Returns how many there were, or -errno.
int pool_reap(struct pool *pool);

// The same for who does not hold the pool lock; nothing where another process does, which does the same.
void pool_try_reap(struct pool *pool);

// The account that a virtual GPU's members charge: its own if it has a quota, else the GPU's open account.
_Atomic uint64_t *pool_account(struct pool_layout *layout, uint32_t vgpu);

// Chunks that a virtual GPU's members hold, the most chunks it may hold, and (below) launches of all its members so far.
uint64_t pool_vgpu_used(const struct pool_layout *layout, uint32_t vgpu);
uint64_t pool_vgpu_limit(const struct pool_layout *layout, uint32_t vgpu);
// Takes back a lower quota that was only being tried. Under the pool lock.
void pool_vgpu_restore_quota(struct pool_vgpu *vgpu);
// Updates the GPU's set of virtual GPUs of the high class after a class was changed. Under the pool lock.
void pool_vgpu_note_class(struct pool_layout *layout, uint32_t vgpu);
uint64_t pool_vgpu_launches(const struct pool_layout *layout, uint32_t vgpu);

#endif
