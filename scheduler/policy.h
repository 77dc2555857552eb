// SPDX-License-Identifier: AGPL-3.0-or-later
// The policy: deficit round robin in GPU time. Pure functions over plain values; no clock, no shared memory, no floating point.
//
// In every round each virtual GPU that wants the token is credited quantum x weight / mean weight, so that a round of n takes
// n quanta whatever the scale of the weights. The first in the ring whose deficit (credit not yet used) reaches the shortest turn gets
// the token for as long as its deficit lasts; what a drain runs over makes the deficit negative and is worked off before the next
// turn. Who stops wanting keeps its debt, and of its credit no more than POLICY_SAVED_ROUNDS rounds': a tenant that pauses for a moment
// (its thread was not scheduled in time) gets later what it missed, and one that idles for long cannot save up. What was saved is spent
// at no more than twice the ordinary pace, so that it delays the others by a quantum at most. (M. Shreedhar, G. Varghese, "Efficient Fair Queuing using Deficit
// Round Robin", SIGCOMM 1995, with packets replaced by measured GPU time.)
//
// Invariant: over any interval in which a set of virtual GPUs all want the token, the GPU time of any two of them, divided by their
// weights, differs by no more than POLICY_SAVED_ROUNDS + 2 rounds' credit and one overrun each.
#ifndef VGPU_SCHEDULER_POLICY_H
#define VGPU_SCHEDULER_POLICY_H

#include <stddef.h>
#include <stdint.h>

#define POLICY_SAVED_ROUNDS 5

struct policy_entry {
    uint32_t vgpu; // whose entry this is; the policy only carries it along
    uint32_t weight;
    int64_t deficit_ns;
};

// One round's credit of an entry of this weight among `count` entries whose weights sum to weight_sum: also the first turn of a holder
// that had the token to itself until others came. At least 1.
int64_t policy_credit(uint32_t weight, uint64_t weight_sum, size_t count, uint64_t quantum_ns);

// Chooses who gets the token next among `count` entries, given in ring order starting behind the last holder, and credits all of
// them for the rounds that pass until then. Returns the index of the chosen entry and sets *turn_ns to the length of its turn.
// count must not be 0. Weights of 0 count as 1. O(count).
size_t policy_next(struct policy_entry *entries, size_t count, uint64_t quantum_ns, uint64_t shortest_turn_ns,
                   uint64_t *turn_ns);

// The deficit of a virtual GPU whose turn ended after used_ns of GPU time.
int64_t policy_charge(int64_t deficit_ns, uint64_t used_ns);

#endif
