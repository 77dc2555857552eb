// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/turn.h"

#include "base/clock.h"
#include "scheduler/bell.h"
#include "scheduler/company.h"
#include "scheduler/grant.h"
#include "scheduler/notice.h"
#include "scheduler/policy.h"
#include "scheduler/standing.h"

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
    bell_ring(layout_of(gate), process);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool turn_others_wait(const struct gate *gate)
{
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    if (vgpu != gate->vgpu_index)
        return true;
    return false;
}

// --- what the policy is asked ---

bool turn_outranks_waiters(const struct gate *gate)
{
    enum policy_class own = standing_of(gate, gate->vgpu_index).class;
    POOL_EACH_BIT(vgpu, gate->gpu->wanting, POOL_MAX_VGPUS)
    if (vgpu != gate->vgpu_index && !policy_outranks(own, standing_of(gate, vgpu).class))
        return false;
    return true;
}

uint64_t turn_switch_ns(const struct pool_gpu *gpu)
{
    uint64_t learned = atomic_load_explicit(&gpu->switch_ns, memory_order_relaxed);
    return learned ? learned : atomic_load_explicit(&gpu->mps, memory_order_relaxed) ? TURN_SWITCH_MPS_NS : TURN_SWITCH_NS;
}

void turn_learn_switch(struct gate *gate, uint64_t least_ns, uint64_t most_ns)
{
    struct pool_gpu *gpu = gate->gpu;
    // If two learn at once, one may be lost.
    uint64_t used = turn_switch_ns(gpu), seen = atomic_load_explicit(&gpu->switch_seen_ns, memory_order_relaxed);
    seen = policy_learn_switch(seen ? seen : used, least_ns, most_ns);
    atomic_store_explicit(&gpu->switch_seen_ns, seen, memory_order_relaxed);
    if (seen > 2 * used || used > 2 * seen)
        atomic_store_explicit(&gpu->switch_ns, seen, memory_order_relaxed);
}

// The ring as it is now, with the holder's entry as of now.
struct turn_ring {
    struct policy_ring ring;
    const struct gate *gate;
    struct policy_entry holder;
    uint64_t wanting[POOL_MAX_VGPUS / 64], high[POOL_MAX_VGPUS / 64];
};

static struct policy_entry ring_entry(const void *context, uint32_t vgpu)
{
    const struct turn_ring *ring = (const struct turn_ring *)context;
    return vgpu == ring->holder.vgpu ? ring->holder : standing_of(ring->gate, vgpu);
}

static void ring_gather(struct turn_ring *ring, const struct gate *gate, struct policy_entry holder, bool with_holder)
{
    ring->ring = (struct policy_ring){POOL_MAX_VGPUS / 64, ring->wanting, ring->high, ring_entry, ring};
    ring->gate = gate;
    ring->holder = holder;
    for (uint32_t i = 0; i < POOL_MAX_VGPUS / 64; i++) {
        ring->wanting[i] = atomic_load(&gate->gpu->wanting[i]);
        ring->high[i] = atomic_load_explicit(&gate->gpu->high[i], memory_order_relaxed);
    }
    uint64_t bit = 1ull << holder.vgpu % 64, *word = &ring->wanting[holder.vgpu / 64];
    *word = with_holder ? *word | bit : *word & ~bit;
}

static struct policy_choice choose(const struct turn_ring *ring, uint64_t level, uint32_t first)
{
    const struct pool_gpu *gpu = ring->gate->gpu;
    struct policy_rules rules = standing_rules(ring->gate);
    return policy_choose(&ring->ring, atomic_load_explicit(&gpu->ring, memory_order_relaxed) % POOL_MAX_VGPUS, level,
                         atomic_load_explicit(&gpu->round, memory_order_relaxed), first, &rules);
}

// --- caps ---

bool turn_is_capped(const struct gate *gate)
{
    return standing_cap(gate->vgpu) != 0;
}

uint64_t turn_cap_wait(const struct gate *gate, uint64_t now_ns)
{
    return standing_cap(gate->vgpu) ? policy_cap_wait(atomic_load(&gate->vgpu->paid_until_ns), now_ns) : 0;
}

