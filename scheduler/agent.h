// SPDX-License-Identifier: AGPL-3.0-or-later
// The agent: the one helper thread of a process. For the gates of all its GPUs, it ends turns, drains, hands the token over,
// and gives it away when idle.
//
// Invariants
//  - One thread and one doorbell, however many gates and process slots this process has, even if two libraries have gates of
//    their own.
//  - It runs only while it has something to do: while nobody waits for a token of this process, it sleeps on its doorbell.
//  - It holds no lock of the scheduler while it sleeps and, while it calls the driver, only the window's, to ask for marks. It
//    blocks all signals.
//  - Its work for one gate is one step of a state machine, which returns when it wants to be called again: no step waits for
//    the GPU.
#ifndef VGPU_SCHEDULER_AGENT_H
#define VGPU_SCHEDULER_AGENT_H

#include "scheduler/gate.h"

// An agent as another library of the process sees it.
struct agent_service {
    void (*serve)(struct gate *gate);
    void (*dismiss)(struct gate *gate);
    void (*start)(void);
};
extern const struct agent_service agent_service;

// Leaves this library's gates to another's agent. Before the first gate.
void agent_use(const struct agent_service *other);

// Puts a gate into the agent's care. Called by gate_init, before the first launch.
void agent_serve(struct gate *gate);

// Where the agent of a process with several slots sleeps: the doorbell of the slot that the others name as their bell. It must
// stay mapped until the process ends. Before the first gate; without this call, the agent sleeps at the first gate's own.
void agent_sleep_at(_Atomic uint32_t *doorbell);

// Takes a gate out of the agent's care: when this returns, the agent no longer touches it, and a token that this process held
// through it belongs to whoever waits. Nothing may pass the gate from the call on.
void agent_dismiss(struct gate *gate);

// Starts the agent unless it runs already or was stopped. If it can't be started, turns end by the lease of those that wait.
// Thread safe.
void agent_start(void);

// Stops the agent, waiting for it briefly, and gives this process's tokens to whoever waits. For the end of the process.
void agent_stop(void);

// Forgets the agent, for a forked child.
void agent_reset(void);

// One step for one gate at time now_ns (scheduler/agent_step.c); returns when it wants the next one; AGENT_NEVER_NS: when rung.
#define AGENT_NEVER_NS (UINT64_MAX / 2)
uint64_t agent_step(struct gate *gate, uint64_t now_ns);

#endif
