// SPDX-License-Identifier: AGPL-3.0-or-later
// What an agent does for one gate: it ends turns, drains, and gives away what is not used.
#include "scheduler/agent.h"

#include "base/clock.h"
#include "base/spin.h"
#include "scheduler/bell.h"
#include "scheduler/company.h"
#include "scheduler/grant.h"
#include "scheduler/notice.h"
#include "scheduler/turn.h"

// How often a busy holder is looked at while others wait, and one that has gone quiet. Less often if more work is known to be
// ahead, by a small part of it: estimates err, and once nothing is launched any more only these looks see when a batch ends.
#define BUSY_LOOK_NS (250 * NS_PER_US)
#define LONGEST_BUSY_LOOK_NS NS_PER_MS
#define BUSY_PART 4
#define QUIET_LOOK_NS (50 * NS_PER_US)
#define LONGEST_QUIET_LOOK_NS (250 * NS_PER_US)
#define QUIET_PART 16
// A holder without work keeps the token for about the cost of a switch, or for twice its usual pause if that is short compared
// with the work between its pauses. A program that waits for the GPU after every step would otherwise lose its turn at each
// step, and weights would mean nothing between such programs (S. Iyer, P. Druschel, "Anticipatory scheduling", SOSP 2001).
// Never a millisecond.
#define IDLE_NS (100 * NS_PER_US)
#define LONGEST_IDLE_NS (900 * NS_PER_US)
#define IDLE_PART 6 // of the work that came before
// A pause counts as no longer than this, so that a long one is soon forgotten. A holder whose pauses have nearly all been so
// long, eight in a row to begin with, will not come back in time and does not keep the token at all. Nearly all, because some
// requests that arrive at random follow each other closely.
#define LONG_PAUSE_NS (8 * LONGEST_IDLE_NS)
#define ALWAYS_LONG_NS (LONG_PAUSE_NS / 8 * 7)
// How long before the end of a turn the next is called: it takes half of that to wake up, and a drain may take no time at all.
#define CALL_NS (200 * NS_PER_US)
// A drain of about a window is watched without sleeping: timers come up to 2 ms late on a busy machine, and a late hand-over
// costs more GPU time than this costs processor time.
#define DRAIN_SPIN_NS (1500 * NS_PER_US)
// Of one that is known to take longer the end is, for which the next is called again: it slept meanwhile. Twice as early, since
// that end is an estimate.
#define DRAIN_CALL_NS (2 * CALL_NS)
#define DRAIN_LOOK_NS (20 * NS_PER_US)
// How often such a drain is looked at before: if the estimate is too long, the token moves late by up to this.
#define FAR_LOOK_NS (60 * NS_PER_US)
#define LATE_LOOK_NS NS_PER_MS
// How often an agent that has drained, and waits for other processes, looks whether they have died.
#define DEAD_LOOK_NS (10 * NS_PER_MS)
// A token stays contended this long after the last waiter: a tenant that comes and goes (think time) must find short queues
// each time it comes back, not a queue that filled up in its absence.
#define CONTENTION_MEMORY_NS (2 * NS_PER_S)

// Whether `holds` is true of every other process of a virtual GPU that has launched under the grant of this generation.
static bool all_other_members(const struct gate *gate, uint32_t vgpu, uint32_t generation,
                              bool (*holds)(const struct pool_member *, uint32_t))
{
    POOL_EACH_BIT(process, gate->pool->layout->vgpus[vgpu].members, POOL_MAX_PROCESSES)
    {
        const struct pool_member *member = &gate->pool->layout->members[process][gate->gpu_index];
        if (member != gate->member && atomic_load(&member->active_gen) == generation && !holds(member, generation))
            return false;
    }
    return true;
}

static bool member_is_drained(const struct pool_member *member, uint32_t generation)
{
    return atomic_load(&member->drained_gen) == generation;
}

// Whether all other processes that have launched under a grant have drained, including those of companions.
static bool all_drained(const struct gate *gate, uint64_t word)
{
    uint32_t generation = token_generation(word);
    if (!all_other_members(gate, token_holder(word), generation, member_is_drained))
        return false;
    COMPANY_EACH(vgpu, gate, word)
    if (!all_other_members(gate, vgpu, generation, member_is_drained))
        return false;
    return true;
}

static bool nobody(const struct pool_member *member, uint32_t generation)
{
    (void)member, (void)generation;
    return false;
}

static bool member_is_idle(const struct pool_member *member, uint32_t generation)
{
    (void)generation;
    return atomic_load(&member->idle_at) == atomic_load(&member->entered);
}

