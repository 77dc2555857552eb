// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/gate.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/spin.h"
#include "scheduler/agent.h"
#include "scheduler/bell.h"
#include "scheduler/company.h"
#include "scheduler/turn.h"

// The one on deck spins this long for the token to change, around a drain: the kernel would wake it when the GPU has run dry.
#define SPIN_NS (2 * NS_PER_MS)
// How often a launch that waits for the window looks for room: a GPU that finishes meanwhile has nothing to do.
#define WINDOW_LOOK_NS (3 * NS_PER_US)
// A waiter looks this often even if nobody wakes it, to find out whether the holder has died.
#define LOOK_UP_NS (50 * NS_PER_MS)

__thread bool gate_thread_exempt;

void gate_init(struct gate *gate, struct pool *pool, uint32_t process, uint32_t gpu, uint32_t vgpu, const struct gpu_ops *ops,
               void *ops_gpu)
{
    struct pool_layout *layout = pool->layout;
    *gate = (struct gate){
        .token = &layout->gpus[gpu].token,
        .member = &layout->members[process][gpu],
        .grant = GATE_NO_GRANT,
        .pool = pool,
        .gpu = &layout->gpus[gpu],
        .vgpu = &layout->vgpus[vgpu],
        .process = process,
        .gpu_index = gpu,
        .vgpu_index = vgpu,
        .ops = ops,
        .ops_gpu = ops_gpu,
        .notes.invited = POOL_NO_INDEX,
    };
    window_init(&gate->window, ops, ops_gpu);
    agent_serve(gate);
}

// Counts out a launch that does not go ahead now, so that `entered` counts each launch once. gate_is_empty stays exact:
// `entered` is always `left` plus those inside.
static void count_out(struct gate *gate)
{
    atomic_fetch_sub(&gate->member->entered, 1);
}

// This process's first launch under a grant: from here on a drain has to ask this process too. Comes before the launch counts
// itself in and looks at the token again, so that a revoker either finds it active or is seen by it.
// false: the token has moved. A thread that was held up here must not restore an older generation than another thread has
// adopted since, hence the look at the token between the load and the exchange.
static bool adopt(struct gate *gate, uint64_t word)
{
    uint32_t generation = token_generation(word), active = atomic_load(&gate->member->active_gen);
    bool holds = token_holder(word) == gate->vgpu_index;
    if (atomic_load(gate->token) != word)
        return false;
    if (active != generation) {
        if (!atomic_compare_exchange_strong(&gate->member->active_gen, &active, generation))
            return false;
        if (holds) {
            pool_bit_clear(gate->gpu->wanting, gate->vgpu_index);
            turn_begin(gate, word);
        }
        window_clear(&gate->window);
        agent_start();
        // Requests for the token made in between rang an agent that saw no concern of its own. Waking it can wait until the GPU
        // has its first launch.
        atomic_store(&gate->ring_due, true);
    }
    if (holds && !(word & TOKEN_CONTENDED))
        atomic_store_explicit(&gate->grant, word, memory_order_relaxed);
    return true;
}

static bool has_adopted(const struct gate *gate, uint64_t word)
{
    return atomic_load(&gate->member->active_gen) == token_generation(word);
}

// Wakes the agent for a grant that has begun, if the token is contended: otherwise it is not needed.
static void ring_if_due(struct gate *gate)
{
    if (atomic_load_explicit(&gate->ring_due, memory_order_relaxed) && atomic_exchange(&gate->ring_due, false) &&
        atomic_load(gate->token) & TOKEN_CONTENDED)
        bell_ring(gate->pool->layout, gate->process);
}

// What a waiting thread knows about the holder it waits for.
struct watch {
    uint64_t word;     // the grant watched, flags aside
    uint64_t from_ns;  // its turn: a holder whose turn it is again begins the next one under the same grant
    uint64_t since_ns; // when that was first seen
    uint64_t probe_ns; // when to ask next whether the holder lives
    uint64_t over_ns;  // when the grant was found to be over; 0: it is not
};

