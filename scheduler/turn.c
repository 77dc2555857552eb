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

static uint64_t since(uint64_t start_ns, uint64_t now_ns)
{
    return start_ns && start_ns < now_ns ? now_ns - start_ns : 0;
}

bool turn_others_wait(const struct gate *gate)
{
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    if (vgpu != gate->vgpu_index)
        return true;
    return false;
}

// --- what the policy is asked ---

static struct policy_entry entry_of(const struct gate *gate, uint32_t index)
{
    const struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[index];
    uint32_t priority = atomic_load_explicit(&vgpu->priority, memory_order_relaxed);
    return (struct policy_entry){
        .vgpu = index,
        .weight = atomic_load_explicit(&vgpu->weight, memory_order_relaxed),
        .class = priority <= POLICY_LOW ? (enum policy_class)priority : POLICY_NORMAL,
        .pass = atomic_load_explicit(&vgpu->pass, memory_order_relaxed),
    };
}

// The holder's entry as of now: its pass is raised only when its grant ends.
static struct policy_entry holder_entry(const struct gate *gate, uint32_t holder, uint64_t now_ns)
{
    struct policy_entry entry = entry_of(gate, holder);
    entry.pass += policy_pass(&entry, since(atomic_load(&layout_of(gate)->vgpus[holder].begun_ns), now_ns));
    return entry;
}

// The quantum of a round: all must be measured by the same one, so the most impatient tenant chooses it.
static struct policy_rules rules_for(const struct gate *gate, const struct policy_entry *entries, size_t count)
{
    uint64_t shortest = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        uint64_t quantum = atomic_load_explicit(&layout_of(gate)->vgpus[entries[i].vgpu].quantum_ns, memory_order_relaxed);
        if (quantum >= TURN_SHORTEST_NS && quantum <= TURN_LONGEST_NS && quantum < shortest)
            shortest = quantum;
    }
    if (shortest == UINT64_MAX)
        shortest = policy_auto_quantum(TURN_SWITCH_NS, count);
    return (struct policy_rules){.quantum_ns = shortest, .shortest_ns = TURN_SHORTEST_NS};
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

// Those that want the token and `holder` if that is asked for, in ring order, the first whose place in the ring it is. Whoever has come
// to wait since the room was counted may be passed over this once.
struct ring {
    struct policy_entry *entries;
    size_t count, room;
    uint32_t place; // whose it is
};

static void ring_add(struct ring *ring, struct policy_entry entry)
{
    if (ring->count < ring->room)
        ring->entries[ring->count++] = entry;
}

static void ring_gather(const struct gate *gate, struct ring *ring, const struct policy_entry *holder, bool with_holder)
{
    uint32_t start = ring->place = atomic_load_explicit(&gate->gpu->ring, memory_order_relaxed) % POOL_MAX_VGPUS;
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        uint32_t index = (start + i) % POOL_MAX_VGPUS;
        if (holder && index == holder->vgpu) {
            if (with_holder)
                ring_add(ring, *holder);
        } else if (pool_bit_get(gate->gpu->wanting, index)) {
            ring_add(ring, entry_of(gate, index));
        }
    }
}