static void ring_other_members(const struct gate *gate)
{
    POOL_EACH_BIT(process, gate->vgpu->members, POOL_MAX_PROCESSES)
    if (process != gate->process)
        bell_ring(gate->pool->layout, process);
}

// Charges work that ran on after its token had moved, once it is done, or until the token is back.
static void settle_late(struct gate *gate, uint64_t now_ns)
{
    turn_charge_late(gate, now_ns, now_ns - gate->notes.late_from_ns);
    gate->notes.late_from_ns = 0;
}

// Work has come after a pause.
static void learn_pause(struct gate *gate, uint64_t until_ns)
{
    uint64_t pause = until_ns > gate->notes.done_ns ? until_ns - gate->notes.done_ns : 0;
    if (pause > LONG_PAUSE_NS)
        pause = LONG_PAUSE_NS;
    gate->notes.pause_ns = (gate->notes.pause_ns * 3 + pause) / 4;
    gate->notes.done_ns = 0;
}

// How long this holder may keep the token without work: twice its usual pause, within bounds; only the minimum if not even an
// ordinary pause would be over by then. A holder that can take the token back when it returns need not keep it so long.
static uint64_t idle_patience(const struct gate *gate)
{
    uint64_t pause = gate->notes.pause_ns;
    if (pause > ALWAYS_LONG_NS)
        return 0;
    uint64_t least = turn_outranks_waiters(gate) ? IDLE_NS / 2 : IDLE_NS;
    uint64_t worked = gate->notes.done_ns - gate->notes.busy_from_ns;
    uint64_t most = worked / IDLE_PART < LONGEST_IDLE_NS ? worked / IDLE_PART : LONGEST_IDLE_NS;
    if (pause + pause / 2 > most || 2 * pause < least)
        return least;
    return 2 * pause < most ? 2 * pause : most;
}

static void begin_notes(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    if (gate->notes.late_from_ns)
        settle_late(gate, now_ns);
    uint64_t arrived = atomic_load_explicit(&gate->arrived_ns, memory_order_relaxed);
    if (gate->notes.done_ns && arrived > gate->notes.done_ns)
        learn_pause(gate, arrived);
    gate->notes.done_ns = 0;
    gate->notes.busy_from_ns = now_ns;
    gate->notes.word = token_without_flags(word);
    gate->notes.since_ns = 0;
    gate->notes.called_again = false;
    gate->notes.wanted_ns = now_ns;
    gate->notes.quiet_at = UINT64_MAX;
    gate->notes.fence_set = false;
}

// Whether all work of this process on the GPU is complete. The fence stands behind what was launched up to notes.quiet_at.
static bool work_is_done(struct gate *gate)
{
    // In this order, as in gate_is_empty: if both are equal, this is the number of launches so far, without attempts that may
    // still be taken back.
    uint64_t left = atomic_load(&gate->member->left), entered = atomic_load(&gate->member->entered);
    if (left != entered)
        return false;
    if (gate->notes.quiet_at != entered || !gate->notes.fence_set) {
        gate->notes.quiet_at = entered;
        gate->notes.fence_set = gate->ops->fence_renew(gate->ops_gpu);
    }
    return gate->notes.fence_set && gate->ops->fence_done(gate->ops_gpu);
}

// When to look again at a drain with so much known work ahead; UINT64_MAX: nobody knows.
static uint64_t look_at_drain(struct gate *gate, uint64_t word, uint64_t ahead_ns, uint64_t now_ns)
{
    bool known = ahead_ns != UINT64_MAX;
    if (known && ahead_ns > DRAIN_SPIN_NS)
        return now_ns + FAR_LOOK_NS;
    bool begins = now_ns < gate->notes.since_ns + DRAIN_SPIN_NS, ends = ahead_ns <= DRAIN_CALL_NS;
    if (ends && !begins && !gate->notes.called_again) {
        gate->notes.called_again = true;
        turn_call_again(gate, word, now_ns);
    }
    return (begins || ends) && spin_briefly() ? now_ns : now_ns + DRAIN_LOOK_NS;
}

