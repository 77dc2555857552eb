// SPDX-License-Identifier: AGPL-3.0-or-later
// A cap that comes while a process decides, instruction by instruction, whether its launches are to be measured: whichever instruction is
// the last before the cap, the token is contended in the end.
#include "pool/change.h"
#include "scheduler/agent.h"
#include "scheduler/notice.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

static const char *const cases[] = {"takes the token", "forgets that others have waited"};

static struct {
    _Atomic uint32_t vgpu;
    _Atomic bool through;
} * board;
static struct fake_gpu fake;
static struct tenant watcher;
static size_t number; // of the case

#define EVERY 3 // so many instructions: each step costs a few system calls

// Stops before it decides and behind that, for as long as it is let.
static int decider(void *unused)
{
    static struct tenant tenant;
    static struct gate gate;
    (void)unused;
    if (tenant_join(&tenant, "capped", 0))
        return 1;
    gate_init(&gate, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu, &fake_gpu_ops, &fake);
    atomic_store(&board->vgpu, tenant.vgpu);
    for (step_begin();; step_end()) {
        uint64_t now = clock_now_ns();
        if (number == 1) {
            gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
            atomic_fetch_or(gate.token, TOKEN_CONTENDED);
            agent_step(&gate, now);
        }
        step_end();
        if (number == 1)
            agent_step(&gate, now + 2 * NS_PER_S);
        else
            gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
        atomic_store(&board->through, true);
    }
}

static void set_limit(uint32_t percent)
{
    struct error error;
    struct pool_layout *layout = watcher.pool.layout;
    const struct pool_change change = {.vgpu = atomic_load(&board->vgpu), .limit_percent = percent};
    const struct pool_vgpu *vgpu = &layout->vgpus[change.vgpu];
    int lock = pool_lock(&watcher.pool, POOL_LOCK_PATIENCE_NS, &error);
    if (lock < 0 || pool_change(&watcher.pool, &change, 1, &error))
        bail_out(error.text);
    notice_change(layout, change.vgpu, atomic_load(&vgpu->weight), atomic_load(&vgpu->priority));
    pool_unlock(lock);
}

// Sets a cap behind so many instructions. Returns 0 when it counts, 1 when the child was through before that, and -1 when it does not
// count, or the child cannot be traced.
static int cap_behind(pid_t child, uint64_t instructions)
{
    struct pool_gpu *gpu = &watcher.pool.layout->gpus[watcher.gpu];
    set_limit(100);
    atomic_store(&gpu->token, token_next(atomic_load(&gpu->token), POOL_NO_INDEX, 0));
    if (!step_go_on(child)) // to where it decides
        return -1;
    atomic_store(&board->through, false);
    if (!step_by(child, instructions, &board->through))
        return 1;
    set_limit(50);
    if (!step_go_on(child))
        return -1;
    uint64_t word = atomic_load(&gpu->token);
    return token_holder(word) == atomic_load(&board->vgpu) && word & TOKEN_CONTENDED ? 0 : -1;
}

static void test_case(void)
{
    uint64_t instructions = 0;
    int rc = 0, status;
    tenant_pool_new("capped");
    if (tenant_join(&watcher, "watcher", 0))
        bail_out(watcher.error.text);
    pid_t child = spawn(decider, NULL);
    waitpid(child, &status, 0);
    for (; rc == 0; instructions += EVERY)
        rc = cap_behind(child, instructions);
    ok(rc == 1 && instructions > 10, "whenever a cap comes while its virtual GPU %s, it counts (%llu instructions)",
       cases[number], (unsigned long long)instructions);
    kill_and_wait(child);
    pool_close(&watcher.pool);
    tenant_pool_remove();
}

int main(void)
{
    board = share(sizeof *board);
    fake = (struct fake_gpu){.shared = fake_gpu_share()};
    agent_stop(); // the test takes the agent's steps itself
    for (number = 0; number < sizeof cases / sizeof cases[0]; number++) {
        if (STEP_IS_SLOW)
            skip(1, "too slow to be stepped through under this sanitizer");
        else
            test_case();
    }
    return done_testing();
}
