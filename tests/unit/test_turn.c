// SPDX-License-Identifier: AGPL-3.0-or-later
// The moves of the token and the steps of the agent, one call at a time, at times of the test's own.
#include "scheduler/agent.h"
#include "scheduler/grant.h"
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define MS NS_PER_MS
#define PASS_MS 10000u // a millisecond at weight 100, in units of a pass

static struct tenant tenants[2];
static struct gate holder, waiter;
static struct pool_gpu *gpu;
static bool work_is_over, captures, fence_fails;
static int fences;

static void *no_mark(void *unused, void *stream)
{
    (void)unused, (void)stream;
    return NULL;
}

static bool is_over(void *unused, void *mark)
{
    (void)unused, (void)mark;
    return work_is_over;
}

static void forget(void *unused, void *mark)
{
    (void)unused, (void)mark;
}

static bool renew(void *unused)
{
    (void)unused;
    fences++;
    return !fence_fails;
}

static bool fence_is_over(void *unused)
{
    (void)unused;
    return work_is_over;
}

static bool is_capturing(void *unused, void *stream)
{
    (void)unused, (void)stream;
    return captures;
}

static const struct gpu_ops ops = {.mark_put = no_mark,
                                   .mark_done = is_over,
                                   .mark_drop = forget,
                                   .fence_renew = renew,
                                   .fence_done = fence_is_over,
                                   .is_capturing = is_capturing};

// One holds the token after a launch, the other has not asked for it. They have 20 and 5 ms left of the round: the other does not interrupt,
// however late the test's own thread is.
static void begin(void)
{
    struct gate *gates[] = {&holder, &waiter};
    static const char *const names[] = {"holder", "waiter"};
    tenant_pool_new("turn");
    for (int i = 0; i < 2; i++) {
        if (tenant_join(&tenants[i], names[i], 0))
            bail_out(tenants[i].error.text);
        *gates[i] = (struct gate){0};
        gate_init(gates[i], &tenants[i].pool, tenants[i].process, tenants[i].gpu, tenants[i].vgpu, &ops, NULL);
        atomic_store(&gates[i]->vgpu->pass, (i ? 95 : 80) * PASS_MS);
    }
    gpu = holder.gpu;
    atomic_store(&gpu->level, 100 * PASS_MS);
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    work_is_over = false;
}

static void end(void)
{
    for (int i = 0; i < 2; i++)
        pool_close(&tenants[i].pool);
    tenant_pool_remove();
}

static uint64_t token(void)
{
    return atomic_load(&gpu->token);
}

static void give_class(struct gate *gate, enum policy_class class)
{
    atomic_store(&gate->vgpu->priority, class);
    pool_vgpu_note_class(gate->pool->layout, gate->vgpu_index);
}