static uint64_t drain(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    uint32_t generation = token_generation(word);
    if (!gate->notes.since_ns)
        gate->notes.since_ns = now_ns;
    bool expired = now_ns >= gate->notes.since_ns + TURN_DRAIN_NS;
    // Marks are taken off while the GPU works, so that the next turn need not begin with that.
    uint64_t ahead = gate_is_empty(gate) ? window_ahead(&gate->window, now_ns) : UINT64_MAX;
    bool early = ahead <= TURN_EARLY_NS && atomic_load_explicit(&gate->gpu->mps, memory_order_relaxed);
    bool drained = member_is_drained(gate->member, generation) || work_is_done(gate) || early;
    if (!drained && !expired)
        return look_at_drain(gate, word, ahead, now_ns);
    if (!drained) {
        atomic_fetch_add_explicit(&gate->vgpu->overruns, 1, memory_order_relaxed);
        gate->notes.late_from_ns = now_ns;
    }
    atomic_store(&gate->member->drained_gen, generation);
    if (!expired && !all_drained(gate, word)) { // the last of them passes the token on
        uint64_t look = gate->notes.since_ns + DEAD_LOOK_NS;
        if (now_ns < look)
            return look;
        pool_try_reap(gate->pool);
        if (!all_drained(gate, word))
            return now_ns + DEAD_LOOK_NS;
    }
    turn_pass(gate, word, clock_now_ns(), false);
    return now_ns;
}

static uint64_t end_turn(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    if (!turn_renew(gate, word, now_ns))
        ring_other_members(gate);
    return now_ns;
}

// There is no work left before the turn's end.
static uint64_t give_away(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    atomic_fetch_add_explicit(&gate->vgpu->idle_ns, now_ns - gate->notes.done_ns, memory_order_relaxed);
    if (turn_revoke(gate, &word))
        ring_other_members(gate);
    return now_ns;
}

// Whether a virtual GPU whose work is complete, in all its processes, has been without work for long enough. If not, *look
// becomes no longer than until then; and if it is the holder, the next is called halfway.
static bool is_idle(struct gate *gate, uint64_t word, uint64_t now_ns, uint64_t *look)
{
    if (!gate->notes.done_ns)
        gate->notes.done_ns = now_ns;
    uint32_t generation = token_generation(word);
    uint64_t patience = idle_patience(gate), idle_ns = gate->notes.done_ns + patience, call_ns = idle_ns - patience / 2;
    if (now_ns < idle_ns) {
        if (now_ns >= call_ns && token_holder(word) == gate->vgpu_index &&
            all_other_members(gate, gate->vgpu_index, generation, member_is_idle))
            turn_call_next(gate, word, now_ns, true);
        uint64_t next = now_ns < call_ns ? call_ns : idle_ns;
        *look = next - now_ns < *look ? next - now_ns : *look;
        return false;
    }
    // In this order: of two that become idle at once, at least one sees the other.
    atomic_store(&gate->member->idle_at, gate->notes.quiet_at);
    if (all_other_members(gate, gate->vgpu_index, generation, member_is_idle))
        return true;
    *look = BUSY_LOOK_NS; // whoever becomes idle last gives the token away
    return false;
}

// How long until the next look at a holder that works.
static uint64_t look_for(struct gate *gate, uint64_t now_ns, uint64_t part, uint64_t least_ns, uint64_t most_ns)
{
    uint64_t ahead = window_ahead(&gate->window, now_ns), look = ahead == UINT64_MAX ? 0 : ahead / part;
    return look < least_ns ? least_ns : look < most_ns ? look : most_ns;
}

// Whether work is on its way, or has been since the last look.
static bool is_launching(struct gate *gate)
{
    uint64_t entered = atomic_load(&gate->member->entered);
    return atomic_load(&gate->throttled) > 0 || gate->notes.quiet_at != entered || !gate_is_empty(gate);
}

// Takes note of that. Returns whether it ends a pause.
static bool goes_on(struct gate *gate, uint64_t now_ns)
{
    gate->notes.quiet_at = atomic_load(&gate->member->entered);
    gate->notes.fence_set = false;
    if (!gate->notes.done_ns)
        return false;
    atomic_fetch_add_explicit(&gate->vgpu->idle_ns, now_ns - gate->notes.done_ns, memory_order_relaxed);
    learn_pause(gate, now_ns);
    gate->notes.busy_from_ns = now_ns;
    return true;
}

// Looks at the work of this process. Returns whether its virtual GPU has had none for long enough. *look becomes how long until
// the next look, *resumed whether a pause has ended.
static bool has_no_work(struct gate *gate, uint64_t word, uint64_t now_ns, uint64_t *look, bool *resumed)
{
    *look = QUIET_LOOK_NS;
    *resumed = false;
    if (is_launching(gate)) {
        *look = look_for(gate, now_ns, BUSY_PART, BUSY_LOOK_NS, LONGEST_BUSY_LOOK_NS);
        *resumed = goes_on(gate, now_ns);
        return false;
    }
    if (work_is_done(gate))
        return is_idle(gate, word, now_ns, look);
    *look = look_for(gate, now_ns, QUIET_PART, QUIET_LOOK_NS, LONGEST_QUIET_LOOK_NS);
    return false;
}

