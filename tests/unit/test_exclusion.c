// SPDX-License-Identifier: AGPL-3.0-or-later
// Strict exclusion, instruction by instruction: whenever the gate closes while a launch is on its way in, whoever closed it either finds the
// grant adopted and the launch counted in, or the launch waits.
#include "scheduler/agent.h"
#include "scheduler/company.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

enum gate_of {
    HOLDER,
    COMPANION,
    COMPANION_ALONE,
    COMPANION_BACK
}; // whose gate closes: that of a holder, of one with a companion, only the companion's, and if nothing is under way it opens again

static const struct {
    const char *what;
    bool known; // the launching process has had a launch under this grant
    enum gate_of closes;
    uint64_t flags;
    uint64_t every; // so many instructions: each step costs a few system calls
} cases[] = {
    {"under a grant that it knows", true, HOLDER, 0, 1},
    {"under a new grant", false, HOLDER, 0, 2},
    {"while others wait", true, HOLDER, TOKEN_CONTENDED, 4},
    {"beside a holder", true, COMPANION, TOKEN_CONTENDED, 4},
    {"beside a holder who has just invited it", false, COMPANION, TOKEN_CONTENDED, 4},
    {"of a companion that is to leave", true, COMPANION_ALONE, TOKEN_CONTENDED, 4},
    {"of a companion that leaves and comes back", true, COMPANION_BACK, TOKEN_CONTENDED, 4},
};

static struct {
    _Atomic uint32_t process, vgpu;
    _Atomic bool passed;
} * board;
static struct fake_gpu fake;
static struct tenant watcher;
static bool warm;

// Stops before each launch and in the middle of it, for as long as it is let.
static int launcher(void *unused)
{
    static struct tenant tenant;
    static struct gate gate;
    (void)unused;
    if (tenant_join(&tenant, "launcher", 0))
        return 1;
    gate_init(&gate, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu, &fake_gpu_ops, &fake);
    atomic_store(&board->process, tenant.process);
    atomic_store(&board->vgpu, tenant.vgpu);
    for (step_begin();; step_end()) {
        if (warm)
            gate_leave(&gate, gate_enter(&gate, NULL, &gate), NULL, &gate);
        step_end();
        enum gate_pass pass = gate_enter(&gate, NULL, &gate);
        atomic_store(&board->passed, true);
        step_end();
        gate_leave(&gate, pass, NULL, &gate);
    }
}

static void open_gate(size_t i)
{
    struct pool_gpu *gpu = &watcher.pool.layout->gpus[watcher.gpu];
    uint32_t launcher = atomic_load(&board->vgpu), holder = cases[i].closes == HOLDER ? launcher : watcher.vgpu;
    uint64_t word = token_next(atomic_load(&gpu->token), holder, cases[i].flags);
    if (cases[i].closes != HOLDER) {
        atomic_store(&gpu->company, token_without_flags(word));
        atomic_store(&watcher.pool.layout->vgpus[launcher].companion, token_without_flags(word));
        // A holder that has not come for its grant would lose it to who waits.
        atomic_store(&watcher.pool.layout->members[watcher.process][watcher.gpu].active_gen, token_generation(word));
    }
    atomic_store(&gpu->token, word);
    futex_wake(token_futex(gpu), FUTEX_EVERYONE);
}

// The process that launches, as others see it.
static struct pool_member *launching(void)
{
    return &watcher.pool.layout->members[atomic_load(&board->process)][watcher.gpu];
}

static bool is_seen(void)
{
    const struct pool_member *member = launching();
    uint32_t generation = token_generation(atomic_load(&watcher.pool.layout->gpus[watcher.gpu].token));
    return atomic_load(&member->entered) != atomic_load(&member->left) && atomic_load(&member->active_gen) == generation;
}

static void close_gate(size_t i)
{
    struct pool_vgpu *launcher = &watcher.pool.layout->vgpus[atomic_load(&board->vgpu)];
    if (cases[i].closes == HOLDER || cases[i].closes == COMPANION)
        atomic_fetch_or(&watcher.pool.layout->gpus[watcher.gpu].token, TOKEN_REVOKED);
    else
        atomic_fetch_or(&launcher->companion, TOKEN_REVOKED);
    if (cases[i].closes != COMPANION_BACK || is_seen())
        return;
    atomic_store(&launching()->active_gen, POOL_NO_GENERATION);
    atomic_fetch_and(&launcher->companion, ~TOKEN_REVOKED);
}

// Closes the gate behind so many instructions of a launch. Returns 0 when all is well, 1 when the launch was through before that, and -1
// when it went ahead unseen.
static int close_behind(pid_t child, uint64_t instructions, size_t i)
{
    struct pool_gpu *gpu = &watcher.pool.layout->gpus[watcher.gpu];
    int status;
    open_gate(i);
    if (!step_go_on(child)) // to where the launch begins
        return -1;
    atomic_store(&board->passed, false);
    if (!step_by(child, instructions, &board->passed))
        return 1;
    close_gate(i);
    bool seen = is_seen(), waits = false;
    if (ptrace(PTRACE_CONT, child, NULL, NULL) < 0)
        return -1;
    for (; !waits && waitpid(child, &status, WNOHANG) == 0; short_nap())
        waits = pool_bit_get(gpu->wanting, atomic_load(&board->vgpu));
    seen = seen || (cases[i].closes == COMPANION_BACK && is_seen());
    if (waits) {
        open_gate(i);
        waitpid(child, &status, 0);
    }
    return (waits || seen) && step_go_on(child) ? 0 : -1;
}

static void test_case(size_t i)
{
    uint64_t instructions = 0;
    int rc = 0;
    tenant_pool_new("exclusion");
    if (tenant_join(&watcher, "watcher", 0))
        bail_out(watcher.error.text);
    warm = cases[i].known;
    pid_t child = spawn(launcher, NULL);
    int status;
    waitpid(child, &status, 0);
    for (; rc == 0; instructions += cases[i].every)
        rc = close_behind(child, instructions, i);
    ok(rc == 1 && instructions > 10, "whenever the gate closes within a launch %s, it waits or is seen (%llu instructions)",
       cases[i].what, (unsigned long long)instructions);
    kill_and_wait(child);
    pool_close(&watcher.pool);
    tenant_pool_remove();
}

int main(void)
{
    board = share(sizeof *board);
    fake = (struct fake_gpu){.shared = fake_gpu_share()};
    agent_stop(); // nobody but the test moves the token
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (STEP_IS_SLOW)
            skip(1, "too slow to be stepped through under this sanitizer");
        else
            test_case(i);
    }
    return done_testing();
}
