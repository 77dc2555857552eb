// SPDX-License-Identifier: AGPL-3.0-or-later
// What a move of the token books, whom it goes to, and who is told: caps, rounds, interruptions, time that nobody waited for, and the
// cost of switches.
#include "scheduler/agent.h"
#include "scheduler/grant.h"
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define MS NS_PER_MS
#define PASS_MS 10000u // a millisecond at weight 100, in units of a pass
#define LEVEL (1000 * PASS_MS)
#define COUNT 3

static struct fake_gpu fake;
static struct tenant tenants[COUNT];
static struct gate gates[COUNT], *const holder = &gates[0], *const second = &gates[1], *const third = &gates[2];
static struct pool_gpu *gpu;

// The first holds the token after a launch. It has 20 ms left of the round, the others 5: they do not interrupt, however late the test's own
// thread is.
static void begin(void)
{
    tenant_pool_new("moves");
    for (int i = 0; i < COUNT; i++) {
        char name[] = {(char)('a' + i), 0};
        if (tenant_join(&tenants[i], name, 0))
            bail_out(tenants[i].error.text);
        gates[i] = (struct gate){0};
        gate_init(&gates[i], &tenants[i].pool, tenants[i].process, tenants[i].gpu, tenants[i].vgpu, &fake_gpu_ops, &fake);
        atomic_store(&gates[i].vgpu->pass, LEVEL - (i ? 5 : 20) * PASS_MS);
    }
    gpu = holder->gpu;
    atomic_store(&gpu->level, LEVEL);
    gate_leave(holder, gate_enter(holder, NULL, holder), NULL, holder);
}

static void end(void)
{
    for (int i = 0; i < COUNT; i++) {
        window_clear(&gates[i].window);
        pool_close(&tenants[i].pool);
    }
    tenant_pool_remove();
}

static uint64_t token(void)
{
    return atomic_load(&gpu->token);
}

static uint64_t begun(void)
{
    return grant_get(&holder->vgpu->begun, token());
}

static uint32_t rings(const struct gate *gate)
{
    return atomic_load(&gate->pool->layout->processes[gate->process].doorbell);
}

static void test_caps(void)
{
    begin();
    atomic_store(&holder->vgpu->limit_percent, 50);
    turn_pass(holder, token(), clock_now_ns(), false);
    is_int(token_holder(token()), POOL_NO_INDEX, "who is capped and has had his turn does not go on, though nobody waits");
    gate_leave(holder, gate_enter(holder, NULL, holder), NULL, holder);
    ok(token() & TOKEN_CONTENDED, "what he launches counts from the first on");
    pool_bit_set(gpu->wanting, holder->vgpu_index);
    uint64_t now = clock_now_ns();
    agent_step(holder, now);
    agent_step(holder, now + 10 * NS_PER_S);
    ok(token() & TOKEN_REVOKED, "his turn is ended though nobody waits");
    agent_step(holder, now + 10 * NS_PER_S);
    ok(!pool_bit_get(gpu->wanting, holder->vgpu_index), "and he does not want the token before he has paid");
    end();
    begin();
    atomic_store(&holder->vgpu->limit_percent, 50);
    atomic_store(&second->vgpu->pass, LEVEL + 20 * PASS_MS);
    turn_request(second, clock_now_ns());
    ok(!turn_renew(holder, token(), begun() + MS), "where others wait he is not the next, though they have had more");
    end();
}

static void test_alone(void)
{
    begin();
    uint64_t now = begun() + 500 * MS;
    turn_request(second, now);
    turn_pass(holder, token(), now, false);
    ok(atomic_load(&holder->vgpu->pass) <= atomic_load(&gpu->level), "what one has used alone is not held against him");
    is_int(atomic_load(&holder->vgpu->overrun_ns), 0, "nor is there a turn to overrun");
    is_int(token_holder(token()), second->vgpu_index, "the next has the token");
    turn_request(holder, now);
    turn_pass(second, token(), now + 50 * MS, false);
    ok(atomic_load(&second->vgpu->charged_ns) == 0 && atomic_load(&second->vgpu->held_ns) == 0,
       "and is charged nothing where he has launched nothing");
    end();
    begin();
    now = begun();
    turn_request(second, now);
    turn_start(holder, token(), now);
    pool_bit_clear(gpu->wanting, second->vgpu_index); // it has gone without a turn
    turn_pass(holder, token(), now + 500 * MS, false);
    ok(atomic_load(&holder->vgpu->pass) <= atomic_load(&gpu->level), "nor what one has used after all others have gone");
    end();
}

// The holder is due again, since the other is of a hundredth of the weight.
// As if lighter ones that are gone had raised the level far beyond what the holder has used.
static void test_start_far_behind(void)
{
    begin();
    uint64_t now = clock_now_ns();
    atomic_store(&gpu->level, LEVEL + 1000 * NS_PER_S / 100);
    turn_request(second, now);
    uint64_t turn = turn_start(holder, token(), now);
    ok(turn < NS_PER_S, "a turn that begins when others come is a few rounds at most (%llu ms)", (unsigned long long)turn / MS);
    atomic_store(&second->vgpu->pass, atomic_load(&gpu->level));
    turn_pass(holder, token(), begun() + turn, false);
    uint64_t pass = atomic_load(&holder->vgpu->pass), level = atomic_load(&gpu->level);
    ok(pass + 100 * PASS_MS > level, "and no more is owed to it after that");
    end();
}

