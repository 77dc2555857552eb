// SPDX-License-Identifier: AGPL-3.0-or-later
// A company for the unit tests: three virtual GPUs of one process on a GPU whose work is over when the test says so. The test takes the
// agents' steps itself, at times of its own.
#ifndef VGPU_TESTS_COMPANY_H
#define VGPU_TESTS_COMPANY_H

#include "scheduler/agent.h"
#include "scheduler/company.h"
#include "scheduler/grant.h"
#include "scheduler/policy.h"
#include "scheduler/standing.h"
#include "scheduler/turn.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define MS NS_PER_MS
#define PASS_MS 10000u // a millisecond at weight 100, in units of a pass
#define LOOK_NS (100 * NS_PER_US)

enum { A, B, C, COUNT };

static struct tenant tenants[COUNT];
static struct gate gates[COUNT];
static bool work_is_over[COUNT];
static struct pool_gpu *gpu;
static uint64_t now;

static inline void *no_mark(void *unused, void *stream)
{
    (void)unused, (void)stream;
    return NULL;
}

static inline bool mark_is_over(void *over, void *mark)
{
    (void)mark;
    return *(bool *)over;
}

static inline void forget(void *unused, void *mark)
{
    (void)unused, (void)mark;
}

static inline bool renew(void *unused)
{
    (void)unused;
    return true;
}

static inline bool fence_is_over(void *over)
{
    return *(bool *)over;
}

static inline bool is_capturing(void *unused, void *stream)
{
    (void)unused, (void)stream;
    return false;
}

static const struct gpu_ops ops = {.mark_put = no_mark,
                                   .mark_done = mark_is_over,
                                   .mark_drop = forget,
                                   .fence_renew = renew,
                                   .fence_done = fence_is_over,
                                   .is_capturing = is_capturing};

static inline uint64_t token(void)
{
    return atomic_load(&gpu->token);
}

static inline void launch(int who)
{
    gate_leave(&gates[who], gate_enter(&gates[who], NULL, &gates[who]), NULL, &gates[who]);
}

static inline void allow(int who, uint32_t concurrency)
{
    atomic_store(&gates[who].vgpu->concurrency, concurrency);
}

// A holds the token after a launch; each allows `concurrency` at a time, and has 20 ms left of the round.
static inline void begin(uint32_t concurrency)
{
    static const char *const names[] = {"a", "b", "c"};
    tenant_pool_new("company");
    for (int i = 0; i < COUNT; i++) {
        if (tenant_join(&tenants[i], names[i], 0))
            bail_out(tenants[i].error.text);
        gates[i] = (struct gate){0};
        gate_init(&gates[i], &tenants[i].pool, tenants[i].process, tenants[i].gpu, tenants[i].vgpu, &ops, &work_is_over[i]);
        atomic_store(&gates[i].vgpu->pass, 80 * PASS_MS);
        allow(i, concurrency);
        work_is_over[i] = false;
    }
    gpu = gates[C].gpu; // through the mapping of one that lives to the end
    atomic_store(&gpu->level, 100 * PASS_MS);
    launch(A);
    now = clock_now_ns();
}

static inline void end(void)
{
    for (int i = 0; i < COUNT; i++)
        pool_close(&tenants[i].pool);
    tenant_pool_remove();
}

// `who` comes to wait, and the holder's agent looks. Returns whether `who` may launch.
static inline bool comes(int who)
{
    turn_request(&gates[who], now);
    agent_step(&gates[A], now);
    return company_may_launch(&gates[who], token());
}

// A and B run for so long, looked at as their agents do.
static inline void run_together(uint64_t ns)
{
    for (uint64_t until = now + ns; now < until; now += LOOK_NS)
        for (int i = 0; i < COUNT; i++) {
            if (company_may_launch(&gates[i], token()))
                launch(i);
            agent_step(&gates[i], now);
        }
}

static inline bool is_near(uint64_t value, uint64_t goal, uint64_t slack)
{
    return value + slack >= goal && value <= goal + slack;
}

#endif
