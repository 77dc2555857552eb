// SPDX-License-Identifier: AGPL-3.0-or-later
// Several gates in one process: each with a slot of its own, one agent for all, and gates that end before the process does.
#include <pthread.h>

#include "scheduler/agent.h"
#include "scheduler/bell.h"
#include "scheduler/gate.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define GATES 3
#define LAUNCHES 1000 // of 0.1 ms: more than one turn

static struct fake_gpu_shared *shared;
static struct tenant home, tenants[GATES];
static struct gate gates[GATES];
static struct fake_gpu gpus[GATES];

static void begin(unsigned i)
{
    char name[8];
    snprintf(name, sizeof name, "gate%u", i);
    is_int(tenant_join(&tenants[i], name, 0), 0, "a virtual GPU in a slot of its own joins");
    atomic_store(&tenants[i].pool.layout->processes[tenants[i].process].bell, home.process);
    gpus[i] = (struct fake_gpu){.shared = shared, .tenant = i};
    gate_init(&gates[i], &tenants[i].pool, tenants[i].process, tenants[i].gpu, tenants[i].vgpu, &fake_gpu_ops, &gpus[i]);
}

static void end(unsigned i)
{
    struct error error;
    agent_dismiss(&gates[i]);
    window_clear(&gates[i].window);
    int lock = pool_lock(&tenants[i].pool, POOL_LOCK_PATIENCE_NS, &error);
    pool_leave(&tenants[i].pool, tenants[i].process);
    pool_unlock(lock);
    pool_close(&tenants[i].pool);
}

static void *launch(void *argument)
{
    unsigned i = (unsigned)(uintptr_t)argument;
    for (int n = 0; n < LAUNCHES; n++) {
        while (atomic_load(&shared->busy_until_ns[i]) > clock_now_ns() + 10 * NS_PER_MS)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        enum gate_pass pass = gate_enter(&gates[i], NULL, &gates[i]);
        fake_gpu_launch(&gpus[i], 100000);
        gate_leave(&gates[i], pass, NULL, &gates[i]);
    }
    return NULL;
}

static void contend(void)
{
    pthread_t threads[GATES];
    for (unsigned i = 0; i < GATES; i++)
        pthread_create(&threads[i], NULL, launch, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < GATES; i++)
        pthread_join(threads[i], NULL);
}

static bool free_or_of_the_living(const _Atomic uint64_t *token, unsigned ended)
{
    return token_holder(atomic_load(token)) != tenants[ended].vgpu;
}

int main(void)
{
    shared = fake_gpu_share();
    tenant_pool_new("gates");
    is_int(tenant_join(&home, NULL, 0), 0, "the process has a slot where its agent sleeps");
    agent_sleep_at(&home.pool.layout->processes[home.process].doorbell);
    for (unsigned i = 0; i < GATES; i++)
        begin(i);
    contend();
    for (unsigned i = 0; i < GATES; i++) {
        const struct pool_vgpu *vgpu = &tenants[i].pool.layout->vgpus[tenants[i].vgpu];
        is_int(pool_vgpu_launches(tenants[i].pool.layout, tenants[i].vgpu), LAUNCHES, "all launches of gate %u went through",
               i);
        ok(atomic_load(&vgpu->revokes) > 0, "the one agent ended turns of gate %u", i);
    }
    const _Atomic uint64_t *token = &home.pool.layout->gpus[home.gpu].token;
    uint32_t rings = atomic_load(&home.pool.layout->processes[home.process].doorbell);
    bell_ring(home.pool.layout, tenants[1].process);
    is_int(atomic_load(&home.pool.layout->processes[home.process].doorbell), rings + 1,
           "ringing a slot rings where its bell says");

    // The holder ends, in the middle of things.
    enum gate_pass pass = gate_enter(&gates[1], NULL, &gates[1]);
    gate_leave(&gates[1], pass, NULL, &gates[1]);
    ok(!free_or_of_the_living(token, 1), "a gate holds the token");
    end(1);
    ok(free_or_of_the_living(token, 1), "it is given away when the gate is dismissed");
    begin(1);
    contend();
    for (unsigned i = 0; i < GATES; i++)
        is_int(pool_vgpu_launches(tenants[i].pool.layout, tenants[i].vgpu), i == 1 ? LAUNCHES : 2 * LAUNCHES,
               "with a gate in the place of the one that ended, all of gate %u go through", i);
    for (unsigned i = 0; i < GATES; i++)
        end(i);
    is_int(token_holder(atomic_load(token)), POOL_NO_INDEX, "without gates nobody has the token");
    agent_stop();
    tenant_pool_remove();
    return done_testing();
}
