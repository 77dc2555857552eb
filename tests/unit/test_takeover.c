// SPDX-License-Identifier: AGPL-3.0-or-later
// A tenant that dies at any instruction of taking, using, asking for or handing on the token: another one gets it and the books stay sane.
#include "scheduler/agent.h"
#include "scheduler/grant.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

static struct fake_gpu_shared *gpu_shared;
static struct fake_gpu fake;
static struct tenant waiter; // in the pool that is stepped

static struct tenant survivor; // the same slot of the second pool, into which states are copied
static struct gate survivor_gate;
static uint64_t slowest_ns;

static enum { TAKING, ASKING, HANDING_ON, LEAVING } stepped;

static int victim_body(void *unused)
{
    static struct tenant tenant;
    static struct gate gate, others_gate; // the mapping of the parent's was not inherited
    (void)unused;
    if (tenant_join(&tenant, "victim", 10))
        return 1;
    gate_init(&gate, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu, &fake_gpu_ops, &fake);
    gate_init(&others_gate, &tenant.pool, waiter.process, waiter.gpu, waiter.vgpu, &fake_gpu_ops, &fake);
    uint64_t now = clock_now_ns();
    if (stepped == ASKING && !turn_claim(&others_gate, atomic_load(others_gate.token)))
        return 1;
    if (stepped >= HANDING_ON) {
        gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
        turn_request(&others_gate, now);
    }
    step_begin();
    switch (stepped) {
    case TAKING:
        gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
        break;
    case ASKING:
        turn_request(&gate, now);
        turn_pass(&others_gate, atomic_load(others_gate.token), now, false);
        gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
        break;
    case HANDING_ON:
        for (int i = 0; i < 6; i++)
            agent_step(&gate, now += 100 * NS_PER_MS);
        break;
    case LEAVING:
        turn_pass(&gate, atomic_load(gate.token), now, true);
        break;
    }
    step_end();
    return 0;
}

static bool survivor_gets_token(const struct step_image *image)
{
    struct pool_layout *layout = survivor.pool.layout;
    step_restore(layout, image);
    atomic_store(&survivor_gate.grant, GATE_NO_GRANT);
    // No lease of the dead ends in time: that they are dead must be found out.
    uint64_t word = atomic_load(survivor_gate.token);
    uint32_t holder = token_holder(word);
    if (holder != survivor.vgpu && holder < STEP_VGPUS)
        atomic_store(&layout->vgpus[holder].turn, grant_value(word, TURN_LONGEST_NS));
    uint64_t began = clock_now_ns();
    enum gate_pass pass = gate_enter(&survivor_gate, NULL, &survivor_gate);
    uint64_t took = clock_now_ns() - began;
    gate_leave(&survivor_gate, pass, NULL, &survivor_gate);
    slowest_ns = took > slowest_ns ? took : slowest_ns;
    bool fine = token_holder(atomic_load(survivor_gate.token)) == survivor.vgpu && took < 5 * NS_PER_S;
    tenant_reap(&survivor);
    for (uint32_t i = 0; i < STEP_VGPUS; i++) {
        const struct pool_vgpu *vgpu = &layout->vgpus[i];
        uint64_t held = atomic_load(&vgpu->held_ns), charged = atomic_load(&vgpu->charged_ns);
        // Nobody has run for a minute. A pass of weight 100 is in units of 100 ns.
        fine = fine && atomic_load(&vgpu->pass) < 60 * NS_PER_S / 100 &&
               atomic_load(&layout->gpus[0].level) < 120 * NS_PER_S / 100;
        fine = fine && held < 60 * NS_PER_S && charged <= held + NS_PER_S;
        fine = fine && (i == survivor.vgpu || atomic_load(&vgpu->state) == POOL_FREE);
    }
    return fine && atomic_load(&layout->gpus[0].reserved_chunks) == 10;
}

static void join(struct tenant *tenant, struct gate *gate, const char *pool)
{
    tenant_pool_new(pool);
    if (tenant_join(tenant, "survivor", 10))
        bail_out(tenant->error.text);
    *gate = (struct gate){0};
    gate_init(gate, &tenant->pool, tenant->process, tenant->gpu, tenant->vgpu, &fake_gpu_ops, &fake);
}

int main(void)
{
    static const char *const names[] = {"taking the token", "asking for it and being given it",
                                        "ending its turn and handing it on", "leaving with it"};
    gpu_shared = fake_gpu_share();
    fake = (struct fake_gpu){.shared = gpu_shared};
    agent_stop(); // the test takes the agent's steps itself
    for (int i = TAKING; i <= LEAVING; i++) {
        if (STEP_IS_SLOW) {
            skip(1, "too slow to be stepped through under this sanitizer");
            continue;
        }
        static struct gate gate;
        stepped = i;
        slowest_ns = 0;
        join(&survivor, &survivor_gate, "takeover2");
        char second[sizeof tenant_pool];
        memcpy(second, tenant_pool, sizeof second);
        join(&waiter, &gate, "takeover");
        pid_t child = spawn(victim_body, NULL);
        ok(step_through(child, waiter.pool.layout, survivor_gets_token) > 2,
           "whichever instruction of %s is a tenant's last, another one gets the token", names[i]);
        printf("# the slowest takeover took %llu us\n", (unsigned long long)(slowest_ns / 1000));
        kill_and_wait(child);
        pool_close(&waiter.pool);
        pool_close(&survivor.pool);
        unlink(second);
        tenant_pool_remove();
    }
    return done_testing();
}
