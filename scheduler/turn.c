// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/turn.h"

#include "base/clock.h"
#include "scheduler/agent.h"
#include "scheduler/policy.h"

static struct pool_layout *layout_of(const struct gate *gate)
{
    return gate->pool->layout;
}

static void wake_waiters(struct gate *gate, uint32_t vgpu)
{
    futex_wake(token_futex(gate->gpu), token_futex_bit(vgpu));
}

static void ring_members(struct gate *gate, const struct pool_vgpu *vgpu)
{
    POOL_EACH_BIT(process, vgpu->members, POOL_MAX_PROCESSES)
    agent_ring(layout_of(gate), process);
}

bool turn_others_wait(const struct gate *gate)
{
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    if (vgpu != gate->vgpu_index)
        return true;
    return false;
}

// Writes what the new holder needs to know about its grant. Comes before the token names it.
static void prepare_grant(struct pool_vgpu *vgpu, uint64_t now_ns, uint64_t turn_ns)
{
    atomic_store(&vgpu->turn_ns, turn_ns);
    atomic_store(&vgpu->grant_ns, now_ns);
    atomic_store(&vgpu->charge_from_ns, turn_ns ? now_ns : 0);
}

bool turn_claim(struct gate *gate, uint64_t word)
{
    prepare_grant(gate->vgpu, clock_now_ns(), 0);
    if (!atomic_compare_exchange_strong(gate->token, &word, token_next(word, gate->vgpu_index, 0)))
        return false;
    atomic_fetch_add_explicit(&gate->vgpu->grants, 1, memory_order_relaxed);
    return true;
}

void turn_request(struct gate *gate, uint64_t now_ns)
{
    bool news = !pool_bit_get(gate->gpu->wanting, gate->vgpu_index);
    pool_bit_set(gate->gpu->wanting, gate->vgpu_index);
    // The token is read after the bit is set: whoever gets it later than this sees the bit, and whoever has it now is rung.
    uint64_t word = atomic_load(gate->token);
    uint32_t holder;
    do {
        holder = token_holder(word);
        if (holder == POOL_NO_INDEX)
            return;
        if (holder == gate->vgpu_index) {
            if (news)
                agent_ring(layout_of(gate), gate->process);
            return;
        }
    } while (!(word & TOKEN_CONTENDED) && !atomic_compare_exchange_weak(gate->token, &word, word | TOKEN_CONTENDED));
    struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&vgpu->charge_from_ns, &none, now_ns) || news)
        ring_members(gate, vgpu);
}

// The quantum of a round: all must be credited by the same one, so the most impatient tenant chooses it.
static uint64_t shared_quantum(const struct gate *gate, const struct policy_entry *entries, size_t count)
{
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        uint64_t quantum = atomic_load_explicit(&layout_of(gate)->vgpus[entries[i].vgpu].quantum_ns, memory_order_relaxed);
        if (quantum >= TURN_SHORTEST_NS && quantum <= TURN_LONGEST_NS && quantum < shortest)
            shortest = quantum;
    }
    return shortest == UINT64_MAX ? TURN_QUANTUM_NS : shortest;
}

// Room for those that want the token now and one more. A turn can end on any thread of the program, and such a stack may be as small
// as PTHREAD_STACK_MIN: what is put there grows with those who wait, not with the pool.
static size_t count_room(const struct gate *gate)
{
    size_t room = 1;
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    room++;
    return room;
}

// Whoever has come to wait since the room was counted may be passed over this once.
static void add_entry(const struct gate *gate, struct policy_entry *entries, size_t *count, size_t room, uint32_t index)
{
    if (*count == room)
        return;
    const struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[index];
    entries[(*count)++] = (struct policy_entry){
        .vgpu = index,
        .weight = atomic_load_explicit(&vgpu->weight, memory_order_relaxed),
        .deficit_ns = atomic_load_explicit(&vgpu->deficit_ns, memory_order_relaxed),
    };
}

// Those that want the token, in ring order, the holder last.
static size_t gather(const struct gate *gate, uint32_t holder, struct policy_entry *entries, size_t room)
{
    size_t count = 0;
    uint32_t start = holder == POOL_NO_INDEX ? 0 : holder + 1;
    for (uint32_t i = pool_bit_next(gate->gpu->wanting, POOL_MAX_VGPUS, start); i < POOL_MAX_VGPUS;
         i = pool_bit_next(gate->gpu->wanting, POOL_MAX_VGPUS, i + 1))
        add_entry(gate, entries, &count, room, i);
    for (uint32_t i = pool_bit_next(gate->gpu->wanting, start, 0); i < start;
         i = pool_bit_next(gate->gpu->wanting, start, i + 1))
        add_entry(gate, entries, &count, room, i);
    return count;
}

uint64_t turn_start(struct gate *gate)
{
    size_t room = count_room(gate);
    struct policy_entry entries[room + 1];
    size_t count = gather(gate, gate->vgpu_index, entries, room);
    if (count == 0 || entries[count - 1].vgpu != gate->vgpu_index)
        add_entry(gate, entries, &count, room + 1, gate->vgpu_index);
    uint64_t weights = 0;
    for (size_t i = 0; i < count; i++)
        weights += entries[i].weight ? entries[i].weight : 1;
    int64_t credit = policy_credit(entries[count - 1].weight, weights, count, shared_quantum(gate, entries, count));
    uint64_t turn = (uint64_t)credit > TURN_SHORTEST_NS ? (uint64_t)credit : TURN_SHORTEST_NS, none = 0;
    if (!atomic_compare_exchange_strong(&gate->vgpu->turn_ns, &none, turn))
        return none; // the agent of another member was faster
    atomic_fetch_add(&gate->vgpu->deficit_ns, (int64_t)turn);
    return turn;
}

