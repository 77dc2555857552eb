// SPDX-License-Identifier: AGPL-3.0-or-later
// A turn that is interrupted: by a drain where its holder has launched, at once where it has not, and never by waiting for its lease.
#include <pthread.h>

#include "base/histogram.h"
#include "scheduler/agent.h"
#include "scheduler/grant.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define STEP_LAUNCHES 10
#define LAUNCH_NS (500 * NS_PER_US)
#define PAUSE_NS (400 * NS_PER_US)
#define STEPS 150

static struct fake_gpu_shared *shared;
static struct tenant tenants[2];
static struct gate gates[2];
static struct fake_gpu gpus[2];

static void begin(unsigned i, const char *name)
{
    if (tenant_join(&tenants[i], name, 0))
        bail_out(tenants[i].error.text);
    atomic_store(&tenants[i].pool.layout->processes[tenants[i].process].bell, tenants[0].process);
    gpus[i] = (struct fake_gpu){.shared = shared, .tenant = i};
    gate_init(&gates[i], &tenants[i].pool, tenants[i].process, tenants[i].gpu, tenants[i].vgpu, &fake_gpu_ops, &gpus[i]);
}

static uint64_t token(void)
{
    return atomic_load(gates[0].token);
}

// The one that has had more asks for what the other, who is due, holds; and the other way round.
static void test_requests(void)
{
    struct pool_vgpu *first = gates[0].vgpu;
    ok(turn_claim(&gates[0], token()), "a virtual GPU is given the token");
    pool_bit_set(gates[0].gpu->wanting, gates[0].vgpu_index); // as long as its thread is on the way
    uint64_t granted = token(), now = clock_now_ns();
    atomic_store(&gates[1].vgpu->pass, NS_PER_S);
    turn_request(&gates[1], now);
    ok(token_without_flags(token()) == granted && !(token() & TOKEN_REVOKED), "who is not due does not take it");
    pool_bit_clear(gates[1].gpu->wanting, gates[1].vgpu_index);

    atomic_store(&gates[1].vgpu->pass, 0);
    atomic_store(&first->pass, NS_PER_S);
    turn_request(&gates[1], now);
    is_int(token_holder(token()), gates[1].vgpu_index, "who is due takes it at once where nothing was launched");
    ok(atomic_load(&first->held_ns) == 0 && !(token() & TOKEN_REVOKED), "for which nothing is charged");

    enum gate_pass pass = gate_enter(&gates[1], NULL, &gates[1]);
    fake_gpu_launch(&gpus[1], 50 * NS_PER_MS);
    gate_leave(&gates[1], pass, NULL, &gates[1]);
    ok(!pool_bit_get(gates[1].gpu->wanting, gates[1].vgpu_index), "and launches");
    atomic_store(&first->pass, 0);
    atomic_store(&gates[1].vgpu->pass, NS_PER_S);
    granted = token_without_flags(token());
    turn_request(&gates[0], now);
    ok(token_without_flags(token()) == granted && token() & TOKEN_REVOKED, "a holder that has launched drains first");
    gate_leave(&gates[0], gate_enter(&gates[0], NULL, &gates[0]), NULL, &gates[0]);
    ok(clock_now_ns() >= atomic_load(&shared->busy_until_ns[1]), "and hands over when it has");
    turn_pass(&gates[0], token(), clock_now_ns(), true);
}

// A grant that nobody comes for.
static void test_unused(void)
{
    const uint64_t quantum = 8 * NS_PER_S;
    struct pool_gpu *gpu = gates[0].gpu;
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&gates[i].vgpu->pass, 0);
        atomic_store(&gates[i].vgpu->quantum_ns, quantum);
    }
    ok(turn_claim(&gates[0], token()) && turn_pass(&gates[0], token(), clock_now_ns(), false),
       "a token that nobody wants is given to its holder afresh");
    atomic_store(&gates[1].vgpu->pass, NS_PER_S);
    turn_request(&gates[1], clock_now_ns());
    is_int(token_holder(token()), gates[1].vgpu_index, "who wants it does not wait for a holder that does not come for it");

    // As if its only waiting thread had been killed.
    atomic_store(&gates[0].vgpu->pass, 0);
    pool_bit_set(gpu->wanting, gates[0].vgpu_index);
    turn_pass(&gates[1], token(), clock_now_ns(), true);
    is_int(token_holder(token()), gates[0].vgpu_index, "the token goes to one that has asked for it, and never comes");
    uint64_t began = clock_now_ns();
    gate_leave(&gates[1], gate_enter(&gates[1], NULL, &gates[1]), NULL, &gates[1]);
    ok(clock_now_ns() - began < quantum, "who waits gets it long before that turn would be over");
    turn_pass(&gates[1], token(), clock_now_ns(), true);

    // As if who closed the gate to take the token had been killed before he took it.
    atomic_store(&gates[0].vgpu->pass, 0);
    ok(turn_claim(&gates[0], token()), "a virtual GPU is given the token");
    uint64_t word = token();
    grant_set(&gates[0].vgpu->turn, gates[0].token, word, 0, quantum);
    turn_revoke(&gates[1], &word);
    began = clock_now_ns();
    gate_leave(&gates[1], gate_enter(&gates[1], NULL, &gates[1]), NULL, &gates[1]);
    ok(clock_now_ns() - began < quantum, "nor does it wait that long for one that is closed and has nothing to drain");
    turn_pass(&gates[1], token(), clock_now_ns(), true);
    for (unsigned i = 0; i < 2; i++)
        atomic_store(&gates[i].vgpu->quantum_ns, 0);
}

