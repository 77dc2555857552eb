// SPDX-License-Identifier: AGPL-3.0-or-later
// The gate: the check before every launch.
//
// Use, around every call that gives work to the GPU:
//
//     enum gate_pass pass = gate_enter(gate, stream, function);
//     result = real_launch(...);
//     gate_leave(gate, pass, stream, function);
//
// `function` is what the window knows the launch by (window_key), the same in both calls.
//
// Invariants
//  - Strict exclusion. A launch first counts itself in (`entered`), then looks at the token; whoever closes the gate first
//    changes the token, then looks at the counts. Both are sequentially consistent, so one of them sees the other: no launch
//    slips past a drain. Under MPS, where contexts run side by side, the token moves while the last TURN_EARLY_NS of the
//    holder's work run. Companions run beside a holder that allows it: see scheduler/company.h.
//  - The uncontended path is one atomic increment, one load of the token and one compare, then one increment on the way out. It
//    takes no lock, reads no clock and does not call the driver. The counters are on a line that only this process writes.
//  - A thread waits at the gate without being counted in, outside all locks and CUDA calls.
//  - A captured launch is neither gated nor counted: it runs when its graph is launched.
// Thread safe.
#ifndef VGPU_SCHEDULER_GATE_H
#define VGPU_SCHEDULER_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool/tenancy.h"
#include "scheduler/gpu_ops.h"
#include "scheduler/token.h"
#include "scheduler/window.h"

enum gate_pass {
    GATE_OPEN,      // counted in; nobody waits
    GATE_WINDOWED,  // counted in; contended, so the launch counts against the window
    GATE_CAPTURED,  // not counted: nothing runs now, or it passes another gate
    GATE_UNDECIDED, // from gate_try only: counted in, but not let in yet
};

// Whether this thread's launches pass another gate already, that of a virtual GPU of libvgpu.so. Checked only if this gate is
// not open anyway: while the other one is being passed, this one is closed.
extern __thread bool gate_thread_exempt __attribute__((visibility("hidden")));

#define GATE_NO_GRANT UINT64_MAX // a word that the token never takes

// This process's view of the token of one GPU. Lives as long as the process; gates never move.
struct gate {
    _Atomic uint64_t *token;
    struct pool_member *member;
    _Atomic uint64_t grant; // the token word, without flags, last seen as ours, or GATE_NO_GRANT

    struct pool *pool;
    struct pool_gpu *gpu;
    struct pool_vgpu *vgpu;
    uint32_t process, gpu_index, vgpu_index; // in the pool
    const struct gpu_ops *ops;
    void *ops_gpu; // first argument of the operations
    struct window window;
    _Atomic uint64_t arrived_ns; // when a thread last found the gate closed
    _Atomic bool ring_due;       // the agent has not been told of the grant yet
    _Atomic uint32_t watched;    // a thread spins until the token comes
    _Atomic uint32_t throttled;  // threads with a launch ready that sleep for the window: this process is not idle

    // The agent's notes, see scheduler/agent_step.c; no other thread touches them.
    struct {
        uint64_t word;         // token as of the notes below
        uint64_t since_ns;     // when the drain began
        uint64_t wanted_ns;    // when somebody last waited
        uint64_t quiet_at;     // `entered` at the last look
        bool fence_set;        // the fence stands behind `quiet_at`
        uint64_t late_from_ns; // since when a drain past its deadline is charged, until it ends; 0: none
        uint64_t busy_from_ns; // when work last began after a pause
        uint64_t done_ns;      // when all work was first seen complete; 0 while there is some
        uint64_t called_ns;    // end of the turn for which the next tenant was called
        bool called_again;     // it was called once more in this drain
        uint64_t pause_ns;     // how long this tenant usually pauses between its bursts of work
        uint32_t invited;      // whom the last look invited to run beside this virtual GPU, else POOL_NO_INDEX
    } notes;
};

void gate_init(struct gate *gate, struct pool *pool, uint32_t process, uint32_t gpu, uint32_t vgpu, const struct gpu_ops *ops,
               void *ops_gpu);

// The part of gate_enter for a closed, new or contended token, after gate_try.
enum gate_pass gate_enter_slow(struct gate *gate, void *stream, const void *function);

void gate_leave_windowed(struct gate *gate, void *stream, const void *function);

// The part of gate_enter that need not know what is launched: counts the launch in. GATE_OPEN: it may go ahead; GATE_UNDECIDED:
// gate_enter_slow, which counts it out again first, says when.
static inline enum gate_pass gate_try(struct gate *gate)
{
    // Pairs with gate_is_empty: counted in before the token is read.
    atomic_fetch_add(&gate->member->entered, 1);
    bool open = atomic_load(gate->token) == atomic_load_explicit(&gate->grant, memory_order_relaxed);
    return __builtin_expect(open, 1) ? GATE_OPEN : GATE_UNDECIDED;
}

static inline enum gate_pass gate_enter(struct gate *gate, void *stream, const void *function)
{
    return gate_try(gate) == GATE_OPEN ? GATE_OPEN : gate_enter_slow(gate, stream, function);
}

static inline void gate_leave(struct gate *gate, enum gate_pass pass, void *stream, const void *function)
{
    if (__builtin_expect(pass != GATE_OPEN, 0)) {
        if (pass == GATE_CAPTURED)
            return;
        gate_leave_windowed(gate, stream, function);
    }
    atomic_fetch_add_explicit(&gate->member->left, 1, memory_order_release);
}

// Whether none of this process's launches is between enter and leave. Exact once the gate is closed.
static inline bool gate_is_empty(const struct gate *gate)
{
    uint64_t left = atomic_load(&gate->member->left); // first: `entered`, read later, is never below it
    return left == atomic_load(&gate->member->entered);
}

#endif