// The length of a turn as it is granted. While nobody else waits, only a cap limits it.
static uint64_t granted_turn(const struct gate *gate, uint32_t index, uint64_t turn_ns, uint64_t now_ns)
{
    const struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[index];
    uint32_t percent = standing_cap(vgpu);
    if (percent) {
        uint64_t quantum = standing_of(gate, index).quantum_ns;
        quantum = quantum >= TURN_SHORTEST_NS ? quantum : policy_auto_quantum(turn_switch_ns(gate->gpu), 1);
        uint64_t most = policy_cap_turn(atomic_load(&vgpu->paid_until_ns), now_ns, quantum, percent);
        turn_ns = turn_ns ? least(turn_ns, most) : most;
    }
    // A waiter's lease counts on it.
    return least(turn_ns, TURN_LONGEST_NS);
}

// --- moves ---

// Tells the new holder about its grant, which `word` describes. Only after the token names it: until then another may win the
// move.
static void announce_grant(struct gate *gate, uint64_t word, uint64_t now_ns, uint64_t turn_ns)
{
    struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[token_holder(word)];
    atomic_store_explicit(&vgpu->grant_ns, now_ns, memory_order_relaxed);
    if (turn_ns)
        grant_set(&vgpu->turn, gate->token, word, 0, turn_ns);
    atomic_fetch_add_explicit(&vgpu->grants, 1, memory_order_relaxed);
}

void turn_begin(struct gate *gate, uint64_t word)
{
    struct pool_vgpu *vgpu = gate->vgpu;
    uint64_t now = clock_now_ns();
    if (!grant_set(&vgpu->begun, gate->token, word, 0, now))
        return;
    uint64_t from = grant_get(&vgpu->charged_from, word);
    if (from || grant_get(&vgpu->turn, word))
        grant_set(&vgpu->charged_from, gate->token, word, from, now);
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
    uint64_t now = clock_now_ns(), turn = turn_is_capped(gate) ? granted_turn(gate, gate->vgpu_index, 0, now) : 0;
    // Under a cap the holder's use is measured, and its queue kept short, from its first launch on.
    uint64_t next = token_next(word, gate->vgpu_index, turn ? TOKEN_CONTENDED : 0);
    if (!atomic_compare_exchange_strong(gate->token, &word, next))
        return false;
    announce_grant(gate, next, now, turn);
    if (!turn)
        notice_limit(layout_of(gate), gate->vgpu_index);
    return true;
}

static bool has_adopted(const struct gate *gate, uint32_t process, uint64_t word)
{
    return atomic_load(&layout_of(gate)->members[process][gate->gpu_index].active_gen) == token_generation(word);
}

// Whether any process of the holder has begun to launch under the grant that `word` describes. Final once the gate is closed: a
// process that adopts the grant later looks at the token again before it launches.
static bool is_adopted(const struct gate *gate, uint64_t word)
{
    POOL_EACH_BIT(process, layout_of(gate)->vgpus[token_holder(word)].members, POOL_MAX_PROCESSES)
    if (has_adopted(gate, process, word))
        return true;
    return false;
}

static bool may_interrupt(const struct gate *gate, uint64_t word, uint64_t now_ns)
{
    // If a holder was given the token afresh and has not come for it, no agent knows of the grant.
    if (!pool_bit_get(gate->gpu->wanting, token_holder(word)) && !is_adopted(gate, word))
        return true;
    if (company_admits(gate, gate->vgpu_index, word)) // that agent invites it
        return false;
    struct policy_entry own = standing_of(gate, gate->vgpu_index), holder = standing_of_holder(gate, word, now_ns);
    struct policy_rules rules = standing_rules(gate);
    return policy_preempts(&own, &holder, atomic_load(&gate->gpu->level), &rules);
}

// Takes the token that *word describes for this virtual GPU: at once if nothing was launched under the grant, else when the
// holder's agents have drained. false: its gate was closed, or the token has moved; *word is then its current value.
static bool interrupt(struct gate *gate, uint64_t *word, uint64_t now_ns)
{
    atomic_store(&gate->gpu->first, gate->vgpu_index);
    atomic_store(&gate->gpu->on_deck, gate->vgpu_index);
    if (!turn_revoke(gate, word)) {
        // The turn that ends now is not this one's doing.
        uint32_t own = gate->vgpu_index;
        atomic_compare_exchange_strong(&gate->gpu->first, &own, POOL_NO_INDEX);
        return false;
    }
    uint64_t closed = *word | TOKEN_REVOKED;
    if (is_adopted(gate, *word) || company_detains(gate, &closed) || !turn_pass(gate, closed, now_ns, false))
        ring_members(gate, &layout_of(gate)->vgpus[token_holder(*word)]);
    return true;
}

