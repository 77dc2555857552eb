// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/company.h"

#include "base/clock.h"
#include "scheduler/bell.h"
#include "scheduler/grant.h"
#include "scheduler/standing.h"
#include "scheduler/turn.h"

// `gpu.company` is the grant that has or had companions, with the number of invitations where a token has its flags. If two
// agents of the holder invite at the same moment, one fails: each notes INVITED in the companion's record, where the other sees
// it, and opens the companion's gate only if there was no other invitation since it began to look for a place.
#define INVITED TOKEN_CONTENDED
#define INVITATION (1ull << 24)
#define INVITATIONS (0xffull << 24)
_Static_assert((INVITATIONS & (TOKEN_CONTENDED | TOKEN_REVOKED)) == (TOKEN_CONTENDED | TOKEN_REVOKED),
               "invitations are counted where a token has its flags");

static struct pool_vgpu *vgpu_of(const struct gate *gate, uint32_t index)
{
    return &gate->pool->layout->vgpus[index];
}

static bool is_of(uint64_t company, uint64_t word)
{
    return (company & ~INVITATIONS) == token_without_flags(word);
}

uint32_t company_next(const struct gate *gate, uint64_t word, uint32_t from)
{
    if (!is_of(atomic_load(&gate->gpu->company), word))
        return POOL_MAX_VGPUS;
    uint32_t index = pool_bit_next(gate->gpu->vgpus, POOL_MAX_VGPUS, from);
    while (index < POOL_MAX_VGPUS && !company_has(vgpu_of(gate, index), word))
        index = pool_bit_next(gate->gpu->vgpus, POOL_MAX_VGPUS, index + 1);
    return index;
}

static uint32_t concurrency_of(const struct pool_vgpu *vgpu)
{
    return atomic_load_explicit(&vgpu->concurrency, memory_order_relaxed);
}

static uint32_t size_of(const struct gate *gate, uint64_t word)
{
    uint32_t size = 1;
    COMPANY_EACH(vgpu, gate, word)
    size++;
    return size;
}

bool company_admits(const struct gate *gate, uint32_t index, uint64_t word)
{
    uint32_t holder = token_holder(word), size = 2;
    if (holder == POOL_NO_INDEX || concurrency_of(vgpu_of(gate, holder)) < 2 || concurrency_of(vgpu_of(gate, index)) < 2)
        return false;
    uint32_t most = concurrency_of(vgpu_of(gate, holder));
    COMPANY_EACH(vgpu, gate, word)
    {
        most = concurrency_of(vgpu_of(gate, vgpu)) < most ? concurrency_of(vgpu_of(gate, vgpu)) : most;
        size++;
    }
    return size <= most && size <= concurrency_of(vgpu_of(gate, index)) &&
           standing_of(gate, index).class == standing_of(gate, holder).class;
}

// Makes virtual GPU number `index` a companion, unless the grant is over or `gpu.company` has changed.
static bool invite(struct gate *gate, uint32_t index, uint64_t word, uint64_t company)
{
    struct pool_vgpu *vgpu = vgpu_of(gate, index);
    uint64_t grant = token_without_flags(word), invited = grant | INVITED;
    uint64_t before = atomic_load(&vgpu->companion), now = atomic_load(gate->token);
    // In this order: whatever a later grant writes makes the exchanges fail.
    if (token_without_flags(now) != grant || now & TOKEN_REVOKED)
        return false;
    if (token_without_flags(before) == grant || !atomic_compare_exchange_strong(&vgpu->companion, &before, invited))
        return false;
    uint64_t next = is_of(company, word) ? grant | ((company + INVITATION) & INVITATIONS) : grant;
    bool first = atomic_compare_exchange_strong(&gate->gpu->company, &company, next);
    return atomic_compare_exchange_strong(&vgpu->companion, &invited, first ? grant : 0) && first;
}

static void wake_waiters(const struct gate *gate, uint32_t index)
{
    futex_wake(token_futex(gate->gpu), token_futex_bit(index));
}

void company_invite(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    if (concurrency_of(gate->vgpu) < 2)
        return;
    // An invitation does not change the token, so the thread that was woken may have gone to sleep just after.
    if (gate->notes.invited != POOL_NO_INDEX)
        wake_waiters(gate, gate->notes.invited);
    gate->notes.invited = POOL_NO_INDEX;
    uint64_t company = atomic_load(&gate->gpu->company); // before the places are looked at
    struct policy_entry best = {.vgpu = POOL_NO_INDEX, .pass = UINT64_MAX};
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    if (vgpu != gate->vgpu_index && !company_has(vgpu_of(gate, vgpu), word) && company_admits(gate, vgpu, word) &&
        standing_of(gate, vgpu).pass < best.pass)
        best = standing_of(gate, vgpu);
    if (best.vgpu == POOL_NO_INDEX)
        return;
    struct policy_entry holder = standing_of_holder(gate, word, now_ns);
    struct policy_rules rules = standing_rules(gate);
    uint64_t before = best.pass;
    if (!policy_joins(&best, &holder, atomic_load(&gate->gpu->level), &rules) || !invite(gate, best.vgpu, word, company))
        return;
    atomic_fetch_add_explicit(&vgpu_of(gate, best.vgpu)->pass, best.pass - before, memory_order_relaxed);
    // If it does not come it is not invited again until it says once more that it waits.
    pool_bit_clear(gate->gpu->wanting, best.vgpu);
    gate->notes.invited = best.vgpu;
    wake_waiters(gate, best.vgpu);
}

