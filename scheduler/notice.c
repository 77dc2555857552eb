// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/notice.h"

#include "pool/pool.h"
#include "scheduler/bell.h"
#include "scheduler/policy.h"
#include "scheduler/token.h"

static uint64_t weight_of(uint32_t weight, uint32_t priority)
{
    const struct policy_entry entry = {.weight = weight,
                                       .class = priority <= POLICY_LOW ? (enum policy_class)priority : POLICY_NORMAL};
    return policy_weight(&entry);
}

static void keep_distance(struct pool_vgpu *vgpu, uint64_t level, uint64_t before, uint64_t now)
{
    uint64_t pass = atomic_load(&vgpu->pass);
    bool ahead = pass > level;
    unsigned __int128 distance = ahead ? pass - level : level - pass;
    distance = distance * before / now;
    if (distance > POLICY_PASS_MAX || (!ahead && distance > level))
        return; // nonsense, or more than ever existed
    uint64_t to = ahead ? level + (uint64_t)distance : level - (uint64_t)distance;
    // As a difference: no simultaneous charge is lost.
    atomic_fetch_add(&vgpu->pass, to - pass);
}

void notice_limit(struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    struct pool_gpu *gpu = &layout->gpus[pool_gpu_of(record)];
    uint64_t word = atomic_load(&gpu->token);
    // The agent clears the flag again if nothing asks for it.
    while (atomic_load(&record->limit_percent) && token_holder(word) == vgpu && !(word & TOKEN_CONTENDED) &&
           !atomic_compare_exchange_weak(&gpu->token, &word, word | TOKEN_CONTENDED))
        ;
}

void notice_change(struct pool_layout *layout, uint32_t vgpu, uint32_t weight_before, uint32_t priority_before)
{
    struct pool_vgpu *record = &layout->vgpus[vgpu];
    struct pool_gpu *gpu = &layout->gpus[pool_gpu_of(record)];
    uint64_t before = weight_of(weight_before, priority_before);
    uint64_t now = weight_of(atomic_load(&record->weight), atomic_load(&record->priority));
    if (now != before)
        keep_distance(record, atomic_load(&gpu->level), before, now);
    notice_limit(layout, vgpu);
    POOL_EACH_BIT(process, record->members, POOL_MAX_PROCESSES)
    bell_ring(layout, process);
}
