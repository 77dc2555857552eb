// SPDX-License-Identifier: AGPL-3.0-or-later
// Reservations: how much of a GPU's memory is promised to virtual GPUs with a quota.
//
// Invariant: gpu.reserved_chunks == reservation_sum, except while a quota is being reserved; it is then at least that.
// All functions are called under the pool lock.
#ifndef VGPU_POOL_RESERVATION_H
#define VGPU_POOL_RESERVATION_H

#include "pool/pool.h"

static inline bool pool_vgpu_is_on(const struct pool_vgpu *vgpu, uint32_t gpu)
{
    return atomic_load(&vgpu->state) == POOL_LIVE && vgpu->gpu == gpu;
}

// The sum of the quotas of the virtual GPUs on a GPU.
uint64_t reservation_sum(const struct pool_layout *layout, uint32_t gpu);

// Reserves a quota for virtual GPU `vgpu`, replacing its present one, or, with POOL_NO_INDEX, for one yet to be created.
// Returns 0, or -ENOMEM if it does not fit beside what others have reserved and hold; `error` then names them. The caller
// stores the quota itself; reservation_recount takes back what is not used.
int reservation_make(struct pool *pool, uint32_t gpu, uint32_t vgpu, uint64_t quota_chunks, struct error *error);

void reservation_recount(struct pool_layout *layout, uint32_t gpu);

#endif