static _Atomic uint32_t asleep;
static bool woken;

static void *sleeper(void *unused)
{
    (void)unused;
    uint32_t word = (uint32_t)token();
    atomic_store(&asleep, 1);
    woken = futex_wait(token_futex(gates[0].gpu), word, token_futex_bit(gates[0].vgpu_index), clock_now_ns() + 5 * NS_PER_S) !=
            -ETIMEDOUT;
    return NULL;
}

// A waiter of the holder, whose wish another tenant takes back with the token, would sleep without one.
static void test_taken_back(void)
{
    pthread_t thread;
    ok(turn_claim(&gates[0], token()), "a virtual GPU is given the token");
    pthread_create(&thread, NULL, sleeper, NULL);
    becomes(&asleep, 1);
    nanosleep(&(struct timespec){.tv_nsec = 20 * NS_PER_MS}, NULL);
    pool_bit_set(gates[1].gpu->wanting, gates[1].vgpu_index);
    turn_pass(&gates[1], token(), clock_now_ns(), false);
    pthread_join(thread, NULL);
    ok(woken, "whose wish is taken back with the token is woken to say it again");
    turn_pass(&gates[1], token(), clock_now_ns(), true);
}

// A process of the first virtual GPU besides the test's own.
static int member_body(void *launched)
{
    static struct tenant tenant;
    static struct gate gate;
    agent_reset();
    if (tenant_join(&tenant, "first", 0))
        return 1;
    gate_init(&gate, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu, &fake_gpu_ops, &gpus[0]);
    gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
    atomic_store((_Atomic uint32_t *)launched, 1);
    pause();
    return 0;
}

static void test_dead_member(void)
{
    const uint64_t quantum = 8 * NS_PER_S;
    _Atomic uint32_t *launched = share(sizeof *launched);
    pid_t member = spawn(member_body, launched);
    becomes(launched, 1);
    is_int(token_holder(token()), gates[0].vgpu_index, "one process of a virtual GPU of two holds the token");
    kill_and_wait(member);
    grant_set(&gates[0].vgpu->turn, gates[0].token, token(), 0, quantum);
    uint64_t began = clock_now_ns();
    gate_leave(&gates[1], gate_enter(&gates[1], NULL, &gates[1]), NULL, &gates[1]);
    ok(clock_now_ns() - began < quantum, "when it has been killed, nobody waits until its turn would be over");
    turn_pass(&gates[1], token(), clock_now_ns(), true);
}

static void sleep_until(uint64_t ns)
{
    for (uint64_t now = clock_now_ns(); now < ns; now = clock_now_ns())
        nanosleep(&(struct timespec){.tv_nsec = (long)(ns - now < NS_PER_MS ? ns - now : NS_PER_MS)}, NULL);
}

// A program that waits for the GPU after each step, and pauses.
static void *steps(void *argument)
{
    unsigned i = (unsigned)(uintptr_t)argument;
    for (int step = 0; step < STEPS; step++) {
        for (int n = 0; n < STEP_LAUNCHES; n++) {
            enum gate_pass pass = gate_enter(&gates[i], NULL, &gates[i]);
            fake_gpu_launch(&gpus[i], LAUNCH_NS);
            gate_leave(&gates[i], pass, NULL, &gates[i]);
        }
        sleep_until(atomic_load(&shared->busy_until_ns[i]) + PAUSE_NS);
    }
    return NULL;
}

// How many grants of a virtual GPU ended by their lease only.
static unsigned overdue(const struct pool_vgpu *vgpu)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < POOL_HISTOGRAM_BUCKETS; i++)
        if (histogram_start_ns(i) > TURN_DRAIN_NS + TURN_GRACE_NS)
            count += atomic_load(&vgpu->drain.counts[i]);
    return count;
}

static void test_steps(void)
{
    pthread_t threads[2];
    atomic_store(&gates[1].vgpu->weight, 300);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, steps, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ok(atomic_load(&gates[0].vgpu->revokes) > 0, "two programs that wait for the GPU after each step take turns");
    for (unsigned i = 0; i < 2; i++)
        is_int(overdue(gates[i].vgpu), 0, "and the token of the %s is never stuck", i ? "second" : "first");
}

int main(void)
{
    shared = fake_gpu_share();
    tenant_pool_new("interrupt");
    begin(0, "first");
    begin(1, "second");
    agent_sleep_at(&tenants[0].pool.layout->processes[tenants[0].process].doorbell);
    test_requests();
    test_unused();
    test_taken_back();
    test_dead_member();
    test_steps();
    agent_stop();
    tenant_pool_remove();
    return done_testing();
}