// For the holder while others wait, or under a cap: ends the turn when it is over, or when there is no work left.
static uint64_t watch_turn(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    grant_set(&gate->vgpu->charged_from, gate->token, word, 0, now_ns);
    uint64_t start = grant_get(&gate->vgpu->charged_from, word), turn = grant_get(&gate->vgpu->turn, word);
    if (!turn)
        turn = turn_start(gate, word, now_ns);
    uint64_t end = start + turn, call = turn > CALL_NS ? end - CALL_NS : start;
    if (now_ns >= end)
        return end_turn(gate, word, now_ns);
    if (now_ns >= call && gate->notes.called_ns != end) {
        gate->notes.called_ns = end;
        turn_call_next(gate, word, end, false);
    }

    uint64_t look;
    bool resumed;
    if (has_no_work(gate, word, now_ns, &look, &resumed))
        return give_away(gate, word, now_ns);
    if (resumed && gate->notes.called_ns != end)
        turn_call_off(gate);
    uint64_t next = now_ns < call ? call : end;
    return now_ns + look < next ? now_ns + look : next;
}

// A companion that has closed its gate. The last of its processes to drain ends its company.
static uint64_t leave(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    uint32_t generation = token_generation(word);
    if (!work_is_done(gate))
        return now_ns + DRAIN_LOOK_NS;
    gate->notes.word = GATE_NO_GRANT; // it may be invited into the same grant again
    atomic_compare_exchange_strong(&gate->member->active_gen, &generation, POOL_NO_GENERATION);
    if (all_other_members(gate, gate->vgpu_index, token_generation(word), nobody))
        company_leave(gate, word);
    return AGENT_NEVER_NS;
}

// For a companion: it runs beside the holder until the grant ends, it has had its share, or it has no work left.
static uint64_t accompany(struct gate *gate, uint64_t word, uint64_t now_ns)
{
    company_charge(gate, word, now_ns);
    if (word & TOKEN_REVOKED)
        return drain(gate, word, now_ns);
    if (company_has_closed(gate->vgpu, word))
        return leave(gate, word, now_ns);
    uint64_t look;
    bool resumed, leaves = has_no_work(gate, word, now_ns, &look, &resumed) || company_must_leave(gate, word, now_ns);
    if (!leaves || !company_close(gate, word))
        return now_ns + look;
    ring_other_members(gate);
    return now_ns;
}

uint64_t agent_step(struct gate *gate, uint64_t now_ns)
{
    uint64_t word = atomic_load(gate->token);
    bool holds = token_holder(word) == gate->vgpu_index, ours = holds || company_has(gate->vgpu, word);
    if (!ours || !(word & TOKEN_CONTENDED) || atomic_load(&gate->member->active_gen) != token_generation(word)) {
        if (!gate->notes.late_from_ns)
            return AGENT_NEVER_NS;
        if (!gate->ops->fence_done(gate->ops_gpu))
            return now_ns + LATE_LOOK_NS;
        settle_late(gate, now_ns);
        return AGENT_NEVER_NS;
    }
    if (gate->notes.word != token_without_flags(word))
        begin_notes(gate, word, now_ns);
    if (!holds)
        return accompany(gate, word, now_ns);
    if (word & TOKEN_REVOKED)
        return drain(gate, word, now_ns);
    company_invite(gate, word, now_ns);
    if (turn_others_wait(gate) || turn_is_capped(gate) || company_next(gate, word, 0) < POOL_MAX_VGPUS) {
        gate->notes.wanted_ns = now_ns;
        return watch_turn(gate, word, now_ns);
    }
    // The waiters have gone without a turn: no turn runs and no pause counts until another comes.
    turn_lapse(gate, word, now_ns);
    gate->notes.done_ns = 0;
    uint64_t forget = gate->notes.wanted_ns + CONTENTION_MEMORY_NS;
    if (now_ns < forget)
        return forget;
    if (atomic_compare_exchange_strong(gate->token, &word, word & ~TOKEN_CONTENDED)) {
        window_clear(&gate->window);
        // A waiter that has come since the look above relies on the flag, and must ask again; so does a limit.
        if (turn_others_wait(gate))
            futex_wake(token_futex(gate->gpu), FUTEX_EVERYONE);
        notice_limit(gate->pool->layout, gate->vgpu_index);
    }
    return now_ns;
}
