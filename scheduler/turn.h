// SPDX-License-Identifier: AGPL-3.0-or-later
// Turns: how the token moves from one virtual GPU to the next, and what each move charges.
//
// Invariants
//  - A move is one compare-and-swap on the token word; its winner alone does the accounting of the grant that ended.
//  - Accounting adds, never stores: no update is lost, and a process killed halfway loses at most its own.
//  - What a move reads of other virtual GPUs (weights, passes, times) is bounded before use: nonsense costs only fairness.
//  - All time for which the token is held counts towards the holder's share, from its first launch on: a thread that waits for
//    a processor has not used the GPU. `charged` is the part in which somebody else waited.
// Lock-free.
#ifndef VGPU_SCHEDULER_TURN_H
#define VGPU_SCHEDULER_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gate.h"

// Cost of going from one process's work to another's, as measured on H100 and H200: assumed until it is known of the GPU at hand,
// so that there quanta hardly need to change while programs run. And under MPS.
#define TURN_SWITCH_NS 175000ull
#define TURN_SWITCH_MPS_NS 60000ull
// No turn is shorter: the hand-over would cost more than a seventh of it. Lighter tenants come less often instead.
#define TURN_SHORTEST_NS 1000000ull
// A drain that takes longer hands the token over while work still runs.
#define TURN_DRAIN_NS 200000000ull
// Under MPS all contexts run side by side, so the next may begin while the last of this one's work runs: that hides the
// hand-over, 68 us between two turns on an H100.
#define TURN_EARLY_NS 50000ull
// What a waiter allows a holder beyond its turn and its drain before it takes the token away.
#define TURN_GRACE_NS 100000000ull
// How long a holder may take until its first launch. A thread that waited comes at once if there is a processor for it.
#define TURN_UNUSED_NS 100000000ull
// What a waiter assumes of a turn that has no length yet.
#define TURN_UNTOLD_NS 50000000ull
// No turn is longer, whatever the pool says: a waiter's lease counts on it.
#define TURN_LONGEST_NS 10000000000ull

// What a switch costs on this GPU, as far as known. The automatic quantum follows from it.
uint64_t turn_switch_ns(const struct pool_gpu *gpu);

// Learns that a switch to this virtual GPU cost between least_ns and most_ns: from the end of the other's work to the end of
// its own first, less what that takes. Quanta follow when it is known to cost twice or half as much as is assumed: rounds of equal
// length share more evenly.
void turn_learn_switch(struct gate *gate, uint64_t least_ns, uint64_t most_ns);

// Takes a token that nobody holds. false: somebody was faster.
bool turn_claim(struct gate *gate, uint64_t word);

// Announces that this virtual GPU waits, and wakes those concerned: the holder's agents, and its own if it drains itself. Takes
// the token from a holder whose turn it may interrupt.
void turn_request(struct gate *gate, uint64_t now_ns);

// How long this virtual GPU's cap keeps it from wanting the token.
uint64_t turn_cap_wait(const struct gate *gate, uint64_t now_ns);
bool turn_is_capped(const struct gate *gate);

// The first launch under the grant that `word` describes, by any process of the holder: from here on it counts.
void turn_begin(struct gate *gate, uint64_t word);

// The length of the turn of a holder that had the token to itself so far.
uint64_t turn_start(struct gate *gate, uint64_t word, uint64_t now_ns);

// The holder, for which `word` stands, gives up the token at about end_ns, at the end of its turn or because it is idle. Wakes
// the likely next holder, which then watches the token.
void turn_call_next(struct gate *gate, uint64_t word, uint64_t end_ns, bool idle);

// The one that was called sleeps again, since the drain takes long, and the drain is about to end. By now another may be next.
void turn_call_again(struct gate *gate, uint64_t word, uint64_t now_ns);

// The holder keeps the token after all: nobody need watch it.
void turn_call_off(struct gate *gate);

// The turn of the holder, for which `word` stands, is over. If the policy would give it the token again, begins its next turn
// without a drain and returns true. Otherwise calls the likely next holder.
bool turn_renew(struct gate *gate, uint64_t word, uint64_t now_ns);

// Takes the token for this virtual GPU if the holder has launched nothing under the grant that `word` describes.
void turn_take_unused(struct gate *gate, uint64_t word, uint64_t now_ns);

// Closes the gate of the grant that *word describes. false: it was closed, or the token has moved; *word is then the current
// one.
bool turn_revoke(struct gate *gate, uint64_t *word);

// Those that waited for the holder, for which `word` stands, have gone without a turn: its turn is over, though not its grant,
// and what it has the GPU for from now on is not charged.
void turn_lapse(struct gate *gate, uint64_t word, uint64_t now_ns);

// Ends the grant that `word` describes and gives the token to the next that wants it; if none does, to the same holder afresh
// or, with `leaving`, to nobody. For the holder's agent, and for a waiter that takes over. false: the token had moved already.
bool turn_pass(struct gate *gate, uint64_t word, uint64_t now_ns, bool leaving);

// When the turn of the holder that `word` names began, 0 if none runs or nobody holds the token.
uint64_t turn_from(const struct gate *gate, uint64_t word);

// When, if it watches since `since_ns`, a waiter may take the token from the holder that `word` names.
uint64_t turn_lease_end(const struct gate *gate, uint64_t word, uint64_t since_ns);

// Whether any process of the holder that `word` names is alive; if some have launched under the grant, any of these.
bool turn_holder_lives(const struct gate *gate, uint64_t word);

// Charges a virtual GPU for work that outlasted its hold on the token.
void turn_charge_late(struct gate *gate, uint64_t now_ns, uint64_t ns);

// How much work this holder may have in flight: little if its turn is about to end, or somebody of a higher class may come.
uint64_t turn_window(const struct gate *gate, uint64_t word, uint64_t now_ns);

// Whether other virtual GPUs wait for the token.
bool turn_others_wait(const struct gate *gate);

// Whether all that wait are of a lower class: this virtual GPU can take the token from each of them while it has time left.
bool turn_outranks_waiters(const struct gate *gate);

#endif
