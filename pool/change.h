// SPDX-License-Identifier: AGPL-3.0-or-later
// Changing the options of live virtual GPUs.
//
// Invariants
//  - Several changes take effect all or none. If the changer is killed while it only tries a lower quota, pool_reap takes that
//    quota back (vgpu.quota_before).
//  - No quota becomes smaller than what is held. The changer stores a lower quota first and looks at the account second; an
//    allocating process charges first and looks at the quota second (reserve_chunks in allocator/holdings.c): one of them sees
//    the other and backs off.
//  - A virtual GPU has a quota for its whole life or never: its members' charges would otherwise be in the wrong account.
#ifndef VGPU_POOL_CHANGE_H
#define VGPU_POOL_CHANGE_H

#include "pool/tenancy.h"

// The changes to one virtual GPU. Zero and NULL mean: unchanged.
struct pool_change {
    uint32_t vgpu;
    uint64_t quota_chunks;
    bool contextless; // its members are not charged for contexts, so its quota may be smaller than one
    uint32_t weight;
    uint32_t limit_percent; // 100: none
    const enum priority *priority;
    const uint64_t *quantum_ns; // of 0: chosen by the scheduler
    uint32_t concurrency;
};

// Makes the changes, no two of which may be of one virtual GPU or of virtual GPUs on the same GPU. Returns 0, or -errno with
// the reason in `error`. Under the pool lock, after reaping.
int pool_change(struct pool *pool, const struct pool_change *changes, size_t count, struct error *error);

#endif