static void test_renewal(void)
{
    begin();
    atomic_store(&second->vgpu->weight, 1);
    atomic_store(&second->vgpu->pass, LEVEL);
    turn_request(second, begun());
    uint64_t word = token(), from = begun(), turn = turn_start(holder, word, from);
    ok(turn_renew(holder, word, from + turn) && token() == word, "a holder that is due again goes on under its grant");
    ok(atomic_load(&gpu->level) > LEVEL, "in the next round");
    ok(grant_get(&holder->vgpu->charged_from, word) + 1024 > from + turn, "from then on");
    is_int(atomic_load(&holder->vgpu->charged_ns), turn, "with the turn before it charged");
    end();
}

static void test_interrupter_is_next(void)
{
    begin();
    turn_request(second, clock_now_ns());
    uint32_t ring = atomic_load(&gpu->ring);
    uint32_t told = rings(holder), own = rings(third);
    ok(!(token() & TOKEN_REVOKED), "who is not due waits");
    atomic_fetch_sub(&third->vgpu->pass, 20 * PASS_MS);
    turn_request(third, clock_now_ns());
    ok(token() & TOKEN_REVOKED, "who is behind does not");
    is_int(atomic_load(&gpu->on_deck), third->vgpu_index, "watches for the token");
    is_int(rings(holder), told + 1, "has the holder's agent drain");
    turn_pass(holder, token(), clock_now_ns(), false);
    is_int(token_holder(token()), third->vgpu_index, "and goes before who is next in the ring");
    is_int(atomic_load(&gpu->ring), ring, "whose place stays where it was");
    is_int(atomic_load(&gpu->first), POOL_NO_INDEX, "this time");
    turn_request(third, clock_now_ns());
    is_int(rings(third), own, "who has said already that he wants the token rings nobody again");
    end();
}

static void test_rings(void)
{
    begin();
    uint32_t told = rings(holder);
    turn_request(second, clock_now_ns());
    is_int(rings(holder), told + 1, "who comes to wait rings the holder's agent");
    turn_request(second, clock_now_ns());
    is_int(rings(holder), told + 1, "once");
    turn_request(holder, clock_now_ns());
    is_int(rings(holder), told + 2, "a thread of the holder's own that has to wait for the drain rings it too");
    end();
}

static _Atomic int woken;

static void *sleeper(void *unused)
{
    (void)unused;
    uint64_t until = clock_now_ns() + 5 * NS_PER_S;
    atomic_store(&woken, futex_wait(token_futex(gpu), (uint32_t)token(), token_futex_bit(third->vgpu_index), until));
    return NULL;
}

static void give_high_class(struct gate *gate)
{
    atomic_store(&gate->vgpu->priority, POLICY_HIGH);
    pool_vgpu_note_class(gate->pool->layout, gate->vgpu_index);
}

static void test_called_again(void)
{
    begin();
    uint64_t now = clock_now_ns();
    fake_gpu_launch(&fake, 10 * NS_PER_S);
    struct window *window = &holder->window;
    window->batches[0] = (struct window_batch){.mark = fake_mark_put(&fake, NULL), .estimate_ns = 12 * MS, .submitted_ns = now};
    window->count = 1;
    window->closed_ns = 12 * MS;
    window->primed = true;
    turn_request(second, now);
    uint64_t word = token();
    turn_revoke(holder, &word);
    atomic_store(&gpu->on_deck, second->vgpu_index);
    atomic_store(&woken, 1);
    pthread_t thread;
    pthread_create(&thread, NULL, sleeper, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 50 * MS}, NULL);
    give_high_class(third); // it comes during the drain, and before the second
    turn_request(third, now);
    ok(agent_step(holder, now) > now + 50 * NS_PER_US, "the agent looks at a long drain now and then");
    agent_step(holder, now + 11 * MS);
    nanosleep(&(struct timespec){.tv_nsec = 20 * MS}, NULL);
    is_int(atomic_load(&woken), 1, "who is next sleeps through it");
    agent_step(holder, now + 12 * MS - 300 * NS_PER_US);
    pthread_join(thread, NULL);
    is_int(atomic_load(&woken), 0, "until shortly before its end");
    turn_pass(holder, token(), now + 12 * MS, false);
    is_int(token_holder(token()), third->vgpu_index, "and has the token then");
    atomic_store(&fake.shared->busy_until_ns[fake.tenant], 0);
    end();
}