// Takes the token from a holder that is dead, has kept it beyond its turn, its drain and some grace, or does not come for it.
static void overtake_if_due(struct gate *gate, uint64_t word, struct watch *watch, uint64_t now_ns)
{
    uint64_t grant = token_without_flags(word), from = turn_from(gate, word);
    if (watch->word != grant || watch->from_ns != from)
        *watch = (struct watch){.word = grant, .from_ns = from, .since_ns = now_ns, .probe_ns = now_ns};
    bool dead = false;
    if (now_ns >= watch->probe_ns) {
        watch->probe_ns = now_ns + LOOK_UP_NS;
        dead = !turn_holder_lives(gate, word);
    }
    bool due = watch->over_ns || now_ns >= turn_lease_end(gate, word, watch->since_ns);
    if (!dead && !due) {
        if (now_ns >= watch->since_ns + TURN_UNUSED_NS)
            turn_take_unused(gate, word, now_ns);
        return;
    }
    watch->over_ns = watch->over_ns ? watch->over_ns : now_ns;
    // Its companions have as long to drain as a holder has.
    if (company_detains(gate, &word)) {
        pool_try_reap(gate->pool);
        if (now_ns < watch->over_ns + TURN_DRAIN_NS + TURN_GRACE_NS && company_detains(gate, &word))
            return;
    }
    if (!turn_pass(gate, word, now_ns, false))
        return;
    log_debug("took the token from virtual GPU %u, which %s", token_holder(word),
              dead ? "has died" : "kept it beyond its lease");
    if (dead)
        pool_try_reap(gate->pool);
}

static bool is_on_deck(const struct gate *gate)
{
    return atomic_load_explicit(&gate->gpu->on_deck, memory_order_relaxed) == gate->vgpu_index;
}

// While this virtual GPU is to be next, one of its threads watches the token without sleeping. false: it is not, or in vain.
static bool watch_token(struct gate *gate, uint64_t word)
{
    if (!is_on_deck(gate) || atomic_exchange(&gate->watched, 1))
        return false;
    bool moved = false, spins = true;
    for (uint64_t until = clock_now_ns() + SPIN_NS; spins && !moved && is_on_deck(gate) && clock_now_ns() < until;) {
        spins = spin_briefly();
        moved = atomic_load(gate->token) != word;
    }
    atomic_store(&gate->watched, 0);
    return moved;
}

// A cap is used up: nothing is wanted until it has been paid for. It may be raised in the meantime.
static bool wait_for_cap(struct gate *gate, uint64_t now_ns)
{
    uint64_t wait = turn_cap_wait(gate, now_ns);
    if (wait) {
        // It may have been wanted before: the token would wait for who sleeps here.
        if (pool_bit_get(gate->gpu->wanting, gate->vgpu_index))
            pool_bit_clear(gate->gpu->wanting, gate->vgpu_index);
        clock_sleep_ns(wait < LOOK_UP_NS ? wait : LOOK_UP_NS);
    }
    return wait > 0;
}

static void wait_for_token(struct gate *gate, struct watch *watch)
{
    uint64_t now = clock_now_ns();
    turn_request(gate, now);
    // After the request, which may have set a flag: an overtaker must name the current word. The holder may be this virtual GPU
    // itself, with the gate closed by one of its processes that has since died.
    uint64_t word = atomic_load(gate->token);
    if (token_holder(word) != gate->vgpu_index || word & TOKEN_REVOKED)
        overtake_if_due(gate, word, watch, now);
    // Taking over moves the token: sleep only on the current word, and only while this request stands. A token that is not
    // contended has moved since.
    word = atomic_load(gate->token);
    if (company_may_launch(gate, word) || !(word & TOKEN_CONTENDED) || !pool_bit_get(gate->gpu->wanting, gate->vgpu_index))
        return;
    if (!watch_token(gate, word))
        futex_wait(token_futex(gate->gpu), (uint32_t)word, token_futex_bit(gate->vgpu_index), now + LOOK_UP_NS);
}