// Waiting entries of the ring with their passes as they were read: what the policy raises is booked as a difference.
#define RING_ON_STACK(ring, gate)                                                                                              \
    size_t ring##_room = count_room(gate);                                                                                     \
    struct policy_entry ring##_entries[ring##_room];                                                                           \
    struct ring ring = {ring##_entries, 0, ring##_room, 0}

// --- caps ---

static uint32_t limit_of(const struct pool_vgpu *vgpu)
{
    uint32_t percent = atomic_load_explicit(&vgpu->limit_percent, memory_order_relaxed);
    return percent < 100 ? percent : 0;
}

bool turn_is_capped(const struct gate *gate)
{
    return limit_of(gate->vgpu) != 0;
}

uint64_t turn_cap_wait(const struct gate *gate, uint64_t now_ns)
{
    return limit_of(gate->vgpu) ? policy_cap_wait(atomic_load(&gate->vgpu->paid_until_ns), now_ns) : 0;
}

static void pay(struct pool_vgpu *vgpu, uint64_t now_ns, uint64_t used_ns)
{
    uint32_t percent = limit_of(vgpu);
    uint64_t paid = atomic_load(&vgpu->paid_until_ns);
    while (percent &&
           !atomic_compare_exchange_weak(&vgpu->paid_until_ns, &paid, policy_cap_pay(paid, now_ns, used_ns, percent)))
        ;
}

// The length of a turn as it is granted: with nobody else waiting no turn runs, but a cap's.
static uint64_t granted_turn(const struct pool_vgpu *vgpu, uint64_t turn_ns, uint64_t quantum_ns, uint64_t now_ns)
{
    uint32_t percent = limit_of(vgpu);
    if (percent) {
        uint64_t most = policy_cap_turn(atomic_load(&vgpu->paid_until_ns), now_ns, quantum_ns, percent);
        turn_ns = turn_ns && turn_ns < most ? turn_ns : most;
    }
    // A waiter's lease counts on it.
    return turn_ns < TURN_LONGEST_NS ? turn_ns : TURN_LONGEST_NS;
}

// --- moves ---

// Writes what the new holder needs to know about its grant. Comes before the token names it.
static void prepare_grant(struct pool_vgpu *vgpu, uint64_t now_ns, uint64_t turn_ns)
{
    atomic_store(&vgpu->turn_ns, turn_ns);
    atomic_store(&vgpu->grant_ns, now_ns);
    atomic_store(&vgpu->begun_ns, 0);
    atomic_store(&vgpu->charge_from_ns, turn_ns ? now_ns : 0);
}

void turn_begin(struct gate *gate)
{
    struct pool_vgpu *vgpu = gate->vgpu;
    uint64_t none = 0, now = clock_now_ns(), from = atomic_load(&vgpu->charge_from_ns);
    if (atomic_compare_exchange_strong(&vgpu->begun_ns, &none, now) && from && from < now)
        atomic_compare_exchange_strong(&vgpu->charge_from_ns, &from, now);
}

static void raise_level(struct gate *gate, const struct policy_choice *choice)
{
    uint64_t old = atomic_load(&gate->gpu->level);
    while (old < choice->level && !atomic_compare_exchange_weak(&gate->gpu->level, &old, choice->level))
        ;
    if (old < choice->level)
        atomic_store_explicit(&gate->gpu->round, choice->round, memory_order_relaxed);
}

bool turn_claim(struct gate *gate, uint64_t word)
{
    uint64_t now = clock_now_ns();
    struct policy_entry own = entry_of(gate, gate->vgpu_index);
    uint64_t quantum = rules_for(gate, &own, 1).quantum_ns;
    uint64_t turn = turn_is_capped(gate) ? granted_turn(gate->vgpu, 0, quantum, now) : 0;
    prepare_grant(gate->vgpu, now, turn);
    // Under a cap the holder's use is measured, and its queue kept short, from its first launch on.
    if (!atomic_compare_exchange_strong(gate->token, &word, token_next(word, gate->vgpu_index, turn ? TOKEN_CONTENDED : 0)))
        return false;
    atomic_fetch_add_explicit(&gate->vgpu->grants, 1, memory_order_relaxed);
    return true;
}

static bool may_interrupt(const struct gate *gate, uint32_t holder, uint64_t now_ns)
{
    struct policy_entry pair[] = {entry_of(gate, gate->vgpu_index), holder_entry(gate, holder, now_ns)};
    struct policy_rules rules = rules_for(gate, pair, 2);
    return policy_preempts(&pair[0], &pair[1], atomic_load(&gate->gpu->level), &rules);
}

void turn_request(struct gate *gate, uint64_t now_ns)
{
    bool news = !pool_bit_get(gate->gpu->wanting, gate->vgpu_index);
    pool_bit_set(gate->gpu->wanting, gate->vgpu_index);
    // The token is read after the bit is set: whoever gets it later than this sees the bit, and whoever has it now is rung.
    uint64_t word = atomic_load(gate->token);
    for (;;) {
        uint32_t holder = token_holder(word);
        if (holder == POOL_NO_INDEX)
            return;
        if (holder == gate->vgpu_index) {
            if (news)
                agent_ring(layout_of(gate), gate->process);
            return;
        }
        if (!(word & TOKEN_CONTENDED) && !atomic_compare_exchange_strong(gate->token, &word, word | TOKEN_CONTENDED))
            continue;
        word |= TOKEN_CONTENDED;
        struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
        uint64_t none = 0;
        news |= atomic_compare_exchange_strong(&vgpu->charge_from_ns, &none, now_ns);
        if (!news)
            return;
        bool interrupt = !(word & TOKEN_REVOKED) && may_interrupt(gate, holder, now_ns);
        if (interrupt) {
            atomic_store(&gate->gpu->first, gate->vgpu_index);
            atomic_store(&gate->gpu->on_deck, gate->vgpu_index);
        }
        if (!interrupt || turn_revoke(gate, &word)) {
            ring_members(gate, vgpu);
            return;
        }
    }
}

bool turn_revoke(struct gate *gate, uint64_t *word)
{
    uint32_t holder = token_holder(*word);
    if (*word & TOKEN_REVOKED || !atomic_compare_exchange_strong(gate->token, word, *word | TOKEN_REVOKED))
        return false;
    struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
    atomic_store_explicit(&vgpu->revoked_ns, clock_now_ns(), memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->revokes, 1, memory_order_relaxed);
    return true;
}

uint64_t turn_start(struct gate *gate, uint64_t now_ns)
{
    RING_ON_STACK(ring, gate);
    struct policy_entry own = holder_entry(gate, gate->vgpu_index, now_ns);
    ring_gather(gate, &ring, &own, true);
    struct policy_rules rules = rules_for(gate, ring.entries, ring.count);
    size_t holder = 0;
    while (holder < ring.count - 1 && ring.entries[holder].vgpu != own.vgpu)
        holder++;
    struct policy_choice choice = policy_start(ring.entries, ring.count, holder, atomic_load(&gate->gpu->level), &rules);
    raise_level(gate, &choice);
    uint64_t turn = granted_turn(gate->vgpu, choice.turn_ns, rules.quantum_ns, now_ns), none = 0;
    // Otherwise the agent of another member was faster.
    return atomic_compare_exchange_strong(&gate->vgpu->turn_ns, &none, turn) ? turn : none;
}

bool turn_renew(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    RING_ON_STACK(ring, gate);
    struct policy_entry own = holder_entry(gate, gate->vgpu_index, now_ns);
    ring_gather(gate, &ring, &own, !turn_is_capped(gate));
    uint32_t next = POOL_NO_INDEX;
    struct policy_rules rules = {0};
    struct policy_choice choice = {0};
    if (ring.count) {
        rules = rules_for(gate, ring.entries, ring.count);
        choice = policy_choose(ring.entries, ring.count, ring.place, atomic_load(&gate->gpu->level),
                               atomic_load(&gate->gpu->round), POOL_NO_INDEX, &rules);
        next = ring.entries[choice.index].vgpu;
    }
    if (next != gate->vgpu_index) {
        atomic_store(&gate->gpu->on_deck, next);
        if (turn_revoke(gate, &word) && next != POOL_NO_INDEX)
            wake_waiters(gate, next);
        return false;
    }
    uint64_t from = atomic_load(&gate->vgpu->charge_from_ns);
    if (atomic_compare_exchange_strong(&gate->vgpu->charge_from_ns, &from, now_ns)) {
        atomic_store(&gate->vgpu->turn_ns, granted_turn(gate->vgpu, choice.turn_ns, rules.quantum_ns, now_ns));
        atomic_fetch_add_explicit(&gate->vgpu->charged_ns, since(from, now_ns), memory_order_relaxed);
        raise_level(gate, &choice);
    }
    return true;
}

// Books the grant that ended: how long the token was held, and how much of that while others waited.
static void account_grant(struct gate *gate, uint32_t holder, uint64_t begun_ns, uint64_t from_ns, uint64_t turn_ns,
                          uint64_t now_ns)
{
    struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
    struct policy_entry entry = entry_of(gate, holder);
    uint64_t held = since(begun_ns, now_ns), charged = begun_ns ? since(from_ns, now_ns) : 0;
    atomic_fetch_add_explicit(&vgpu->held_ns, held, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->charged_ns, charged, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->pass, policy_pass(&entry, held), memory_order_relaxed);
    if (turn_ns && charged > turn_ns)
        atomic_fetch_add_explicit(&vgpu->overrun_ns, charged - turn_ns, memory_order_relaxed);
    // A limit may have come in the middle of the grant; what was used before is not held against it.
    uint64_t limited = since(atomic_load_explicit(&vgpu->limited_ns, memory_order_relaxed), now_ns);
    pay(vgpu, now_ns, limited && limited < held ? limited : held);
}

bool turn_pass(struct gate *gate, uint64_t word, uint64_t now_ns, bool leaving)
{
    struct pool_layout *layout = layout_of(gate);
    uint32_t holder = token_holder(word);
    if (holder == POOL_NO_INDEX)
        return false;
    struct pool_vgpu *old = &layout->vgpus[holder];
    // Whoever waited there is gone, or will say so again; and who is capped has to pay first.
    bool capped = limit_of(old) != 0;
    if (leaving || capped || holder != gate->vgpu_index)
        pool_bit_clear(gate->gpu->wanting, holder);

    uint64_t begun = atomic_load(&old->begun_ns), from = atomic_load(&old->charge_from_ns), turn = atomic_load(&old->turn_ns);
    struct policy_entry ended = holder_entry(gate, holder, now_ns);
    RING_ON_STACK(ring, gate);
    ring_gather(gate, &ring, &ended, pool_bit_get(gate->gpu->wanting, holder));

    uint64_t level = atomic_load(&gate->gpu->level), next_turn = 0;
    uint32_t next = leaving || capped ? POOL_NO_INDEX : holder;
    struct policy_choice choice = {.level = level, .round = atomic_load(&gate->gpu->round)};
    uint64_t before = 0; // the pass of who is chosen
    // Nobody is held against what he used while nobody else wanted it.
    if ((turn == 0 || ring.count == 0) && level < ended.pass)
        choice.level = level = ended.pass;
    if (ring.count) {
        struct policy_rules rules = rules_for(gate, ring.entries, ring.count);
        choice =
            policy_choose(ring.entries, ring.count, ring.place, level, choice.round, atomic_load(&gate->gpu->first), &rules);
        const struct policy_entry *chosen = &ring.entries[choice.index];
        next = chosen->vgpu;
        before = next == holder ? ended.pass : atomic_load(&layout->vgpus[next].pass);
        next_turn = granted_turn(&layout->vgpus[next], choice.turn_ns, rules.quantum_ns, now_ns);
    }
    if (next != POOL_NO_INDEX)
        prepare_grant(&layout->vgpus[next], now_ns, next_turn);
    if (!atomic_compare_exchange_strong(gate->token, &word,
                                        token_next(word, next, next == POOL_NO_INDEX ? 0 : TOKEN_CONTENDED)))
        return false;

    account_grant(gate, holder, begun, from, turn, now_ns);
    if (word & TOKEN_REVOKED)
        pool_histogram_add(&old->drain, since(atomic_load_explicit(&old->revoked_ns, memory_order_relaxed), now_ns));
    raise_level(gate, &choice);
    atomic_store_explicit(&gate->gpu->first, POOL_NO_INDEX, memory_order_relaxed);
    if (ring.count) {
        if (choice.in_ring)
            atomic_store_explicit(&gate->gpu->ring, next, memory_order_relaxed);
        // Down as well, where a debt was too deep to remember: the sum is right modulo 2^64.
        atomic_fetch_add_explicit(&layout->vgpus[next].pass, ring.entries[choice.index].pass - before, memory_order_relaxed);
    }
    if (capped)
        wake_waiters(gate, holder); // to sleep until they have paid
    if (next == POOL_NO_INDEX) {
        // Whoever came to wait while this was under way has been passed over, and takes the free token himself.
        futex_wake(token_futex(gate->gpu), FUTEX_EVERYONE);
        return true;
    }
    atomic_fetch_add_explicit(&layout->vgpus[next].grants, 1, memory_order_relaxed);
    wake_waiters(gate, next);
    return true;
}

void turn_charge_late(struct gate *gate, uint64_t now_ns, uint64_t ns)
{
    struct policy_entry entry = entry_of(gate, gate->vgpu_index);
    atomic_fetch_add_explicit(&gate->vgpu->charged_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&gate->vgpu->overrun_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&gate->vgpu->pass, policy_pass(&entry, ns), memory_order_relaxed);
    pay(gate->vgpu, now_ns, ns);
}

static bool high_class_exists(const struct gate *gate)
{
    POOL_EACH_BIT(vgpu, gate->gpu->vgpus, POOL_MAX_VGPUS)
    if (atomic_load_explicit(&layout_of(gate)->vgpus[vgpu].priority, memory_order_relaxed) == POLICY_HIGH)
        return true;
    return false;
}

uint64_t turn_window(const struct gate *gate, uint64_t now_ns)
{
    const struct pool_vgpu *vgpu = gate->vgpu;
    if (atomic_load_explicit(&vgpu->priority, memory_order_relaxed) == POLICY_LOW)
        return WINDOW_NS / 4;
    uint64_t from = atomic_load_explicit(&vgpu->charge_from_ns, memory_order_relaxed);
    uint64_t end = from + atomic_load_explicit(&vgpu->turn_ns, memory_order_relaxed);
    uint64_t width = from && end > now_ns ? (end - now_ns) / 4 : 0;
    if (width <= WINDOW_NS || high_class_exists(gate))
        return WINDOW_NS;
    return width < WINDOW_WIDEST_NS ? width : WINDOW_WIDEST_NS;
}

uint64_t turn_lease_end(const struct gate *gate, uint64_t word, uint64_t since_ns)
{
    uint32_t holder = token_holder(word);
    uint64_t turn = holder == POOL_NO_INDEX ? 0 : atomic_load(&layout_of(gate)->vgpus[holder].turn_ns);
    if (turn == 0)
        turn = TURN_UNTOLD_NS;
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
        if (atomic_load(&layout_of(gate)->members[process][gate->gpu_index].vgpu) == holder && pool_alive(probe, process)) {
            lives = true;
            break;
        }
        pool_probe_close(probe);
    }
    return lives;
}
