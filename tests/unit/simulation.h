// SPDX-License-Identifier: AGPL-3.0-or-later
// A node with one GPU and a clock of its own, for the policy: tenants with their ways, and the moves that scheduler/turn.c and
// scheduler/agent.c make with the policy, without processes, pool or time that passes.
//
// What is simplified: a drain takes what is left of the kernel under way; a switch takes switch_ns and is part of the grant, as it is
// there; an agent sees everything at once; a holder without work waits idle_ns.
#ifndef VGPU_TESTS_SIMULATION_H
#define VGPU_TESTS_SIMULATION_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/tenant.h"

#define SIM_PLACES 16384u
#define SIM_NOBODY UINT32_MAX
#define SIM_FOREVER UINT64_MAX
#define SIM_IDLE_NS (100 * NS_PER_US) // as in scheduler/agent_step.c

struct sim_tenant {
    uint32_t weight, limit_percent;
    enum policy_class class;
    uint64_t kernel_ns; // work is made of kernels of this length
    uint64_t burst_ns;  // work that comes at once, 0: there is always some
    uint64_t think_ns;  // pause after a burst, with `random` exponentially distributed around this
    uint64_t period_ns; // instead: a burst comes at each multiple of this
    bool random;
    bool dodges; // pauses for a moment just before each end of a turn

    bool lives, wants;
    uint32_t life; // events of earlier ones are stale
    uint64_t pass, paid_until_ns;
    uint64_t work_ns;      // left
    uint64_t arrived_ns;   // when it last began to want
    uint64_t late_from_ns; // a kernel still runs since its turn was taken away; 0: none

    uint64_t used_ns; // had the GPU
    uint64_t work_done_ns, bursts, longest_wait_ns;
    uint64_t waits_over_ns[2]; // waits longer than wait_marks_ns of the simulation
    uint64_t waits;
};

struct sim_event {
    uint64_t at_ns;
    uint32_t tenant, life;
};

static struct simulation {
    struct sim_tenant tenants[SIM_PLACES];
    uint64_t wanting[SIM_PLACES / 64], high[SIM_PLACES / 64];
    size_t waiting;           // of them
    struct sim_event *events; // a heap, the earliest first
    size_t event_count, event_room;
    uint64_t now_ns, level, round, switch_ns;
    uint64_t quantum_ns; // 0: automatic
    uint64_t wait_marks_ns[2];
    uint32_t place, first, holder, last_holder;
    uint64_t grant_ns, turn_from_ns, turn_ns;     // of the holder; a turn of 0: nobody else wants the GPU
    size_t most_waiting;                          // at once
    uint64_t unused_ns, decisions, looks, random; // looks: at entries, to decide
} sim;

// --- events ---

static inline void sim_schedule(uint64_t at_ns, uint32_t tenant)
{
    if (sim.event_count == sim.event_room) {
        sim.event_room = sim.event_room ? 2 * sim.event_room : 1024;
        sim.events = (struct sim_event *)realloc(sim.events, sim.event_room * sizeof *sim.events);
        if (!sim.events)
            abort();
    }
    size_t i = sim.event_count++;
    for (; i && sim.events[(i - 1) / 2].at_ns > at_ns; i = (i - 1) / 2)
        sim.events[i] = sim.events[(i - 1) / 2];
    sim.events[i] = (struct sim_event){at_ns, tenant, sim.tenants[tenant].life};
}

static inline struct sim_event sim_next_event(void)
{
    struct sim_event first = sim.events[0], last = sim.events[--sim.event_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < sim.event_count; i = child) {
        child += child + 1 < sim.event_count && sim.events[child + 1].at_ns < sim.events[child].at_ns;
        if (sim.events[child].at_ns >= last.at_ns)
            break;
        sim.events[i] = sim.events[child];
    }
    sim.events[i] = last;
    return first;
}

// --- tenants ---

static inline struct policy_entry sim_entry(uint32_t index)
{
    const struct sim_tenant *tenant = &sim.tenants[index];
    return (struct policy_entry){index, tenant->weight, tenant->class, tenant->pass, sim.quantum_ns};
}