void turn_take_unused(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    if (token_holder(word) == POOL_NO_INDEX || is_adopted(gate, word))
        return;
    // The process that closed the gate to take the token was stopped or killed on the way, and no agent of the holder drains.
    if (!(word & TOKEN_REVOKED))
        interrupt(gate, &word, now_ns);
    else if (!company_detains(gate, &word))
        turn_pass(gate, word, now_ns, false);
}

void turn_request(struct gate *gate, uint64_t now_ns)
{
    bool news = !pool_bit_get(gate->gpu->wanting, gate->vgpu_index);
    pool_bit_set(gate->gpu->wanting, gate->vgpu_index);
    // The token is read after the bit is set: a later holder sees the bit, and the present one is rung.
    uint64_t word = atomic_load(gate->token);
    if (news && (token_holder(word) == gate->vgpu_index || company_has(gate->vgpu, word)))
        bell_ring(layout_of(gate), gate->process);
    for (;;) {
        uint32_t holder = token_holder(word);
        if (holder == POOL_NO_INDEX || holder == gate->vgpu_index)
            return;
        if (!(word & TOKEN_CONTENDED) && !atomic_compare_exchange_strong(gate->token, &word, word | TOKEN_CONTENDED))
            continue;
        word |= TOKEN_CONTENDED;
        struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
        news |= grant_set(&vgpu->charged_from, gate->token, word, 0, now_ns);
        if (!news)
            return;
        if (word & TOKEN_REVOKED || !may_interrupt(gate, word, now_ns)) {
            ring_members(gate, vgpu);
            return;
        }
        if (interrupt(gate, &word, now_ns))
            return;
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
    company_ring(gate, *word);
    return true;
}

uint64_t turn_start(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct turn_ring ring;
    struct policy_rules rules = standing_rules(gate);
    ring_gather(&ring, gate, standing_of_holder(gate, word, now_ns), true);
    COMPANY_EACH(vgpu, gate, word) // do not wait, and share the rounds
    ring.wanting[vgpu / 64] |= 1ull << vgpu % 64;
    struct policy_choice choice = policy_start(&ring.ring, &ring.holder, atomic_load(&gate->gpu->level), &rules);
    raise_level(gate, &choice);
    uint64_t turn = granted_turn(gate, gate->vgpu_index, choice.turn_ns, now_ns);
    // Otherwise another member's agent was faster, or the process that made the grant.
    if (!grant_set(&gate->vgpu->turn, gate->token, word, 0, turn))
        return grant_get(&gate->vgpu->turn, word);
    atomic_fetch_add_explicit(&gate->vgpu->pass, choice.pass - ring.holder.pass, memory_order_relaxed);
    return turn;
}

// Who is next if the holder has had the token until now_ns; whoever is to be `first`, if anybody.
static struct policy_choice choose_next(const struct gate *gate, uint64_t word, uint64_t now_ns, bool with_holder,
                                        uint32_t first)
{
    struct turn_ring ring;
    ring_gather(&ring, gate, standing_of_holder(gate, word, now_ns), with_holder && !turn_is_capped(gate));
    return choose(&ring, atomic_load(&gate->gpu->level), first);
}

static void call(struct gate *gate, uint32_t vgpu)
{
    atomic_store(&gate->gpu->on_deck, vgpu);
    if (vgpu != POOL_NO_INDEX)
        wake_waiters(gate, vgpu);
}

void turn_call_next(struct gate *gate, uint64_t word, uint64_t end_ns, bool idle)
{
    uint32_t next = choose_next(gate, word, end_ns, !idle, POOL_NO_INDEX).vgpu;
    if (next != gate->vgpu_index)
        call(gate, next);
}

void turn_call_again(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    call(gate, choose_next(gate, word, now_ns, false, atomic_load(&gate->gpu->first)).vgpu);
}

void turn_call_off(struct gate *gate)
{
    atomic_store(&gate->gpu->on_deck, POOL_NO_INDEX);
}

// What is booked when a grant, or a turn of it, ends: since when the token was held, since when others waited, how long the
// turn was to be, and how much of it companions were charged.
struct turn_books {
    uint64_t begun_ns, from_ns, turn_ns, company_ns;
};

// Books how long the token was held, and how much of that others waited.
static void book(struct gate *gate, uint32_t holder, const struct turn_books *books, uint64_t now_ns)
{
    struct pool_vgpu *vgpu = &layout_of(gate)->vgpus[holder];
    uint64_t held = grant_since(books->begun_ns, now_ns), charged = books->begun_ns ? grant_since(books->from_ns, now_ns) : 0;
    if (books->turn_ns && charged > books->turn_ns)
        atomic_fetch_add_explicit(&vgpu->overrun_ns, charged - books->turn_ns, memory_order_relaxed);
    held -= least(held, books->company_ns);
    charged -= least(charged, books->company_ns);
    atomic_fetch_add_explicit(&vgpu->held_ns, held, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->charged_ns, charged, memory_order_relaxed);
    standing_use(gate, holder, held, now_ns);
}

bool turn_renew(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct policy_choice choice = choose_next(gate, word, now_ns, true, POOL_NO_INDEX);
    uint32_t outrun = choice.vgpu == gate->vgpu_index ? company_outrun(gate, word, now_ns) : POOL_NO_INDEX;
    if (outrun != POOL_NO_INDEX) {
        choice.vgpu = outrun;
        pool_bit_set(gate->gpu->wanting, outrun);
        atomic_store(&gate->gpu->first, outrun);
    }
    if (choice.vgpu != gate->vgpu_index) {
        if (turn_revoke(gate, &word))
            call(gate, choice.vgpu);
        return false;
    }
    struct pool_vgpu *vgpu = gate->vgpu;
    struct turn_books books = {.begun_ns = grant_get(&vgpu->begun, word), .from_ns = grant_get(&vgpu->charged_from, word)};
    uint64_t turn = grant_get(&vgpu->turn, word);
    if (grant_set(&vgpu->charged_from, gate->token, word, books.from_ns, now_ns)) {
        grant_set(&vgpu->turn, gate->token, word, turn, granted_turn(gate, gate->vgpu_index, choice.turn_ns, now_ns));
        if (books.begun_ns && grant_set(&vgpu->begun, gate->token, word, books.begun_ns, now_ns)) {
            books.company_ns = grant_take(&gate->gpu->company_ns, gate->token, word);
            book(gate, gate->vgpu_index, &books, now_ns);
        }
        raise_level(gate, &choice);
    }
    return true;
}

void turn_lapse(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    struct pool_vgpu *vgpu = gate->vgpu;
    uint64_t charged = grant_since(grant_take(&vgpu->charged_from, gate->token, word), now_ns);
    charged -= least(charged, grant_get(&gate->gpu->company_ns, word));
    atomic_fetch_add_explicit(&vgpu->charged_ns, charged, memory_order_relaxed);
    grant_clear(&vgpu->turn, gate->token, word);
}

bool turn_pass(struct gate *gate, uint64_t word, uint64_t now_ns, bool leaving)
{
    struct pool_layout *layout = layout_of(gate);
    uint32_t holder = token_holder(word);
    if (holder == POOL_NO_INDEX)
        return false;
    struct pool_vgpu *old = &layout->vgpus[holder];
    // A waiter there is gone, or will ask again; and a capped virtual GPU has to pay first.
    bool capped = standing_cap(old) != 0, cleared = leaving || capped || holder != gate->vgpu_index;
    if (cleared)
        pool_bit_clear(gate->gpu->wanting, holder);

    struct turn_books books = {grant_get(&old->begun, word), grant_get(&old->charged_from, word), grant_get(&old->turn, word),
                               grant_get(&gate->gpu->company_ns, word)};
    uint64_t level = atomic_load(&gate->gpu->level);
    struct turn_ring ring;
    ring_gather(&ring, gate, standing_of_holder(gate, word, now_ns), pool_bit_get(gate->gpu->wanting, holder));
    // What it used while nobody else wanted the GPU is not held against it.
    if ((books.turn_ns == 0 || !policy_anybody(&ring.ring)) && level < ring.holder.pass)
        level = ring.holder.pass;
    struct policy_choice choice = choose(&ring, level, atomic_load(&gate->gpu->first));
    bool chosen = choice.vgpu != POOL_NO_INDEX;
    uint32_t next = chosen || leaving || capped ? choice.vgpu : holder;
    uint64_t before = !chosen ? 0 : next == holder ? ring.holder.pass : standing_of(gate, next).pass;
    uint64_t next_word = token_next(word, next, next == POOL_NO_INDEX ? 0 : TOKEN_CONTENDED);
    if (!atomic_compare_exchange_strong(gate->token, &word, next_word))
        return false;
    if (next != POOL_NO_INDEX)
        announce_grant(gate, next_word, now_ns, chosen ? granted_turn(gate, next, choice.turn_ns, now_ns) : 0);

    book(gate, holder, &books, now_ns);
    if (word & TOKEN_REVOKED)
        pool_histogram_add(&old->drain, grant_since(atomic_load_explicit(&old->revoked_ns, memory_order_relaxed), now_ns));
    raise_level(gate, &choice);
    atomic_store_explicit(&gate->gpu->first, POOL_NO_INDEX, memory_order_relaxed);
    atomic_store_explicit(&gate->gpu->on_deck, POOL_NO_INDEX, memory_order_relaxed);
    if (chosen) {
        if (choice.in_ring)
            atomic_store_explicit(&gate->gpu->ring, next, memory_order_relaxed);
        // Possibly down, if a debt was too deep to remember: the sum is right modulo 2^64.
        atomic_fetch_add_explicit(&layout->vgpus[next].pass, choice.pass - before, memory_order_relaxed);
    }
    if (cleared)
        wake_waiters(gate, holder); // to ask again, or to sleep until they have paid
    // A waiter that came while the token became free has been passed over, and takes it itself.
    if (next == POOL_NO_INDEX)
        futex_wake(token_futex(gate->gpu), FUTEX_EVERYONE);
    else
        wake_waiters(gate, next);
    return true;
}

void turn_charge_late(struct gate *gate, uint64_t now_ns, uint64_t ns)
{
    atomic_fetch_add_explicit(&gate->vgpu->charged_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&gate->vgpu->overrun_ns, ns, memory_order_relaxed);
    standing_use(gate, gate->vgpu_index, ns, now_ns);
}

static bool high_class_exists(const struct gate *gate)
{
    return pool_bit_next(gate->gpu->high, POOL_MAX_VGPUS, 0) < POOL_MAX_VGPUS;
}

uint64_t turn_window(const struct gate *gate, uint64_t word, uint64_t now_ns)
{
    const struct pool_vgpu *vgpu = gate->vgpu;
    if (atomic_load_explicit(&vgpu->priority, memory_order_relaxed) == POLICY_LOW)
        return WINDOW_NS / 4;
    uint64_t from = grant_get(&vgpu->charged_from, word), end = from + grant_get(&vgpu->turn, word);
    uint64_t width = from && end > now_ns ? (end - now_ns) / 4 : 0;
    if (width <= WINDOW_NS || high_class_exists(gate))
        return WINDOW_NS;
    return width < WINDOW_WIDEST_NS ? width : WINDOW_WIDEST_NS;
}

uint64_t turn_from(const struct gate *gate, uint64_t word)
{
    uint32_t holder = token_holder(word);
    return holder == POOL_NO_INDEX ? 0 : grant_get(&layout_of(gate)->vgpus[holder].charged_from, word);
}

uint64_t turn_lease_end(const struct gate *gate, uint64_t word, uint64_t since_ns)
{
    uint32_t holder = token_holder(word);
    uint64_t turn = holder == POOL_NO_INDEX ? 0 : grant_get(&layout_of(gate)->vgpus[holder].turn, word);
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
    bool lives = probe < 0, adopted = is_adopted(gate, word);
    if (!lives) {
        POOL_EACH_BIT(process, vgpu->members, POOL_MAX_PROCESSES)
        if (atomic_load(&layout_of(gate)->members[process][gate->gpu_index].vgpu) == holder &&
            (!adopted || has_adopted(gate, process, word)) && pool_alive(probe, process)) {
            lives = true;
            break;
        }
        pool_probe_close(probe);
    }
    return lives;
}