// Whether a launch of `function` may go ahead under `word`; lets some time pass if the window is full. Avoids sleeping: timers
// come up to 2 ms late on a busy machine, and by then the window is empty. The driver, too, spins when a launch meets a full
// queue.
static bool window_admits(struct gate *gate, const void *function, uint64_t word)
{
    if (!(word & TOKEN_CONTENDED))
        return true;
    uint64_t now = clock_now_ns(), pause = window_ask(&gate->window, function, turn_window(gate, word, now), now);
    uint64_t least, most;
    if (window_switch(&gate->window, &least, &most))
        turn_learn_switch(gate, least, most);
    if (pause == 0)
        return true;
    atomic_fetch_add(&gate->throttled, 1);
    uint64_t until = now + (pause < WINDOW_LOOK_NS ? pause : WINDOW_LOOK_NS);
    do {
        if (!spin_briefly()) {
            clock_sleep_ns(pause);
            break;
        }
    } while (clock_now_ns() < until);
    atomic_fetch_sub(&gate->throttled, 1);
    return false;
}

// A launch that has waited since blocked_ns goes ahead now.
static void count_wait(struct gate *gate, uint64_t blocked_ns)
{
    struct pool_vgpu *vgpu = gate->vgpu;
    uint64_t now = clock_now_ns(), granted = atomic_load_explicit(&vgpu->grant_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->waits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&vgpu->waited_ns, now - blocked_ns, memory_order_relaxed);
    pool_histogram_add(&vgpu->wait, now - blocked_ns);
    if (granted <= blocked_ns || granted >= now)
        return;
    pool_histogram_add(&vgpu->handover, now - granted);
    window_granted(&gate->window, granted);
}

static enum gate_pass pass_gate(struct gate *gate, const void *function)
{
    struct watch watch = {0};
    uint64_t blocked_ns = 0;
    for (;;) {
        uint64_t word = atomic_load(gate->token);
        bool unheld = token_holder(word) == POOL_NO_INDEX;
        if (!company_may_launch(gate, word)) {
            uint64_t now = clock_now_ns();
            if (wait_for_cap(gate, now)) {
                blocked_ns = blocked_ns ? blocked_ns : now;
                continue;
            }
            if (unheld) {
                turn_claim(gate, word);
                continue;
            }
            if (!blocked_ns) {
                blocked_ns = now;
                atomic_store_explicit(&gate->arrived_ns, now, memory_order_relaxed);
                agent_start(); // now: once the token is here, the GPU waits
            }
            wait_for_token(gate, &watch);
            continue;
        }
        if (!window_admits(gate, function, word))
            continue;
        if (!adopt(gate, word))
            continue;
        atomic_fetch_add(&gate->member->entered, 1);
        // A companion's gate has its own flag. If the companion has left and come back meanwhile, this process must adopt the
        // grant again.
        if (atomic_load(gate->token) == word && company_may_launch(gate, word) && has_adopted(gate, word)) {
            if (token_holder(word) != gate->vgpu_index)
                company_begin(gate, word);
            if (blocked_ns)
                count_wait(gate, blocked_ns);
            return word & TOKEN_CONTENDED ? GATE_WINDOWED : GATE_OPEN;
        }
        count_out(gate);
    }
}

enum gate_pass gate_enter_slow(struct gate *gate, void *stream, const void *function)
{
    int saved = errno, cancel = cancel_disable();
    count_out(gate);
    bool elsewhere = gate_thread_exempt || gate->ops->is_capturing(gate->ops_gpu, stream);
    enum gate_pass pass = elsewhere ? GATE_CAPTURED : pass_gate(gate, function);
    cancel_restore(cancel);
    errno = saved;
    return pass;
}

void gate_leave_windowed(struct gate *gate, void *stream, const void *function)
{
    int saved = errno; // of the launch that has just returned
    ring_if_due(gate);
    window_launched(&gate->window, stream, function, clock_now_ns());
    errno = saved;
}
