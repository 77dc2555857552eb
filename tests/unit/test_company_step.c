// SPDX-License-Identifier: AGPL-3.0-or-later
// Two processes of a holder that invite at once: whichever instruction of the one's invitation the other's falls between, no more run beside
// the holder than all allow, and none is lost.
#include "tests/unit/step.h"

#include "tests/unit/company.h"

#define EVERY 3 // so many instructions: each step costs a few system calls

// Another process of the holder: invites B again and again.
static int inviter(void *unused)
{
    static struct tenant tenant;
    static struct gate gate;
    (void)unused;
    if (tenant_join(&tenant, "a", 0))
        return 1;
    gate_init(&gate, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu, &ops, &work_is_over[A]);
    for (step_begin();; step_end())
        company_invite(&gate, atomic_load(gate.token), clock_now_ns());
}

static uint32_t beside(void)
{
    uint32_t count = 0;
    for (int i = B; i < COUNT; i++)
        count += company_may_launch(&gates[i], token());
    return count;
}

// A grant in which nobody has been invited and B waits; `again`: in which somebody was, and has left.
static void begin_grant(bool again)
{
    uint64_t word = token_next(token(), gates[A].vgpu_index, TOKEN_CONTENDED);
    for (int i = B; i < COUNT; i++) {
        atomic_store(&gates[i].vgpu->companion, 0);
        pool_bit_clear(gpu->wanting, gates[i].vgpu_index);
    }
    atomic_store(&gpu->company, again ? token_without_flags(word) : 0);
    atomic_store(&gpu->token, word);
    pool_bit_set(gpu->wanting, gates[B].vgpu_index);
}

static void test_two_inviters(bool again)
{
    uint64_t instructions = 0;
    uint32_t most = 0, fewest = UINT32_MAX;
    int status;
    begin(2);
    pid_t child = spawn(inviter, NULL);
    waitpid(child, &status, 0);
    for (bool within = true; within; instructions += EVERY) {
        begin_grant(again);
        within = step_by(child, instructions, NULL);
        pool_bit_clear(gpu->wanting, gates[B].vgpu_index);
        pool_bit_set(gpu->wanting, gates[C].vgpu_index);
        company_invite(&gates[A], token(), clock_now_ns());
        if (within && (ptrace(PTRACE_CONT, child, NULL, NULL) < 0 || waitpid(child, &status, 0) != child))
            bail_out("the inviter cannot be traced");
        most = beside() > most ? beside() : most;
        company_invite(&gates[A], token(), clock_now_ns());
        fewest = beside() < fewest ? beside() : fewest;
    }
    ok(instructions > 10 * EVERY && most == 1,
       "of two who are invited at once %s one is let in, if two may run (%u, %llu instructions)", again ? "again" : "first",
       most, (unsigned long long)instructions);
    is_int(fewest, 1, "at the next look at the latest");
    kill_and_wait(child);
    end();
}

int main(void)
{
    agent_stop();
    if (STEP_IS_SLOW) {
        skip(4, "too slow to be stepped through under this sanitizer");
    } else {
        test_two_inviters(false);
        test_two_inviters(true);
    }
    return done_testing();
}