static void test_times(void)
{
    begin();
    uint64_t word = token(), granted = begun();
    turn_request(second, granted);
    turn_start(holder, word, granted);
    pool_bit_clear(gpu->wanting, second->vgpu_index);
    agent_step(holder, clock_now_ns());
    ok(!turn_from(holder, word) && !grant_get(&holder->vgpu->turn, word), "when the last waiter has gone no turn runs");
    turn_request(second, granted);
    pool_bit_set(gpu->wanting, holder->vgpu_index);
    atomic_store(&holder->vgpu->pass, LEVEL);
    turn_pass(holder, token(), granted, false);
    uint64_t told = turn_from(second, word = token()), before = clock_now_ns();
    gate_leave(second, gate_enter(second, NULL, second), NULL, second);
    ok(!told && turn_from(second, word) + 1024 > before, "a turn begins with its first launch");
    is_int(turn_lease_end(holder, word, 0), grant_get(&second->vgpu->turn, word) + TURN_DRAIN_NS + TURN_GRACE_NS,
           "a lease lasts for turn, drain and grace");
    atomic_store(&second->vgpu->turn, grant_value(word, 100 * NS_PER_S));
    is_int(turn_lease_end(holder, word, 0), TURN_LONGEST_NS + TURN_DRAIN_NS + TURN_GRACE_NS,
           "and nonsense does not make it longer than the longest turn");
    end();
}

static uint64_t width(uint64_t left_ns)
{
    return turn_window(holder, token(), turn_from(holder, token()) + grant_get(&holder->vgpu->turn, token()) - left_ns);
}

static void test_window_widths(void)
{
    begin();
    is_int(turn_window(holder, token(), clock_now_ns()), WINDOW_NS, "where no turn runs the window is an ordinary one");
    turn_request(second, begun());
    turn_start(holder, token(), begun());
    is_int(width(12 * MS), 3 * MS, "a quarter of what is left of the turn may be in flight");
    is_int(width(2 * MS), WINDOW_NS, "but no less than an ordinary window");
    grant_set(&holder->vgpu->turn, holder->token, token(), grant_get(&holder->vgpu->turn, token()), 50 * MS);
    is_int(width(40 * MS), WINDOW_WIDEST_NS, "nor more than the widest");
    give_high_class(third);
    is_int(width(12 * MS), WINDOW_NS, "nor more than the ordinary one where somebody of a higher class may come");
    atomic_store(&holder->vgpu->priority, POLICY_LOW);
    is_int(width(12 * MS), WINDOW_NS / 4, "and a quarter of that for the low class");
    end();
}

static void test_contended_launches(void)
{
    begin();
    turn_request(second, clock_now_ns());
    bool windowed = true;
    for (int i = 0; i < 3; i++) {
        enum gate_pass pass = gate_enter(holder, NULL, holder);
        windowed = windowed && pass == GATE_WINDOWED;
        gate_leave(holder, pass, NULL, holder);
    }
    ok(windowed && holder->window.primed, "while others wait each launch counts against the window");
    turn_pass(holder, token(), clock_now_ns(), false);
    pool_bit_set(gpu->wanting, holder->vgpu_index);
    turn_pass(second, token(), clock_now_ns(), true);
    is_int(gate_enter(holder, NULL, holder), GATE_WINDOWED, "with the next grant as well");
    is_int(holder->window.primed, 0, "where the window begins anew");
    gate_leave(holder, GATE_WINDOWED, NULL, holder);
    end();
}

// A gate that ends while another process of its virtual GPU may still use the token.
static void test_dismissed(void)
{
    begin();
    struct tenant tenant;
    if (tenant_join(&tenant, "a", 0))
        bail_out(tenant.error.text);
    _Atomic uint32_t *active = &tenant.pool.layout->members[tenant.process][tenant.gpu].active_gen;
    atomic_store(active, token_generation(token()));
    agent_dismiss(holder);
    is_int(token_holder(token()), holder->vgpu_index, "a process that ends leaves the token to another of its virtual GPU");
    atomic_store(active, token_generation(token()) - 1);
    agent_dismiss(holder);
    is_int(token_holder(token()), POOL_NO_INDEX, "and gives it away where none uses it");
    pool_close(&tenant.pool);
    end();
}

// Many switches are seen to cost cost_ns. What is then taken for their cost?
static uint64_t learned(uint64_t cost_ns)
{
    for (int n = 0; n < 300; n++)
        turn_learn_switch(holder, cost_ns, cost_ns);
    return turn_switch_ns(gpu);
}

static void test_switches(void)
{
    begin();
    is_int(learned(TURN_SWITCH_NS * 7 / 4), TURN_SWITCH_NS,
           "a switch that costs three quarters more leaves quanta as they are");
    is_int(learned(TURN_SWITCH_NS * 2 / 3), TURN_SWITCH_NS, "and so does one that costs a third less");
    ok(learned(TURN_SWITCH_NS * 5 / 2) > TURN_SWITCH_NS * 2, "they follow one that costs more than twice as much");
    ok(learned(TURN_SWITCH_NS / 4) < TURN_SWITCH_NS / 2, "and one that costs less than half");
    end();
}

int main(void)
{
    fake = (struct fake_gpu){.shared = fake_gpu_share()};
    agent_stop(); // the test takes the agent's steps itself
    test_caps();
    test_alone();
    test_start_far_behind();
    test_renewal();
    test_interrupter_is_next();
    test_rings();
    test_called_again();
    test_times();
    test_window_widths();
    test_contended_launches();
    test_dismissed();
    test_switches();
    return done_testing();
}