// The holder's pass as of now.
static inline struct policy_entry sim_holder(void)
{
    struct policy_entry entry = sim_entry(sim.holder);
    entry.pass += policy_pass(&entry, sim.now_ns - sim.grant_ns);
    return entry;
}

static inline void sim_want(uint32_t index, bool wants)
{
    uint64_t bit = 1ull << index % 64, *word = &sim.wanting[index / 64];
    sim.waiting += wants - (*word & bit ? 1 : 0);
    *word = wants ? *word | bit : *word & ~bit;
}

static inline void sim_wait(uint32_t index)
{
    sim.tenants[index].wants = true;
    sim.tenants[index].arrived_ns = sim.now_ns;
    sim_want(index, true);
}

// As ring_entry in scheduler/turn.c.
static inline struct policy_entry sim_look(const void *unused, uint32_t vgpu)
{
    (void)unused;
    sim.looks++;
    return vgpu == sim.holder ? sim_holder() : sim_entry(vgpu);
}

static inline struct policy_rules sim_rules(void)
{
    return (struct policy_rules){sim.switch_ns, TURN_SHORTEST_NS};
}

static inline struct policy_ring sim_ring(void)
{
    return (struct policy_ring){SIM_PLACES / 64, sim.wanting, sim.high, sim_look, NULL};
}

static inline struct policy_choice sim_choose(uint32_t first)
{
    struct policy_ring ring = sim_ring();
    struct policy_rules rules = sim_rules();
    sim.decisions++;
    return policy_choose(&ring, sim.place, sim.level, sim.round, first, &rules);
}

static inline void sim_begin(uint64_t quantum_ns)
{
    struct sim_event *events = sim.events;
    size_t room = sim.event_room;
    memset(&sim, 0, sizeof sim);
    sim.events = events;
    sim.event_room = room;
    sim.now_ns = 1000 * NS_PER_S;
    sim.switch_ns = TURN_SWITCH_NS;
    sim.quantum_ns = quantum_ns;
    sim.first = sim.holder = sim.last_holder = SIM_NOBODY;
    sim.random = 4711;
}

// A new tenant at a place that is free. It has work at once.
static inline void sim_add(uint32_t index, struct sim_tenant tenant)
{
    tenant.life = sim.tenants[index].life + 1;
    tenant.lives = true;
    tenant.pass = sim.level;
    tenant.work_ns = tenant.burst_ns;
    tenant.weight = tenant.weight ? tenant.weight : 100;
    tenant.kernel_ns = tenant.kernel_ns ? tenant.kernel_ns : 100 * NS_PER_US;
    sim.tenants[index] = tenant;
    uint64_t bit = 1ull << index % 64, *word = &sim.high[index / 64];
    *word = tenant.class == POLICY_HIGH ? *word | bit : *word & ~bit;
    sim_schedule(sim.now_ns, index);
}

// Dies at once, also in the middle of its turn, whose token is then free.
static inline void sim_kill(uint32_t index)
{
    sim_want(index, false);
    sim.tenants[index].lives = sim.tenants[index].wants = false;
    sim.tenants[index].life++;
    if (sim.holder == index)
        sim.holder = SIM_NOBODY;
}

// --- moves ---

static inline uint64_t sim_quantum(size_t count)
{
    return sim.quantum_ns ? sim.quantum_ns : policy_auto_quantum(sim.switch_ns, count);
}

static inline uint64_t sim_granted(const struct sim_tenant *tenant, uint64_t turn_ns)
{
    if (!tenant->limit_percent)
        return turn_ns;
    uint64_t most = policy_cap_turn(tenant->paid_until_ns, sim.now_ns, sim_quantum(1), tenant->limit_percent);
    return turn_ns && turn_ns < most ? turn_ns : most;
}

static inline void sim_raise(const struct policy_choice *choice)
{
    if (choice->level <= sim.level)
        return;
    sim.level = choice->level;
    sim.round = choice->round;
}

static inline void sim_pass_time(uint64_t ns, bool working)
{
    struct sim_tenant *tenant = &sim.tenants[sim.holder];
    sim.now_ns += ns;
    tenant->used_ns += ns;
    if (working) {
        tenant->work_done_ns += ns;
        tenant->work_ns -= tenant->burst_ns ? ns : 0;
    }
}

