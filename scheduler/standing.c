// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/standing.h"

#include "scheduler/grant.h"
#include "scheduler/turn.h"

struct policy_rules standing_rules(const struct gate *gate)
{
    return (struct policy_rules){.switch_ns = turn_switch_ns(gate->gpu), .shortest_ns = TURN_SHORTEST_NS};
}

struct policy_entry standing_of(const struct gate *gate, uint32_t index)
{
    const struct pool_vgpu *vgpu = &gate->pool->layout->vgpus[index];
    uint32_t priority = atomic_load_explicit(&vgpu->priority, memory_order_relaxed);
    uint64_t quantum_ns = atomic_load_explicit(&vgpu->quantum_ns, memory_order_relaxed);
    return (struct policy_entry){
        .vgpu = index,
        .weight = atomic_load_explicit(&vgpu->weight, memory_order_relaxed),
        .class = priority <= POLICY_LOW ? (enum policy_class)priority : POLICY_NORMAL,
        .pass = atomic_load_explicit(&vgpu->pass, memory_order_relaxed),
        .quantum_ns = quantum_ns < TURN_LONGEST_NS ? quantum_ns : TURN_LONGEST_NS,
    };
}

struct policy_entry standing_of_holder(const struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct policy_entry entry = standing_of(gate, token_holder(word));
    uint64_t held = grant_since(grant_get(&gate->pool->layout->vgpus[entry.vgpu].begun, word), now_ns);
    uint64_t company = grant_get(&gate->gpu->company_ns, word);
    entry.pass += policy_pass(&entry, held > company ? held - company : 0);
    return entry;
}

uint32_t standing_cap(const struct pool_vgpu *vgpu)
{
    uint32_t percent = atomic_load_explicit(&vgpu->limit_percent, memory_order_relaxed);
    return percent < 100 ? percent : 0;
}

static void pay(struct pool_vgpu *vgpu, uint64_t now_ns, uint64_t used_ns)
{
    uint32_t percent = standing_cap(vgpu);
    uint64_t paid = atomic_load(&vgpu->paid_until_ns);
    while (percent &&
           !atomic_compare_exchange_weak(&vgpu->paid_until_ns, &paid, policy_cap_pay(paid, now_ns, used_ns, percent)))
        ;
}

void standing_use(const struct gate *gate, uint32_t index, uint64_t used_ns, uint64_t now_ns)
{
    struct pool_vgpu *vgpu = &gate->pool->layout->vgpus[index];
    struct policy_entry entry = standing_of(gate, index);
    atomic_fetch_add_explicit(&vgpu->pass, policy_pass(&entry, used_ns), memory_order_relaxed);
    // A cap may have come halfway through; what was used before is not held against it.
    uint64_t capped = grant_since(atomic_load_explicit(&vgpu->limited_ns, memory_order_relaxed), now_ns);
    pay(vgpu, now_ns, capped && capped < used_ns ? capped : used_ns);
}