static void test_interruptions(void)
{
    static const struct {
        const char *what;
        enum policy_class holder, waiter;
        uint64_t behind_ms; // the waiter has used so much less
        bool interrupts;
    } cases[] = {
        {"of a higher class interrupts", POLICY_NORMAL, POLICY_HIGH, 0, true},
        {"of a higher class than the lowest interrupts", POLICY_LOW, POLICY_NORMAL, 0, true},
        {"of the same class waits for the turn's end", POLICY_NORMAL, POLICY_NORMAL, 0, false},
        {"of the same class that is behind interrupts", POLICY_NORMAL, POLICY_NORMAL, 20, true},
        {"of a lower class waits, however far behind", POLICY_HIGH, POLICY_NORMAL, 20, false},
        {"of the lowest class waits, however far behind", POLICY_NORMAL, POLICY_LOW, 20, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        give_class(&holder, cases[i].holder);
        give_class(&waiter, cases[i].waiter);
        atomic_fetch_sub(&waiter.vgpu->pass, cases[i].behind_ms * PASS_MS);
        turn_request(&waiter, clock_now_ns());
        ok(!!(token() & TOKEN_REVOKED) == cases[i].interrupts && token() & TOKEN_CONTENDED, "who comes to wait %s",
           cases[i].what);
        turn_pass(&holder, token(), clock_now_ns(), false);
        is_int(token_holder(token()), waiter.vgpu_index, "and is next");
        end();
    }
}

// As if the token had moved between the look at it and the exchange.
static void test_interruption_too_late(void)
{
    begin();
    uint64_t before = token();
    turn_take_unused(&waiter, before - 1, clock_now_ns());
    ok(token() == before && atomic_load(&gpu->first) == POOL_NO_INDEX,
       "who is too late to interrupt does not go before others");
    end();
}

static void test_contention_is_remembered(void)
{
    begin();
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    pool_bit_clear(gpu->wanting, waiter.vgpu_index); // it has gone without a turn
    agent_step(&holder, now + 1900 * MS);
    ok(token() & TOKEN_CONTENDED, "queues stay short for two seconds after the last waiter");
    agent_step(&holder, now + 2000 * MS);
    ok(!(token() & TOKEN_CONTENDED) && token_holder(token()) == holder.vgpu_index, "and not for longer");
    end();
}

static void test_late_work_is_charged(void)
{
    begin();
    uint64_t now = clock_now_ns(), word;
    turn_request(&waiter, now);
    word = token();
    turn_revoke(&holder, &word);
    agent_step(&holder, now);
    agent_step(&holder, now + 199 * MS);
    is_int(token_holder(token()), holder.vgpu_index, "a drain is waited for");
    agent_step(&holder, now + 200 * MS);
    is_int(token_holder(token()), waiter.vgpu_index, "to its deadline");
    const struct pool_vgpu *vgpu = holder.vgpu;
    is_int(atomic_load(&vgpu->overruns), 1, "which counts as an overrun");
    uint64_t charged = atomic_load(&vgpu->charged_ns), over = atomic_load(&vgpu->overrun_ns), pass = atomic_load(&vgpu->pass);
    agent_step(&holder, now + 300 * MS);
    is_int(atomic_load(&vgpu->charged_ns), charged, "while the work goes on nothing is charged");
    work_is_over = true;
    agent_step(&holder, now + 500 * MS);
    is_int(atomic_load(&vgpu->charged_ns), charged + 300 * MS, "at its end, all that it took beyond the deadline");
    is_int(atomic_load(&vgpu->overrun_ns), over + 300 * MS, "is told as overrun");
    is_int(atomic_load(&vgpu->pass), pass + 300 * PASS_MS, "and owed");
    end();
}

// Where the drain has not ended by its deadline and the token comes back first.
static void test_late_work_is_charged_until_the_token_is_back(void)
{
    begin();
    uint64_t now = clock_now_ns(), word;
    turn_request(&waiter, now);
    word = token();
    turn_revoke(&holder, &word);
    agent_step(&holder, now);
    agent_step(&holder, now + 200 * MS);
    uint64_t over = atomic_load(&holder.vgpu->overrun_ns);
    pool_bit_set(gpu->wanting, holder.vgpu_index);
    turn_pass(&waiter, token(), now + 250 * MS, true);
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    agent_step(&holder, now + 260 * MS);
    is_int(atomic_load(&holder.vgpu->overrun_ns), over + 60 * MS, "late work is charged until the token is back");
    work_is_over = true;
    turn_request(&waiter, now + 270 * MS);
    turn_pass(&holder, token(), now + 270 * MS, true);
    over = atomic_load(&holder.vgpu->overrun_ns);
    agent_step(&holder, now + 300 * MS);
    is_int(atomic_load(&holder.vgpu->overrun_ns), over, "and no longer");
    end();
}

// The work seems complete, and is not all that has been launched.
static void test_drain_waits_for_all(void)
{
    begin();
    uint64_t now = clock_now_ns(), word;
    turn_request(&waiter, now);
    agent_step(&holder, now);
    agent_step(&holder, now += NS_PER_US);
    work_is_over = true;
    is_int(gate_enter(&holder, NULL, &holder), GATE_WINDOWED, "a launch is under way");
    word = token();
    turn_revoke(&holder, &word);
    fences = 0;
    agent_step(&holder, now += NS_PER_US);
    is_int(token_holder(token()), holder.vgpu_index, "which a drain waits for");
    gate_leave(&holder, GATE_WINDOWED, NULL, &holder);
    fence_fails = true;
    agent_step(&holder, now += NS_PER_US);
    ok(fences == 1 && token_holder(token()) == holder.vgpu_index, "and for a fence behind it");
    fence_fails = false;
    agent_step(&holder, now += NS_PER_US);
    ok(fences == 2 && token_holder(token()) == waiter.vgpu_index, "which is tried again");
    end();
}

// Generations start again at 0, which a process that has not launched yet must not take for one that it knows.
static void test_generation_zero(void)
{
    begin();
    uint64_t now = clock_now_ns(), word;
    atomic_store(&gpu->token, token_next(TOKEN_GENERATION_MASK - 1, POOL_NO_INDEX, 0));
    gate_leave(&waiter, gate_enter(&waiter, NULL, &waiter), NULL, &waiter);
    ok(token_generation(token()) == 0 && token_holder(token()) == waiter.vgpu_index, "a first launch under generation 0");
    turn_request(&holder, now);
    word = token();
    turn_revoke(&waiter, &word);
    agent_step(&waiter, now);
    is_int(token_holder(token()), waiter.vgpu_index, "is waited for");
    work_is_over = true;
    agent_step(&waiter, now += NS_PER_US);
    is_int(token_holder(token()), holder.vgpu_index, "until it is complete");
    end();
}

static void test_captures(void)
{
    begin();
    const struct pool_member *member = waiter.member;
    uint64_t before = token();
    captures = true;
    enum gate_pass pass = gate_enter(&waiter, NULL, &waiter);
    is_int(pass, GATE_CAPTURED, "a launch that is captured goes ahead without the token");
    gate_leave(&waiter, pass, NULL, &waiter);
    ok(atomic_load(&member->entered) == 0 && atomic_load(&member->left) == 0, "is not counted");
    ok(token() == before && !turn_others_wait(&holder), "and asks for nothing");
    captures = false;
    end();
}

// Where the contexts of all run beside each other, the next may begin while the last of this one's work runs.
static void test_early_hand_over(void)
{
    for (uint32_t mps = 0; mps < 2; mps++) {
        begin();
        uint64_t now = clock_now_ns(), word;
        atomic_store(&gpu->mps, mps);
        turn_request(&waiter, now);
        word = token();
        turn_revoke(&holder, &word);
        struct window *window = &holder.window;
        window->batches[0] = (struct window_batch){.estimate_ns = MS, .submitted_ns = now};
        window->count = 1;
        window->closed_ns = MS;
        window->primed = true;
        agent_step(&holder, now + MS - TURN_EARLY_NS - 1);
        is_int(token_holder(token()), holder.vgpu_index,
               "while more than a hand-over's worth of work is ahead the token stays");
        atomic_fetch_add(&holder.member->entered, 1);
        agent_step(&holder, now + MS - TURN_EARLY_NS);
        is_int(token_holder(token()), holder.vgpu_index, "and while a launch is under way");
        atomic_fetch_add(&holder.member->left, 1);
        agent_step(&holder, now + MS - TURN_EARLY_NS);
        is_int(token_holder(token()), mps ? waiter.vgpu_index : holder.vgpu_index, "when that is left it moves %s",
               mps ? "under MPS" : "under MPS alone");
        end();
    }
}

#define LOOKED_EVERY_NS 10000ull

// The holder launches once, the work takes work_ns, and the other waits. Returns how long the holder then keeps the token, and goes on
// with the holder coming back for it after a pause of think_ns.
static uint64_t kept_without_work(uint64_t *now_ns, uint64_t work_ns, uint64_t think_ns)
{
    uint64_t used = atomic_load(&holder.vgpu->pass);
    atomic_store(&gpu->level, used + 1000 * PASS_MS);
    atomic_store(&waiter.vgpu->pass, used + 1000 * PASS_MS); // so that it does not interrupt
    turn_request(&waiter, *now_ns);
    agent_step(&holder, *now_ns);
    work_is_over = true;
    uint64_t from = *now_ns += work_ns;
    for (agent_step(&holder, from); !(token() & TOKEN_REVOKED) && *now_ns < from + 10 * MS; agent_step(&holder, *now_ns))
        *now_ns += LOOKED_EVERY_NS;
    uint64_t kept = *now_ns - from;
    turn_pass(&holder, token(), *now_ns, false);
    work_is_over = false;
    *now_ns = from + think_ns;
    atomic_store(&holder.arrived_ns, *now_ns);
    turn_request(&holder, *now_ns);
    turn_pass(&waiter, token(), *now_ns, true);
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    return kept;
}

static void test_patience(void)
{
    begin();
    uint64_t now = clock_now_ns();
    for (int i = 0; i < 8; i++)
        is_int(kept_without_work(&now, MS, 40 * MS), 100000, "who has no work keeps the token for the cost of a switch");
    is_int(kept_without_work(&now, MS, MS / 20), 0, "not at all after eight long pauses");
    is_int(kept_without_work(&now, MS, 40 * MS), 100000, "but again after a short one");
    end();
    begin();
    give_class(&waiter, POLICY_LOW);
    now = clock_now_ns();
    is_int(kept_without_work(&now, MS, 40 * MS), 50000, "for half as long where only those of a lower class wait");
    end();
}

// A program that pauses regularly and shortly against its work.
static void test_patience_with_steps(void)
{
    begin();
    uint64_t now = clock_now_ns(), kept = 0;
    for (int i = 0; i < 20; i++)
        kept = kept_without_work(&now, 6 * MS, 300 * NS_PER_US);
    ok(kept > 580000 && kept <= 610000, "who pauses for 0.3 ms after 6 ms of work keeps the token for twice as long: %llu us",
       (unsigned long long)kept / 1000);
    is_int(kept_without_work(&now, 2 * MS, 300 * NS_PER_US), 100000, "but not after a third of the work");
    end();
}

// Whoever is next watches for the token before it moves: woken only then, it would come when the GPU has run dry.
static void test_next_is_called(void)
{
    begin();
    uint64_t now = clock_now_ns(), called = 0;
    turn_request(&waiter, now);
    ok(atomic_load(&gpu->on_deck) != waiter.vgpu_index, "who comes to wait is not on deck");
    for (uint64_t stop = now + 100 * MS, next; !(token() & TOKEN_REVOKED) && now < stop; now = next) {
        next = agent_step(&holder, now);
        if (!called && atomic_load(&gpu->on_deck) == waiter.vgpu_index)
            called = now;
    }
    ok(called + 199000 <= now && now <= called + 201000, "but 0.2 ms before the end of the turn (%llu us)",
       (unsigned long long)(now - called) / 1000);
    turn_pass(&holder, token(), now, false);
    is_int(token_holder(token()), waiter.vgpu_index, "and is the next");
    ok(atomic_load(&gpu->on_deck) == POOL_NO_INDEX, "then nobody is on deck");
    end();
}

// Where work comes within the holder's patience, who was called for nothing would spin for nothing.
static void test_next_is_called_off(void)
{
    begin();
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    work_is_over = true;
    agent_step(&holder, now += MS);
    ok(atomic_load(&gpu->on_deck) != waiter.vgpu_index, "a holder that has just become idle calls nobody");
    agent_step(&holder, now += 60 * NS_PER_US);
    is_int(atomic_load(&gpu->on_deck), waiter.vgpu_index, "one that has been for a while calls the next");
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    agent_step(&holder, now += 10 * NS_PER_US);
    ok(atomic_load(&gpu->on_deck) == POOL_NO_INDEX, "and calls it off when work comes");
    end();
}

// One process of two has work.
static void test_idle_beside_another(void)
{
    begin();
    struct tenant tenant;
    if (tenant_join(&tenant, "holder", 0))
        bail_out(tenant.error.text);
    struct pool_member *other = &tenant.pool.layout->members[tenant.process][tenant.gpu];
    atomic_store(&other->active_gen, token_generation(token()));
    atomic_store(&other->entered, 7);
    atomic_store(&other->left, 7);
    uint64_t now = clock_now_ns();
    atomic_store(&holder.vgpu->begun, grant_value(token(), now)); // however long the joining took
    turn_request(&waiter, now);
    agent_step(&holder, now);
    work_is_over = true;
    agent_step(&holder, now += MS);
    agent_step(&holder, now += 60 * NS_PER_US);
    ok(atomic_load(&gpu->on_deck) != waiter.vgpu_index, "as long as another process of it works, an idle one calls nobody");
    now += 60 * NS_PER_US;
    is_int(agent_step(&holder, now) - now, 250 * NS_PER_US, "is looked at no more often than one that works");
    ok(!(token() & TOKEN_REVOKED), "and keeps the token");
    atomic_store(&other->idle_at, 7);
    const _Atomic uint32_t *bell = &tenant.pool.layout->processes[tenant.process].doorbell;
    uint32_t rings = atomic_load(bell);
    agent_step(&holder, now += 250 * NS_PER_US);
    ok(token() & TOKEN_REVOKED, "until both are idle");
    is_int(atomic_load(bell), rings + 1, "then the other's agent is rung");
    agent_step(&holder, now += NS_PER_US);
    is_int(token_holder(token()), holder.vgpu_index, "and waited for");
    atomic_store(&other->drained_gen, token_generation(token()));
    agent_step(&holder, now += NS_PER_US);
    is_int(token_holder(token()), waiter.vgpu_index, "until both have drained");
    pool_close(&tenant.pool);
    end();
}

// What has been called for the end of a turn, which is near, stays called.
static void test_next_stays_called(void)
{
    begin();
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    work_is_over = true;
    now += grant_get(&holder.vgpu->turn, token()) - 100 * NS_PER_US;
    agent_step(&holder, now);
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    agent_step(&holder, now += 10 * NS_PER_US);
    is_int(atomic_load(&gpu->on_deck), waiter.vgpu_index, "work that comes just before the end of a turn calls nobody off");
    end();
}

// All launches are complete, and one waits for the window, whose sleep can end late, or is held up in the driver.
static void test_idle_with_work_to_come(void)
{
    begin();
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    work_is_over = true;
    atomic_store(&holder.throttled, 1);
    for (int i = 0; i < 10; i++)
        agent_step(&holder, now += 100 * NS_PER_US);
    ok(!(token() & TOKEN_REVOKED), "a holder with a launch that waits for the window is not idle");
    atomic_store(&holder.throttled, 0);
    is_int(gate_enter(&holder, NULL, &holder), GATE_WINDOWED, "nor is one with a launch under way");
    for (int i = 0; i < 10; i++)
        agent_step(&holder, now += 100 * NS_PER_US);
    ok(!(token() & TOKEN_REVOKED) && atomic_load(&holder.vgpu->idle_ns) == 0, "which keeps the token");
    gate_leave(&holder, GATE_WINDOWED, NULL, &holder);
    for (int i = 0; i < 10; i++)
        agent_step(&holder, now += 100 * NS_PER_US);
    is_int(token_holder(token()), waiter.vgpu_index, "as long as there is any");
    end();
}

// Only a pause while others wait is one.
static void test_pause_ends_with_the_last_waiter(void)
{
    begin();
    give_class(&waiter, POLICY_LOW); // so that it does not interrupt
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    work_is_over = true;
    agent_step(&holder, now += MS);
    pool_bit_clear(gpu->wanting, waiter.vgpu_index);
    agent_step(&holder, now += MS);
    gate_leave(&holder, gate_enter(&holder, NULL, &holder), NULL, &holder);
    turn_request(&waiter, now += 10 * MS);
    agent_step(&holder, now);
    is_int(atomic_load(&holder.vgpu->idle_ns), 0, "a holder that nobody waited for has not been idle at their cost");
    end();
}

// What was charged while somebody waited stays charged if he goes without a turn, so the figure that is shown only grows.
static void test_charges_stay_when_the_last_waiter_goes(void)
{
    begin();
    uint64_t now = clock_now_ns();
    turn_request(&waiter, now);
    agent_step(&holder, now);
    pool_bit_clear(gpu->wanting, waiter.vgpu_index);
    agent_step(&holder, now += 5 * MS);
    uint64_t charged = atomic_load(&holder.vgpu->charged_ns);
    ok(charged >= 5 * MS && charged < 5 * MS + 2048, "who goes without a turn has been waiting all the same (%llu ns)",
       (unsigned long long)charged);
    is_int(turn_from(&holder, token()), 0, "from then on nothing is charged");
    agent_step(&holder, now += 5 * MS);
    is_int(atomic_load(&holder.vgpu->charged_ns), charged, "nor later");
    turn_pass(&holder, token(), now + MS, true);
    is_int(atomic_load(&holder.vgpu->charged_ns), charged, "nor again at the end");
    end();
}

static void *launch_once(void *unused)
{
    (void)unused;
    gate_leave(&waiter, gate_enter(&waiter, NULL, &waiter), NULL, &waiter);
    return NULL;
}

static bool wants_becomes(bool wants)
{
    for (uint64_t until = clock_now_ns() + 10 * NS_PER_S; clock_now_ns() < until; short_nap())
        if (pool_bit_get(gpu->wanting, waiter.vgpu_index) == wants)
            return true;
    return false;
}

// As where work that outlasted its turn is charged while its virtual GPU waits again already.
static void test_who_has_to_pay_wants_nothing(void)
{
    begin();
    pthread_t thread;
    turn_request(&waiter, clock_now_ns());
    grant_set(&holder.vgpu->turn, &gpu->token, token(), 0, TURN_LONGEST_NS); // nobody takes the token from it
    pthread_create(&thread, NULL, launch_once, NULL);
    ok(wants_becomes(true), "a launch waits for its turn");
    atomic_store(&waiter.vgpu->paid_until_ns, clock_now_ns() + 8 * NS_PER_S);
    atomic_store(&waiter.vgpu->limit_percent, 10);
    ok(wants_becomes(false), "until its virtual GPU has to pay first: the token would wait for it");
    atomic_store(&waiter.vgpu->limit_percent, 0);
    ok(wants_becomes(true), "and again after that");
    turn_pass(&holder, token(), clock_now_ns(), false);
    pthread_join(thread, NULL);
    is_int(token_holder(token()), waiter.vgpu_index, "which then comes");
    end();
}

// The more work is known to be ahead of a holder, the less often it is looked at.
static void test_looks(void)
{
    static const struct {
        uint64_t ahead_us, busy_us, quiet_us;
    } cases[] = {{0, 250, 50}, {400, 250, 50}, {1600, 400, 100}, {8000, 1000, 250}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        uint64_t now = clock_now_ns(), ahead = cases[i].ahead_us * NS_PER_US;
        turn_request(&waiter, now);
        struct window *window = &holder.window;
        window->batches[0] = (struct window_batch){.estimate_ns = ahead, .submitted_ns = now};
        window->count = ahead > 0;
        window->closed_ns = ahead;
        window->primed = ahead > 0;
        is_int(agent_step(&holder, now) - now, cases[i].busy_us * NS_PER_US, "with %llu us of work the next look is in %llu us",
               (unsigned long long)cases[i].ahead_us, (unsigned long long)cases[i].busy_us);
        is_int(agent_step(&holder, now) - now, cases[i].quiet_us * NS_PER_US, "and in %llu us when it has gone quiet",
               (unsigned long long)cases[i].quiet_us);
        window->count = 0;
        end();
    }
}

int main(void)
{
    agent_stop(); // the test takes the agent's steps itself
    test_interruptions();
    test_interruption_too_late();
    test_contention_is_remembered();
    test_late_work_is_charged();
    test_late_work_is_charged_until_the_token_is_back();
    test_drain_waits_for_all();
    test_generation_zero();
    test_early_hand_over();
    test_captures();
    test_patience();
    test_patience_with_steps();
    test_idle_beside_another();
    test_pause_ends_with_the_last_waiter();
    test_charges_stay_when_the_last_waiter_goes();
    test_who_has_to_pay_wants_nothing();
    test_next_is_called();
    test_next_is_called_off();
    test_next_stays_called();
    test_idle_with_work_to_come();
    test_looks();
    return done_testing();
}