static inline void sim_grant(void)
{
    sim.most_waiting = sim.waiting > sim.most_waiting ? sim.waiting : sim.most_waiting;
    struct policy_choice choice = sim_choose(sim.first);
    sim.holder = choice.vgpu;
    struct sim_tenant *tenant = &sim.tenants[sim.holder];
    if (choice.in_ring)
        sim.place = sim.holder;
    sim.first = SIM_NOBODY;
    sim_raise(&choice);
    tenant->pass = choice.pass;
    sim_want(sim.holder, false);
    uint64_t waited = sim.now_ns - tenant->arrived_ns;
    tenant->longest_wait_ns = waited > tenant->longest_wait_ns ? waited : tenant->longest_wait_ns;
    tenant->waits++;
    for (int i = 0; i < 2; i++)
        tenant->waits_over_ns[i] += waited > sim.wait_marks_ns[i];
    sim.grant_ns = sim.turn_from_ns = sim.now_ns;
    sim.turn_ns = sim_granted(tenant, choice.turn_ns);
    if (tenant->late_from_ns) {
        struct policy_entry entry = sim_entry(sim.holder);
        tenant->pass += policy_pass(&entry, sim.now_ns - tenant->late_from_ns);
        tenant->late_from_ns = 0;
    }
    if (sim.last_holder != sim.holder)
        sim_pass_time(sim.switch_ns, false);
    sim.last_holder = sim.holder;
}

// How long it is from now to the next burst.
static inline uint64_t sim_pause(const struct sim_tenant *tenant)
{
    if (tenant->period_ns)
        return tenant->period_ns - sim.now_ns % tenant->period_ns;
    if (!tenant->random)
        return tenant->think_ns;
    double uniform = ((double)(random_next(&sim.random) >> 11) + 1) / 9007199254740993.0; // 2^53 + 1
    return (uint64_t)((double)tenant->think_ns * -log(uniform));
}

// The holder's grant is over; `drains`: in the middle of its work.
static inline void sim_end_grant(bool drains)
{
    uint32_t index = sim.holder;
    struct sim_tenant *tenant = &sim.tenants[index];
    if (drains) {
        uint64_t rest = tenant->kernel_ns - tenant->work_done_ns % tenant->kernel_ns;
        if (tenant->burst_ns && rest > tenant->work_ns)
            rest = tenant->work_ns;
        sim_pass_time(rest < TURN_DRAIN_NS ? rest : TURN_DRAIN_NS, true);
        tenant->late_from_ns = rest > TURN_DRAIN_NS ? sim.now_ns : 0;
    }
    tenant->pass = sim_holder().pass;
    if (tenant->limit_percent)
        tenant->paid_until_ns =
            policy_cap_pay(tenant->paid_until_ns, sim.now_ns, sim.now_ns - sim.grant_ns, tenant->limit_percent);
    // Nobody is held against what he used while nobody else wanted it.
    if ((sim.turn_ns == 0 || sim.waiting == 0) && sim.level < tenant->pass)
        sim.level = tenant->pass;
    tenant->wants = false;
    sim.holder = SIM_NOBODY;
    if (tenant->burst_ns && tenant->work_ns == 0) {
        if (drains)
            sim_schedule(sim.now_ns + sim_pause(tenant), index);
        return;
    }
    uint64_t pay = tenant->limit_percent ? policy_cap_wait(tenant->paid_until_ns, sim.now_ns) : 0;
    if (tenant->dodges && !drains)
        pay = pay > 50 * NS_PER_US ? pay : 50 * NS_PER_US;
    if (pay)
        sim_schedule(sim.now_ns + pay, index);
    else
        sim_wait(index);
}

// The end of the holder's turn: the policy may give it the GPU again.
static inline void sim_end_turn(void)
{
    if (sim.tenants[sim.holder].limit_percent == 0) {
        sim_want(sim.holder, true);
        struct policy_choice choice = sim_choose(SIM_NOBODY);
        sim_want(sim.holder, false);
        if (choice.vgpu == sim.holder) {
            sim.turn_from_ns = sim.now_ns;
            sim.turn_ns = choice.turn_ns;
            sim_raise(&choice);
            return;
        }
    }
    sim_end_grant(true);
}