// Books the grant that ended: how long the token was held, and how much of that while others waited.
static void account_grant(struct pool_vgpu *vgpu, uint64_t held_ns, uint64_t charged_ns, uint64_t turn_ns,
                          int64_t deficit_change)
{
    atomic_fetch_add_explicit(&vgpu->held_ns, held_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->charged_ns, charged_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->deficit_ns, deficit_change, memory_order_relaxed);
    if (turn_ns && charged_ns > turn_ns)
        atomic_fetch_add_explicit(&vgpu->overrun_ns, charged_ns - turn_ns, memory_order_relaxed);
}

static uint64_t since(uint64_t start_ns, uint64_t now_ns)
{
    return start_ns && start_ns < now_ns ? now_ns - start_ns : 0;
}

bool turn_pass(struct gate *gate, uint64_t word, uint64_t now_ns, bool leaving)
{
    struct pool_layout *layout = layout_of(gate);
    uint32_t holder = token_holder(word);
    if (holder == POOL_NO_INDEX)
        return false;
    struct pool_vgpu *old = &layout->vgpus[holder];
    if (leaving || holder != gate->vgpu_index)
        pool_bit_clear(gate->gpu->wanting, holder); // whoever waited there is gone, or will say so again

    uint64_t held = since(atomic_load(&old->grant_ns), now_ns), charged = since(atomic_load(&old->charge_from_ns), now_ns);
    uint64_t turn = atomic_load(&old->turn_ns), next_turn = 0;
    int64_t old_deficit = atomic_load(&old->deficit_ns);
    int64_t deficit = policy_charge(old_deficit, charged);

    size_t room = count_room(gate);
    struct policy_entry entries[room], before[room];
    size_t count = gather(gate, holder, entries, room);
    uint32_t next = leaving ? POOL_NO_INDEX : holder;
    if (count) {
        if (entries[count - 1].vgpu == holder)
            entries[count - 1].deficit_ns = deficit;
        for (size_t i = 0; i < count; i++)
            before[i] = entries[i];
        size_t chosen = policy_next(entries, count, shared_quantum(gate, entries, count), TURN_SHORTEST_NS, &next_turn);
        next = entries[chosen].vgpu;
        if (next_turn > TURN_LONGEST_NS)
            next_turn = TURN_LONGEST_NS; // a waiter's lease counts on it
        // Alone again: no turn runs, nothing is charged or credited.
        if (count == 1) {
            next_turn = 0;
            entries[0].deficit_ns = before[0].deficit_ns;
        }
    }
    if (next != POOL_NO_INDEX)
        prepare_grant(&layout->vgpus[next], now_ns, next_turn);
    if (!atomic_compare_exchange_strong(gate->token, &word,
                                        token_next(word, next, next == POOL_NO_INDEX ? 0 : TOKEN_CONTENDED)))
        return false;

    account_grant(old, held, charged, turn, deficit - old_deficit);
    for (size_t i = 0; i < count; i++)
        atomic_fetch_add_explicit(&layout->vgpus[entries[i].vgpu].deficit_ns, entries[i].deficit_ns - before[i].deficit_ns,
                                  memory_order_relaxed);
    if (next == POOL_NO_INDEX) {
        // Whoever came to wait while this was under way has been passed over, and takes the free token himself.
        futex_wake(token_futex(gate->gpu), FUTEX_EVERYONE);
        return true;
    }
    atomic_fetch_add_explicit(&layout->vgpus[next].grants, 1, memory_order_relaxed);
    wake_waiters(gate, next);
    return true;
}

void turn_charge_late(struct gate *gate, uint64_t ns)
{
    atomic_fetch_add_explicit(&gate->vgpu->charged_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&gate->vgpu->overrun_ns, ns, memory_order_relaxed);
    int64_t deficit = atomic_load(&gate->vgpu->deficit_ns);
    atomic_fetch_add_explicit(&gate->vgpu->deficit_ns, policy_charge(deficit, ns) - deficit, memory_order_relaxed);
}

uint64_t turn_lease_end(const struct gate *gate, uint64_t word, uint64_t since_ns)
{
    uint32_t holder = token_holder(word);
    uint64_t turn = holder == POOL_NO_INDEX ? 0 : atomic_load(&layout_of(gate)->vgpus[holder].turn_ns);
    if (turn == 0)
        turn = TURN_QUANTUM_NS;
    if (turn > TURN_LONGEST_NS)
        turn = TURN_LONGEST_NS;
    return since_ns + turn + TURN_DRAIN_NS + TURN_GRACE_NS;
}

bool turn_holder_lives(const struct gate *gate, uint64_t word)
{
    uint32_t holder = token_holder(word);
    if (holder == POOL_NO_INDEX)
        return false;
    const struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
    if (atomic_load(&vgpu->state) != POOL_LIVE)
        return false;
    int probe = pool_probe_open(gate->pool);
    bool lives = probe < 0;
    if (!lives) {
        POOL_EACH_BIT(process, vgpu->members, POOL_MAX_PROCESSES)
        if (pool_alive(probe, process)) {
            lives = true;
            break;
        }
        pool_probe_close(probe);
    }
    return lives;
}
