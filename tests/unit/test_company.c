// SPDX-License-Identifier: AGPL-3.0-or-later
// Virtual GPUs that run beside the holder of the token: who may, what each is charged, and how they leave. One call at a time, at times of
// the test's own.
#include <pthread.h>

#include "tests/unit/company.h"

static void test_invitations(void)
{
    static const struct {
        const char *what;
        uint32_t holder, waiter;
        enum policy_class class;
        uint64_t ahead_ms;
        bool invited;
    } cases[] = {
        {"is invited where both allow two", 2, 2, POLICY_NORMAL, 0, true},
        {"is invited where both allow more", 8, 3, POLICY_NORMAL, 0, true},
        {"is not where the holder allows nobody beside it", 1, 2, POLICY_NORMAL, 0, false},
        {"is not where it wants to be alone", 2, 1, POLICY_NORMAL, 0, false},
        {"is not where it is of another class", 2, 2, POLICY_LOW, 0, false},
        {"is invited where it is a little ahead of its share", 2, 2, POLICY_NORMAL, 25, true},
        {"is not where it is far ahead", 2, 2, POLICY_NORMAL, 500, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(1);
        allow(A, cases[i].holder);
        allow(B, cases[i].waiter);
        atomic_store(&gates[B].vgpu->priority, cases[i].class);
        atomic_fetch_add(&gates[B].vgpu->pass, cases[i].ahead_ms * PASS_MS);
        uint64_t grant = token_without_flags(token());
        ok(comes(B) == cases[i].invited && token_without_flags(token()) == grant, "who waits %s", cases[i].what);
        end();
    }
}

static void test_places(void)
{
    begin(2);
    ok(comes(B) && !comes(C), "with two at a time the third waits");
    end();
    begin(3);
    ok(comes(B) && comes(C), "with three at a time it does not");
    end();
    begin(3);
    allow(B, 2);
    ok(comes(B) && !comes(C), "unless the second has agreed to two only");
    end();
    begin(3);
    allow(C, 2);
    ok(comes(B) && !comes(C), "or the third itself");
    end();
    begin(2);
    atomic_fetch_sub(&gates[C].vgpu->pass, PASS_MS);
    turn_request(&gates[B], now);
    turn_request(&gates[C], now);
    agent_step(&gates[A], now);
    ok(!company_may_launch(&gates[B], token()) && company_may_launch(&gates[C], token()),
       "of two who wait the one that is further behind is invited");
    end();
}

// All who are invited launch for the first time, as if that, and the holder's first launch, took no time.
static void begin_together(void)
{
    for (int i = B; i < COUNT; i++)
        if (comes(i))
            launch(i);
    now = clock_now_ns();
    atomic_store(&gates[A].vgpu->begun, grant_value(token(), now));
    for (int i = B; i < COUNT; i++)
        if (company_has(gates[i].vgpu, token()))
            atomic_store(&gates[i].vgpu->shared_from, grant_value(token(), now));
}

static void test_charges(void)
{
    begin(2);
    begin_together();
    run_together(12 * MS);
    ok(company_may_launch(&gates[B], token()), "two run beside each other");
    uint64_t b = atomic_load(&gates[B].vgpu->held_ns);
    ok(is_near(b, 6 * MS, MS / 2), "of two the companion is charged one half (%llu of 6000 us)", (unsigned long long)b / 1000);
    turn_pass(&gates[A], token(), now, false);
    uint64_t a = atomic_load(&gates[A].vgpu->held_ns), pass = atomic_load(&gates[A].vgpu->pass);
    ok(is_near(a, 6 * MS, MS / 2), "and the holder the other (%llu us)", (unsigned long long)a / 1000);
    ok(is_near(pass, 86 * PASS_MS, PASS_MS), "for which its pass rises");
    ok(is_near(a + b, 12 * MS, MS / 4), "both together for what passed (%llu us)", (unsigned long long)(a + b) / 1000);
    is_int(atomic_load(&gates[A].vgpu->overruns) + atomic_load(&gates[B].vgpu->overruns), 0, "and nobody has overrun");
    end();

    begin(3);
    begin_together();
    run_together(12 * MS);
    b = atomic_load(&gates[B].vgpu->held_ns);
    uint64_t c = atomic_load(&gates[C].vgpu->held_ns);
    ok(is_near(b, 4 * MS, MS / 2) && is_near(c, 4 * MS, MS / 2), "of three each companion is charged a third (%llu, %llu us)",
       (unsigned long long)b / 1000, (unsigned long long)c / 1000);
    end();
}

static void test_turns_are_renewed(void)
{
    begin(2);
    comes(B);
    run_together(300 * MS);
    ok(token_holder(token()) == gates[A].vgpu_index && company_may_launch(&gates[B], token()),
       "where nobody else waits two stay together for longer than a turn");
    uint64_t a = atomic_load(&gates[A].vgpu->pass), b = atomic_load(&gates[B].vgpu->pass);
    ok(is_near(a, b, 40 * PASS_MS), "and neither gets ahead of the other");
    ok(token() & TOKEN_CONTENDED, "nor do they fill the driver's queues");
    uint64_t level = atomic_load(&gpu->level);
    ok(is_near(level, a, 60 * PASS_MS), "who comes new begins where they have got to");
    allow(C, 1);
    atomic_store(&gates[C].vgpu->pass, level);
    turn_request(&gates[C], now);
    uint64_t asked = now;
    while (token_holder(token()) != gates[C].vgpu_index && now < asked + 1000 * MS) {
        run_together(LOOK_NS);
        work_is_over[A] = work_is_over[B] = token() & TOKEN_REVOKED;
    }
    ok(now < asked + 100 * MS, "and has its turn after theirs (%llu ms)", (unsigned long long)(now - asked) / MS);
    end();
}

// A round of the lightest alone is years of the heaviest.
static void test_rounds_are_shared(void)
{
    begin(2);
    atomic_store(&gates[A].vgpu->weight, 1);
    atomic_store(&gates[B].vgpu->weight, 10000);
    comes(B);
    uint64_t a = standing_of_holder(&gates[A], token(), now).pass, level = atomic_load(&gpu->level);
    ok(level < a + 1000 * PASS_MS, "who runs beside the holder counts in the rounds that raise the level (%llu ms)",
       (unsigned long long)(level - a) / PASS_MS);
    end();
}

static void test_outrun_companion(void)
{
    begin(2);
    atomic_store(&gates[B].vgpu->weight, 300);
    comes(B);
    run_together(20 * MS);
    uint64_t from = now;
    while (token_holder(token()) != gates[B].vgpu_index && now < from + 1000 * MS) {
        run_together(LOOK_NS);
        work_is_over[A] = work_is_over[B] = token() & TOKEN_REVOKED;
    }
    ok(now < from + 500 * MS, "a companion that the holder has outrun becomes the holder (%llu ms)",
       (unsigned long long)(now - from) / MS);
    end();
}

static void test_end_of_the_grant(void)
{
    begin(2);
    comes(B);
    launch(B);
    agent_step(&gates[B], now);
    uint64_t word = token();
    ok(turn_revoke(&gates[A], &word) && !company_may_launch(&gates[B], token()),
       "where the holder's gate closes, so do its companions'");
    work_is_over[A] = true;
    agent_step(&gates[A], now += LOOK_NS);
    ok(token_without_flags(token()) == token_without_flags(word), "a holder that has drained waits for its companions");
    agent_step(&gates[B], now += LOOK_NS);
    ok(token_without_flags(token()) == token_without_flags(word), "as long as they have work");
    work_is_over[B] = true;
    agent_step(&gates[B], now += LOOK_NS);
    ok(token_without_flags(token()) != token_without_flags(word), "and the last of them passes the token on");
    ok(!company_may_launch(&gates[B], token()) && company_next(&gates[A], token(), 0) == POOL_MAX_VGPUS,
       "nobody is a companion in the next grant");
    end();
}

// So far ahead that it has to leave.
static void run_ahead(int who)
{
    atomic_fetch_add(&gates[who].vgpu->pass, 1000 * PASS_MS);
}

static void test_leaving(void)
{
    begin(2);
    comes(B);
    run_together(2 * MS);
    run_ahead(B);
    atomic_fetch_add(&gates[C].vgpu->pass, 10 * PASS_MS); // so that it does not interrupt
    agent_step(&gates[B], now);
    ok(!company_may_launch(&gates[B], token()), "a companion that is far ahead of its share stops");
    ok(!comes(C), "its place is taken until it has drained");
    agent_step(&gates[B], now += LOOK_NS);
    ok(!comes(C), "however often it is looked at");
    work_is_over[B] = true;
    agent_step(&gates[B], now += LOOK_NS);
    ok(comes(C), "then it is free for another");
    ok(!(token() & TOKEN_REVOKED) && token_holder(token()) == gates[A].vgpu_index, "and the holder goes on");
    end();

    begin(2);
    comes(B);
    run_together(2 * MS);
    run_ahead(B);
    work_is_over[B] = true;
    agent_step(&gates[B], now);
    agent_step(&gates[B], now);
    uint64_t held = atomic_load(&gates[B].vgpu->held_ns);
    atomic_fetch_sub(&gates[B].vgpu->pass, 1000 * PASS_MS);
    now += 5 * MS;
    work_is_over[B] = false;
    while (clock_now_ns() < now) // a launch reads the clock
        short_nap();
    ok(comes(B), "who has left may be invited into the same grant again");
    launch(B);
    agent_step(&gates[B], now);
    ok(is_near(atomic_load(&gates[B].vgpu->held_ns), held, MS / 4), "and is not charged for the time in between");
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    work_is_over[A] = true;
    agent_step(&gates[A], now += LOOK_NS);
    ok(token_without_flags(token()) == token_without_flags(word), "and is waited for again");
    end();
}

static void test_reasons_to_leave(void)
{
    begin(2);
    comes(B);
    run_together(MS);
    work_is_over[B] = true;
    for (int i = 0; i < 20 && company_has(gates[B].vgpu, token()); i++)
        agent_step(&gates[B], now += LOOK_NS / 2);
    ok(!company_has(gates[B].vgpu, token()) && !(token() & TOKEN_REVOKED),
       "a companion without work leaves, and the grant goes on");
    end();

    begin(2);
    comes(B);
    run_together(MS);
    work_is_over[A] = true;
    for (int i = 0; i < 20 && !(token() & TOKEN_REVOKED); i++)
        agent_step(&gates[A], now += LOOK_NS / 2);
    ok(token() & TOKEN_REVOKED, "where the holder is without work the grant ends");
    work_is_over[B] = true;
    agent_step(&gates[B], now);
    pool_bit_set(gpu->wanting, gates[B].vgpu_index);
    end();

    begin(2);
    comes(B);
    run_together(MS);
    atomic_store(&gates[B].vgpu->limit_percent, 10);
    atomic_store(&gates[B].vgpu->paid_until_ns, now + 50 * MS);
    agent_step(&gates[B], now);
    ok(!company_may_launch(&gates[B], token()), "a companion whose cap is used up stops");
    end();

    begin(2);
    comes(B);
    run_together(MS);
    allow(A, 1);
    agent_step(&gates[B], now);
    ok(!company_may_launch(&gates[B], token()), "so does one whose holder no longer allows it");
    end();

    begin(2);
    comes(B);
    run_together(MS);
    atomic_store(&gates[A].vgpu->priority, POLICY_HIGH);
    agent_step(&gates[B], now);
    ok(!company_may_launch(&gates[B], token()), "and one whose holder is of another class now");
    end();

    begin(2);
    comes(B);
    launch(B);
    agent_dismiss(&gates[B]);
    ok(comes(C), "one that exits leaves its place to others");
    end();
}

static void test_who_does_not_come(void)
{
    begin(2);
    comes(B);
    ok(!pool_bit_get(gpu->wanting, gates[B].vgpu_index), "who is invited is not waiting any more");
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    work_is_over[A] = true;
    agent_step(&gates[A], now += LOOK_NS);
    ok(token_without_flags(token()) != token_without_flags(word), "who has not come is not waited for at the end");
    uint64_t old = token_without_flags(word);
    turn_request(&gates[B], now);
    company_invite(&gates[A], old, now);
    ok(!company_has(gates[B].vgpu, token()), "and an invitation into a grant that is over is to nothing");
    end();
}

// A's work was over when nobody waited, so that it was given the token afresh, and it has not launched since.
static void test_holder_that_does_not_come(void)
{
    begin(2);
    turn_pass(&gates[A], token(), now, false);
    ok(token_holder(token()) == gates[A].vgpu_index, "a token that nobody wants stays with its holder");
    turn_request(&gates[B], now);
    ok(company_may_launch(&gates[B], token()), "who may run beside it takes it at once, since nobody would invite it");
    end();
}

static void *some_mark(void *over, void *stream)
{
    (void)stream;
    return over;
}

static bool closes_behind_the_back;

// B's agent finds it idle, and it leaves, while a launch of B is on its way through the gate.
static bool leaves_meanwhile(void *over, void *mark)
{
    (void)mark;
    if (!closes_behind_the_back || !company_close(&gates[B], token()))
        return *(bool *)over;
    company_leave(&gates[B], token());
    return true;
}

static void *launch_of_b(void *unused)
{
    (void)unused;
    launch(B);
    return NULL;
}

static void test_left_meanwhile(void)
{
    static struct gpu_ops leaving;
    pthread_t thread;
    begin(2);
    leaving = ops;
    leaving.mark_put = some_mark;
    leaving.mark_done = leaves_meanwhile;
    gates[B].ops = gates[B].window.ops = &leaving;
    comes(B);
    launch(B);
    closes_behind_the_back = true;
    pthread_create(&thread, NULL, launch_of_b, NULL);
    for (int i = 0; i < 1000 && !pool_bit_get(gpu->wanting, gates[B].vgpu_index); i++)
        short_nap();
    is_int(grant_get(&gates[B].vgpu->shared_from, token()), 0, "a launch that has not gone ahead is not charged for");
    closes_behind_the_back = false;
    ok(comes(B), "and its virtual GPU comes back");
    pthread_join(thread, NULL);
    end();
}

static uint32_t rings(int who)
{
    return atomic_load(&gates[who].pool->layout->processes[gates[who].process].doorbell);
}

static int woken;

static void *sleeper(void *unused)
{
    (void)unused;
    uint64_t until = clock_now_ns() + 5 * NS_PER_S;
    woken = futex_wait(token_futex(gpu), (uint32_t)token(), token_futex_bit(gates[B].vgpu_index), until);
    return NULL;
}

// As if the call had come just before the thread fell asleep, and the turn ended before the next.
static void test_missed_invitation(void)
{
    pthread_t thread;
    begin(2);
    comes(B);
    pthread_create(&thread, NULL, sleeper, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 50 * NS_PER_MS}, NULL);
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    pthread_join(thread, NULL);
    is_int(woken, 0, "who has slept through an invitation is woken when the grant ends");
    end();
}