// The turn of a holder that was alone begins now, since another came.
static inline void sim_start_turn(void)
{
    struct policy_ring ring = sim_ring();
    struct policy_rules rules = sim_rules();
    struct policy_entry own = sim_holder();
    sim_want(sim.holder, true);
    struct policy_choice choice = policy_start(&ring, &own, sim.level, &rules);
    sim_want(sim.holder, false);
    sim_raise(&choice);
    sim.turn_from_ns = sim.now_ns;
    sim.turn_ns = sim_granted(&sim.tenants[sim.holder], choice.turn_ns);
}

// One event: work comes, or a limit has been paid for. Returns whether the holder is interrupted.
static inline bool sim_arrive(void)
{
    struct sim_event event = sim_next_event();
    struct sim_tenant *tenant = &sim.tenants[event.tenant];
    if (!tenant->lives || tenant->life != event.life)
        return false;
    if (tenant->burst_ns && tenant->work_ns == 0) {
        tenant->work_ns = tenant->burst_ns;
        tenant->bursts++;
    }
    if (event.tenant == sim.holder || tenant->wants)
        return false;
    uint64_t pay = tenant->limit_percent ? policy_cap_wait(tenant->paid_until_ns, sim.now_ns) : 0;
    if (pay) {
        sim_schedule(sim.now_ns + pay, event.tenant);
        return false;
    }
    sim_wait(event.tenant);
    if (sim.holder == SIM_NOBODY)
        return false;
    if (sim.turn_ns == 0)
        sim_start_turn();
    const struct policy_entry waiter = sim_entry(event.tenant), holder = sim_holder();
    const struct policy_rules rules = sim_rules();
    if (!policy_preempts(&waiter, &holder, sim.level, &rules))
        return false;
    sim.first = event.tenant;
    return true;
}

// The work of the holder is done: it stays for a moment, then it gives the GPU away and comes back with its next burst.
static inline void sim_finish_burst(void)
{
    struct sim_tenant *tenant = &sim.tenants[sim.holder];
    uint64_t pause = sim_pause(tenant), done = sim.now_ns;
    uint32_t index = sim.holder;
    if (pause < SIM_IDLE_NS) {
        sim_pass_time(pause, false);
        tenant->work_ns = tenant->burst_ns;
        tenant->bursts++;
        return;
    }
    sim_pass_time(SIM_IDLE_NS, false);
    sim_end_grant(false);
    sim_schedule(done + pause, index);
}

static inline uint64_t sim_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// Goes on until `until`, or a little later: switches, drains and idle moments are not cut.
static inline void sim_run(uint64_t until)
{
    while (sim.now_ns < until) {
        uint64_t next = sim.event_count ? sim.events[0].at_ns : SIM_FOREVER;
        if (next <= sim.now_ns) {
            if (sim_arrive() && sim.holder != SIM_NOBODY)
                sim_end_grant(true);
            continue;
        }
        if (sim.holder == SIM_NOBODY) {
            if (sim.waiting) {
                sim_grant();
            } else {
                uint64_t at = sim_least(next, until);
                sim.unused_ns += at - sim.now_ns;
                sim.now_ns = at;
            }
            continue;
        }
        struct sim_tenant *tenant = &sim.tenants[sim.holder];
        uint64_t end = sim.turn_ns ? sim.turn_from_ns + sim.turn_ns : SIM_FOREVER;
        uint64_t dodge = tenant->dodges && end != SIM_FOREVER ? end - NS_PER_US : SIM_FOREVER;
        uint64_t done = tenant->burst_ns ? sim.now_ns + tenant->work_ns : SIM_FOREVER;
        uint64_t at = sim_least(sim_least(sim_least(end, done), sim_least(next, until)), dodge);
        if (at > sim.now_ns)
            sim_pass_time(at - sim.now_ns, true);
        if (at == done)
            sim_finish_burst();
        else if (at == dodge)
            sim_end_grant(false);
        else if (at >= end || end <= sim.now_ns)
            sim_end_turn();
    }
}

#endif
