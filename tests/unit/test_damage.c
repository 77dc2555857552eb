// SPDX-License-Identifier: AGPL-3.0-or-later
// A pool full of nonsense must not crash, hang or mislead into memory that is not the pool's: everything behind the header is random, and
// everything that reads a pool is called. The sanitizers watch; a process that does not come back in time has hung.
#include "allocator/holdings.h"
#include "scheduler/agent.h"
#include "scheduler/policy.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#include "tests/unit/step.h"

#define ROUNDS (STEP_IS_SLOW ? 4u : 40u)
#define PATIENCE_S 20u

static struct fake_gpu_shared *gpu_shared;

static void scramble(struct pool_layout *layout, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1, *words = (uint64_t *)(void *)layout;
    for (size_t i = sizeof layout->header / sizeof *words; i < sizeof *layout / sizeof *words; i++) {
        // Small numbers, all ones and all zeros reach other places than random words do.
        uint64_t word = random_next(&state);
        words[i] = word % 16 == 0 ? 0 : word % 16 == 1 ? UINT64_MAX : word % 16 == 2 ? word >> 60 : word;
    }
    for (uint32_t i = 0; seed % 2 && i < POOL_MAX_VGPUS; i++)
        atomic_store(&layout->vgpus[i].state, POOL_LIVE);
    for (uint32_t i = 0; seed % 3 && i < POOL_MAX_PROCESSES; i++)
        atomic_store(&layout->processes[i].state, POOL_LIVE);
    for (uint32_t i = 0; seed % 5 && i < POOL_MAX_GPUS; i++)
        atomic_store(&layout->gpus[i].state, seed % 4 ? POOL_LIVE : POOL_FREE);
}

static void read_all(struct pool_layout *layout)
{
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        pool_vgpu_used(layout, i);
        pool_vgpu_limit(layout, i);
        pool_vgpu_launches(layout, i);
        account_count(pool_account(layout, i));
    }
}

static void use_ledger(struct tenant *tenant, uint64_t seed)
{
    static struct holdings holdings;
    uint64_t state = seed + 1;
    holdings_init(&holdings, &tenant->pool, tenant->process, tenant->gpu, tenant->vgpu);
    for (int i = 0; i < 20; i++) {
        uint64_t bytes = random_next(&state) >> (random_next(&state) % 64);
        if (i % 5 ? holdings_take_now(&holdings, bytes) == 0 : holdings_take(&holdings, bytes) == 0)
            holdings_give(&holdings, bytes / 2);
        holdings_look(&holdings);
        holdings_count_refusal(&holdings, bytes);
    }
}

static void use_gate(struct tenant *tenant, uint64_t seed)
{
    static struct gate gate;
    static struct fake_gpu gpu;
    uint64_t now = clock_now_ns();
    // By the figures it reads it may have to wait ten seconds for every turn; not here.
    atomic_store(&tenant->pool.layout->vgpus[tenant->vgpu].limit_percent, 0);
    gpu = (struct fake_gpu){.shared = gpu_shared};
    agent_reset();
    agent_stop(); // the test takes the agent's steps itself
    gate_init(&gate, &tenant->pool, tenant->process, tenant->gpu, tenant->vgpu, &fake_gpu_ops, &gpu);
    for (int i = 0; i < 6; i++) {
        enum gate_pass pass = gate_enter(&gate, NULL, &gate);
        fake_gpu_launch(&gpu, 1000);
        gate_leave(&gate, pass, NULL, &gate);
        // And until no turn of its own is being ended: nobody but this test would end it.
        for (int step = 0; step < 8 || (step < 100 && atomic_load(gate.token) & TOKEN_REVOKED); step++)
            agent_step(&gate, now += random_next(&seed) % NS_PER_S);
    }
    window_clear(&gate.window);
    agent_stop();
}

// Attaches to a pool that is damaged, as a new process would.
static int attach_to_damaged(void *argument)
{
    static struct tenant tenant, named;
    uint64_t seed = (uintptr_t)argument + 1;
    alarm(PATIENCE_S);
    if (tenant_join_on(&tenant, 0, NULL, seed % 2 ? 10 : 0) == 0) {
        read_all(tenant.pool.layout);
        use_ledger(&tenant, seed);
        use_gate(&tenant, seed);
    }
    tenant_join_on(&named, 0, "x", UINT64_MAX / 4);
    return 0;
}

// Is attached when the damage is done.
static int be_damaged(void *argument)
{
    static struct tenant tenant;
    uint64_t seed = (uintptr_t)argument + 1;
    alarm(PATIENCE_S);
    if (tenant_join(&tenant, "victim", seed % 2 ? 10 : 0))
        return 1;
    scramble(tenant.pool.layout, seed);
    read_all(tenant.pool.layout);
    use_gate(&tenant, seed);
    use_ledger(&tenant, seed);
    // The header too, but for what was checked when the pool was opened.
    memset((void *)&tenant.pool.layout->header, seed % 2 ? 0 : 0xff, sizeof tenant.pool.layout->header);
    use_ledger(&tenant, seed);
    tenant_reap(&tenant);
    pool_leave(&tenant.pool, tenant.process);
    return 0;
}

static int prepare_damaged(uint64_t seed)
{
    struct pool pool;
    struct error error;
    if (pool_open(&pool, tenant_pool, 0, &error))
        return -1;
    scramble(pool.layout, seed);
    pool_close(&pool);
    return 0;
}

int main(void)
{
    int failed = 0;
    gpu_shared = fake_gpu_share();
    for (uint64_t i = 0; i < ROUNDS; i++) {
        tenant_pool_new("damage");
        if (prepare_damaged(i) || exit_status(spawn(attach_to_damaged, (void *)(uintptr_t)i)) != 0) {
            printf("# attaching, seed %llu\n", (unsigned long long)i);
            failed++;
        }
    }
    is_int(failed, 0, "attaching to a pool of random bytes crashes and hangs nobody (%u pools)", ROUNDS);
    failed = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        tenant_pool_new("damage");
        if (exit_status(spawn(be_damaged, (void *)(uintptr_t)i)) != 0) {
            printf("# attached, seed %llu\n", (unsigned long long)i);
            failed++;
        }
    }
    is_int(failed, 0, "nor does a pool that becomes random bytes while in use (%u pools)", ROUNDS);
    tenant_pool_remove();
    return done_testing();
}