static void test_who_is_told(void)
{
    begin(2);
    comes(B);
    atomic_store(&gates[B].member->active_gen, token_generation(token())); // a launch is on its way
    uint64_t word = token();
    turn_revoke(&gates[A], &word);
    uint32_t before = rings(B);
    turn_request(&gates[B], now);
    ok(rings(B) > before, "a companion whose first launch finds the gate closed tells its own agent, which has to drain");
    end();
}

static void test_forgotten_contention(void)
{
    begin(2);
    comes(B);
    atomic_fetch_and(&gpu->token, ~TOKEN_CONTENDED); // as by another process of the holder at the same moment
    launch(B);
    ok(token() & TOKEN_CONTENDED && company_has(gates[B].vgpu, token()), "a companion's launches always count");
    end();
}

int main(void)
{
    agent_stop(); // the test takes the agents' steps itself
    test_invitations();
    test_places();
    test_charges();
    test_turns_are_renewed();
    test_rounds_are_shared();
    test_outrun_companion();
    test_end_of_the_grant();
    test_leaving();
    test_reasons_to_leave();
    test_who_does_not_come();
    test_holder_that_does_not_come();
    test_left_meanwhile();
    test_missed_invitation();
    test_who_is_told();
    test_forgotten_contention();
    return done_testing();
}
