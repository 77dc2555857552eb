// SPDX-License-Identifier: AGPL-3.0-or-later
// How a company ends: when its holder exits or dies, and when a companion dies. Whoever wants to be alone waits until the
// companions have drained, and does not wait for the dead.
#include <pthread.h>

#include "tests/unit/company.h"

// C wants to be alone, and has so much more of the round left than A that it interrupts where that is allowed.
static void comes_alone(uint64_t behind_ms)
{
    allow(C, 1);
    atomic_fetch_sub(&gates[C].vgpu->pass, behind_ms * PASS_MS);
    turn_request(&gates[C], now);
}

static bool has_token(int who)
{
    uint64_t word = token();
    return token_holder(word) == gates[who].vgpu_index && !(word & TOKEN_REVOKED);
}

// A has the token and B works beside it.
static void begin_two(void)
{
    begin(2);
    comes(B);
    launch(B);
    agent_step(&gates[B], now);
}

// B is looked at until its work has drained, which takes 5 ms.
static void drain_companion(void)
{
    for (int i = 0; i < 10; i++)
        agent_step(&gates[B], now += MS / 2);
    ok(!has_token(C), "waits until its companion has drained");
    work_is_over[B] = true;
    agent_step(&gates[B], now += MS / 2);
    ok(has_token(C), "and not longer");
}

static void test_holder_exits(void)
{
    begin_two();
    comes_alone(0);
    agent_dismiss(&gates[A]);
    ok(token() & TOKEN_REVOKED, "who waits for a holder that exits");
    drain_companion();
    end();

    begin_two();
    work_is_over[B] = true;
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    agent_step(&gates[B], now);
    comes_alone(0);
    agent_dismiss(&gates[A]);
    ok(has_token(C), "a holder that exits last hands the token over");
    end();

    begin_two();
    agent_dismiss(&gates[A]);
    work_is_over[B] = true;
    agent_step(&gates[B], now);
    launch(B);
    ok(has_token(B), "where a holder exits its companion goes on as the holder");
    end();
}

static void test_holder_that_was_reaped(void)
{
    begin_two();
    // As if the process of the holder that has launched had died and another of the same name had not launched yet.
    atomic_store(&gates[A].member->active_gen, 0);
    comes_alone(50);
    ok(!has_token(C), "who interrupts a holder all of whose work is gone");
    drain_companion();
    end();
}

static _Atomic bool through;

static void *wait_for_turn(void *unused)
{
    (void)unused;
    launch(C);
    atomic_store(&through, true);
    return NULL;
}

static bool gets_through(uint64_t patience_ns)
{
    for (uint64_t until = clock_now_ns() + patience_ns; clock_now_ns() < until; short_nap())
        if (atomic_load(&through))
            return true;
    return false;
}

static void test_dead_holder(void)
{
    pthread_t thread;
    begin_two();
    allow(C, 1);
    pool_close(&tenants[A].pool); // this is what the others see of its death
    atomic_store(&through, false);
    pthread_create(&thread, NULL, wait_for_turn, NULL);
    ok(!gets_through(80 * MS), "who waits for a holder that has died waits for its companion");
    ok(token() & TOKEN_REVOKED, "whose gate is closed");
    work_is_over[B] = true;
    agent_step(&gates[B], now = clock_now_ns());
    ok(gets_through(20 * MS), "and no longer than until that has drained");
    pthread_join(thread, NULL);
    end();

    begin_two();
    allow(C, 1);
    pool_close(&tenants[A].pool);
    pool_close(&tenants[B].pool);
    atomic_store(&through, false);
    pthread_create(&thread, NULL, wait_for_turn, NULL);
    ok(gets_through(200 * MS), "where both have died it does not wait");
    pthread_join(thread, NULL);
    end();

    begin_two();
    allow(C, 1);
    pool_close(&tenants[A].pool);
    atomic_store(&through, false);
    pthread_create(&thread, NULL, wait_for_turn, NULL);
    ok(gets_through(NS_PER_S), "where the companion is stopped it does not wait forever");
    pthread_join(thread, NULL);
    end();
}

static void test_place_of_the_dead(void)
{
    static struct tenant newcomer;
    begin_two();
    uint32_t holder = gates[A].vgpu_index;
    pool_close(&tenants[A].pool);
    is_int(tenant_join(&newcomer, "newcomer", 0), 0, "a virtual GPU is made after the holder has died");
    ok(newcomer.vgpu != holder || !company_has(gates[B].vgpu, token()), "and does not take its place beside its companions");
    pool_close(&newcomer.pool);
    end();
}

static void test_dead_companion(void)
{
    begin_two();
    comes_alone(0);
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    work_is_over[A] = true;
    pool_close(&tenants[B].pool);
    uint64_t from = now;
    while (!has_token(C) && now < from + 1000 * MS)
        agent_step(&gates[A], now += MS);
    ok(now < from + 50 * MS, "a companion that has died is not waited for (%llu ms)", (unsigned long long)(now - from) / MS);
    end();
}

int main(void)
{
    agent_stop(); // the test takes the agents' steps itself
    test_holder_exits();
    test_holder_that_was_reaped();
    test_dead_holder();
    test_place_of_the_dead();
    test_dead_companion();
    return done_testing();
}