void company_begin(struct gate *gate, uint64_t word)
{
    if (!grant_set(&gate->vgpu->shared_from, gate->token, word, 0, clock_now_ns()))
        return;
    pool_bit_clear(gate->gpu->wanting, gate->vgpu_index);
    atomic_fetch_add_explicit(&gate->vgpu->grants, 1, memory_order_relaxed);
}

void company_charge(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct pool_vgpu *vgpu = gate->vgpu;
    uint64_t from = grant_get(&vgpu->shared_from, word), size = size_of(gate, word);
    // In whole units, so that exactly what is booked here is deducted from the holder; the rest is left for the next time.
    uint64_t share = grant_since(from, now_ns) / size & ~((1ull << GRANT_UNIT_BITS) - 1);
    if (!share || !grant_set(&vgpu->shared_from, gate->token, word, from, from + share * size))
        return;
    if (!grant_add(&gate->gpu->company_ns, gate->token, word, share))
        return; // the grant is over, and its holder has been charged for all of it
    atomic_fetch_add_explicit(&vgpu->held_ns, share, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->charged_ns, share, memory_order_relaxed);
    standing_use(gate, gate->vgpu_index, share, now_ns);
}

bool company_must_leave(const struct gate *gate, uint64_t word, uint64_t now_ns)
{
    uint32_t size = size_of(gate, word); // was allowed when they came
    if (size > concurrency_of(gate->vgpu) || size > concurrency_of(vgpu_of(gate, token_holder(word))))
        return true;
    if (turn_cap_wait(gate, now_ns))
        return true;
    struct policy_entry own = standing_of(gate, gate->vgpu_index), holder = standing_of_holder(gate, word, now_ns);
    struct policy_rules rules = standing_rules(gate);
    return own.class != holder.class || policy_parts(&own, &holder, atomic_load(&gate->gpu->level), &rules);
}

uint32_t company_outrun(const struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct policy_entry holder = standing_of_holder(gate, word, now_ns);
    struct policy_rules rules = standing_rules(gate);
    COMPANY_EACH(vgpu, gate, word)
    {
        // The GPU's level has risen with the holder, and says nothing here.
        struct policy_entry companion = standing_of(gate, vgpu);
        if (policy_parts(&holder, &companion, 0, &rules))
            return vgpu;
    }
    return POOL_NO_INDEX;
}

bool company_close(struct gate *gate, uint64_t word)
{
    uint64_t grant = token_without_flags(word);
    return atomic_compare_exchange_strong(&gate->vgpu->companion, &grant, grant | TOKEN_REVOKED);
}

void company_leave(struct gate *gate, uint64_t word)
{
    uint64_t closed = token_without_flags(word) | TOKEN_REVOKED;
    grant_clear(&gate->vgpu->shared_from, gate->token, word); // first: it may be invited again at once
    if (!atomic_compare_exchange_strong(&gate->vgpu->companion, &closed, 0))
        return;
    wake_waiters(gate, gate->vgpu_index); // its threads that wait ask again
    uint32_t holder = token_holder(word);
    POOL_EACH_BIT(process, vgpu_of(gate, holder)->members, POOL_MAX_PROCESSES)
    bell_ring(gate->pool->layout, process);
}

static bool works(const struct gate *gate, uint32_t vgpu, uint64_t word)
{
    POOL_EACH_BIT(process, vgpu_of(gate, vgpu)->members, POOL_MAX_PROCESSES)
    {
        const struct pool_member *member = &gate->pool->layout->members[process][gate->gpu_index];
        if (atomic_load(&member->active_gen) == token_generation(word) &&
            atomic_load(&member->drained_gen) != token_generation(word))
            return true;
    }
    return false;
}

bool company_detains(struct gate *gate, uint64_t *word)
{
    if (company_next(gate, *word, 0) == POOL_MAX_VGPUS)
        return false;
    // In this order, as in any drain: a companion that was invited and has not launched yet finds the gate closed.
    for (uint64_t grant = token_without_flags(*word); !(*word & TOKEN_REVOKED);) {
        if (turn_revoke(gate, word))
            *word |= TOKEN_REVOKED;
        else if (token_without_flags(*word) != grant)
            return false;
    }
    COMPANY_EACH(vgpu, gate, *word)
    if (works(gate, vgpu, *word))
        return true;
    return false;
}

void company_ring(const struct gate *gate, uint64_t word)
{
    COMPANY_EACH(vgpu, gate, word)
    {
        wake_waiters(gate, vgpu);
        POOL_EACH_BIT(process, vgpu_of(gate, vgpu)->members, POOL_MAX_PROCESSES)
        bell_ring(gate->pool->layout, process);
    }
}
