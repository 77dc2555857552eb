// SPDX-License-Identifier: AGPL-3.0-or-later
// Turns: how the token moves from one virtual GPU to the next, and what each move is charged.
//
// Invariants
//  - A move is one compare-and-swap on the token word; whoever wins it, and nobody else, does the accounting of the grant that ended.
//  - Accounting adds, never stores, so that no update is lost and a process that is killed in between loses at most its own.
//  - What a move reads of other virtual GPUs (weights, deficits, times) is bounded before use: nonsense costs fairness only.
//  - Only time in which somebody else waited is charged; all time is counted as held.
// Lock-free.
#ifndef VGPU_SCHEDULER_TURN_H
#define VGPU_SCHEDULER_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gate.h"

// Length of a turn at equal weights. A hand-over costs the H100 about 0.1 ms, so 20 ms keep 99.5 % of the GPU at work; and three
// tenants wait 40 ms at most for their turn.
#define TURN_QUANTUM_NS 20000000ull
// No turn is shorter: below, the hand-over would cost more than a tenth of it. Lighter tenants come less often instead.
#define TURN_SHORTEST_NS 1000000ull
// A drain that takes longer hands the token over with work still running.
#define TURN_DRAIN_NS 200000000ull
// What a waiter grants a holder beyond its turn and its drain before it takes the token away.
#define TURN_GRACE_NS 100000000ull
// No turn is longer, whatever the pool says: a waiter's lease counts on it.
#define TURN_LONGEST_NS 10000000000ull

// Takes a token that nobody holds. false: somebody was faster.
bool turn_claim(struct gate *gate, uint64_t word);

// Says that this virtual GPU waits, and wakes who must know: the holder's agents, or its own where it holds the token and drains.
void turn_request(struct gate *gate, uint64_t now_ns);

// The length of the turn of a holder that had the token to itself until now.
uint64_t turn_start(struct gate *gate);

// Ends the grant that `word` describes and gives the token to the next that wants it; where nobody does, to the same holder afresh, or,
// with `leaving`, to nobody. For the holder's agent, and for a waiter that takes over. false: the token had moved already.
bool turn_pass(struct gate *gate, uint64_t word, uint64_t now_ns, bool leaving);

// When, seen from `since_ns` on, a waiter may take the token from the holder that `word` names.
uint64_t turn_lease_end(const struct gate *gate, uint64_t word, uint64_t since_ns);

// Whether any process of the holder that `word` names lives.
bool turn_holder_lives(const struct gate *gate, uint64_t word);

// Charges a virtual GPU for work that ran on after its token had moved.
void turn_charge_late(struct gate *gate, uint64_t ns);

// Whether any other virtual GPU waits for the token.
bool turn_others_wait(const struct gate *gate);

#endif
