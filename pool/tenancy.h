// SPDX-License-Identifier: AGPL-3.0-or-later
// Who is in the pool: physical GPUs, virtual GPUs and their members, and what is taken back from the dead.
//
// Invariants, each restored by pool_reap whatever a killed process left behind
//  - A virtual GPU lives exactly as long as it has a member.
//  - gpu.reserved_chunks == the sum of the quotas of the virtual GPUs on it, and with what the virtual GPUs without a quota hold
//    it never exceeds total_chunks (but in a pool made for overcommit).
//  - A member record names a virtual GPU exactly while that virtual GPU's bitmap names the process.
//
// Everything here happens under the pool lock, but for the readers.
#ifndef VGPU_POOL_TENANCY_H
#define VGPU_POOL_TENANCY_H

#include "base/priority.h"
#include "pool/account.h"
#include "pool/pool.h"

#define TENANCY_DEFAULT_WEIGHT 100u

// What a process asks of its virtual GPU on one physical GPU. Zero and NULL mean: nothing asked, agree with what is there.
struct tenancy_request {
    const char *name; // NULL: a virtual GPU of its own, named after the process
    uint64_t quota_chunks;
    uint32_t weight;
    uint32_t limit_percent; // of the GPU's time; 100: no limit
    const enum priority *priority;
    uint64_t quantum_ns;
    uint32_t concurrency;
    bool mps; // the process's contexts on that GPU are clients of MPS
};

// The index of the GPU with this UUID, added to the pool where it is new; or -errno.
int pool_gpu_enter(struct pool *pool, const uint8_t uuid[POOL_UUID_BYTES], const char *name, uint64_t total_bytes,
                   struct error *error);

// The virtual GPU of this name on a GPU, or -ENOENT.
int pool_vgpu_find(const struct pool *pool, uint32_t gpu, const char *name);

// Makes the process a member of the virtual GPU it asks for, creating that where it does not exist. Refuses (-EEXIST) options that
// differ from those of the virtual GPU joined and (-ENOMEM) a quota that does not fit beside what is reserved and held; `error`
// then says by whom. A GPU counts as shared through MPS while all who have joined do so as clients; what was learned about its switches
// is forgotten where that changes. Returns the virtual GPU's index.
int pool_vgpu_join(struct pool *pool, uint32_t process, uint32_t gpu, const struct tenancy_request *request,
                   struct error *error);

// Ends the membership of a process on all GPUs and frees its slot: it gives back everything it holds in the pool. For the
// calling process's own detach, or by pool_reap for a dead one.
void pool_leave(struct pool *pool, uint32_t process);

// Takes back the slots of all dead processes and what they held. Returns how many there were, or -errno.
int pool_reap(struct pool *pool);

// The account that a virtual GPU's members charge: its own where it has a quota, else the GPU's open account.
_Atomic uint64_t *pool_account(struct pool_layout *layout, uint32_t vgpu);

// Chunks that a virtual GPU's members hold, chunks it may hold at most, and launches of all its members so far.
uint64_t pool_vgpu_used(const struct pool_layout *layout, uint32_t vgpu);
uint64_t pool_vgpu_limit(const struct pool_layout *layout, uint32_t vgpu);
// Takes back a lower quota that was only being tried. Under the pool lock.
void pool_vgpu_restore_quota(struct pool_vgpu *vgpu);
// Keeps the GPU's set of those of the high class right after a class was changed. Under the pool lock.
void pool_vgpu_note_class(struct pool_layout *layout, uint32_t vgpu);
uint64_t pool_vgpu_launches(const struct pool_layout *layout, uint32_t vgpu);

#endif
