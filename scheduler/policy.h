// SPDX-License-Identifier: AGPL-3.0-or-later
// The policy: deficit round robin in GPU time. Pure functions over plain values; no clock, no shared memory, no floating point.
//
// Every virtual GPU has a pass: the GPU time it has used, divided by its weight. Every GPU has a level, which a round raises by the same
// amount for all: a virtual GPU may run until its pass reaches the level, so its deficit is (level - pass) x weight, and a round of n
// takes n quanta whatever the scale of the weights. Who has less than the shortest turn left is passed over; when that is everybody who
// wants the token, the next round begins. What a drain runs over carries the pass beyond the level and is worked off in the next
// round. (M. Shreedhar, G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", SIGCOMM 1995, with packets replaced by
// measured GPU time, and the credits of all given at once by raising the level.)
//
// Who stops wanting keeps what it had left, but no more than POLICY_SAVED_ROUNDS rounds' credit beyond the current one. A virtual GPU
// that comes back with some left, and behind the one that runs, takes the token at once: a program that waits for its results after
// every step would otherwise lose the rest of its turn at each step. A virtual GPU of a higher class does so whenever it has any left;
// it gets its turns sooner, not more of them. The low class counts with a hundredth of its weight.
//
// Invariant: over any interval in which a set of virtual GPUs all want the token, the passes of any two of them move apart by no
// more than POLICY_SAVED_ROUNDS + 2 rounds and one overrun each.
#ifndef VGPU_SCHEDULER_POLICY_H
#define VGPU_SCHEDULER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_SAVED_ROUNDS 1
#define POLICY_NOBODY UINT32_MAX
#define POLICY_MAX_WEIGHT 10000u // a weight of 0 counts as 1, one beyond this as this

enum policy_class { POLICY_NORMAL = 0, POLICY_HIGH = 1, POLICY_LOW = 2 };

struct policy_entry {
    uint32_t vgpu; // whose entry this is
    uint32_t weight;
    enum policy_class class;
    uint64_t pass;
};

struct policy_rules {
    uint64_t quantum_ns;  // a turn at equal weights
    uint64_t shortest_ns; // no turn is shorter
};

// What a virtual GPU's pass moves by for a grant of `ns` of GPU time, and the GPU time that a distance of passes is worth. A grant longer than ten seconds counts as ten: one endless kernel must not shut its tenant out for good.
uint64_t policy_pass(const struct policy_entry *entry, uint64_t ns);
uint64_t policy_time(const struct policy_entry *entry, uint64_t pass);

// How far a round raises the level where these entries want the token.
uint64_t policy_round(const struct policy_entry *entries, size_t count, uint64_t quantum_ns);

struct policy_choice {
    size_t index;     // of the chosen entry
    uint64_t turn_ns; // the length of its turn, 0 where no other wants the token
    uint64_t level;   // after the rounds that pass until then
    bool in_ring;     // its place in the ring has come; otherwise it went before its turn
};

// Where the ring of a GPU stands.
struct policy_ring {
    uint64_t level;
    uint32_t place; // virtual GPU whose turn by the ring it is or was last: what it has left of this round comes first
    uint32_t first; // virtual GPU that goes before all others if it has time left, or POLICY_NOBODY
};

// Chooses who gets the token next among `count` entries, given in ring order from `place` on. Those of the high class go before the
// others. Raises passes that lie too far behind. count must not be 0; one alone begins no round. O(count).
struct policy_choice policy_choose(struct policy_entry *entries, size_t count, const struct policy_ring *ring,
                                   const struct policy_rules *rules);

// The turn of entry number `holder`, which has run alone until the others came: what it has left of the round, or a new round's credit
// from where it has got to. Nobody is held against what he used while nobody else wanted it.
struct policy_choice policy_start(const struct policy_entry *entries, size_t count, size_t holder, uint64_t level,
                                  const struct policy_rules *rules);

// Whether `waiter`, who has just come to want the token, takes it from `holder` before its turn has ended. Both passes are as of now.
bool policy_preempts(const struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                     const struct policy_rules *rules);

// The quantum for `count` virtual GPUs where none is asked for: a switch costs at most POLICY_SWITCH_PART of it, and a round of many is
// kept short.
#define POLICY_SWITCH_PART 200
uint64_t policy_auto_quantum(uint64_t switch_ns, size_t count);

// A cap is a token bucket, kept as the time until which its holder has paid (the generic cell rate algorithm, ITU-T I.371): who has paid
// beyond now must wait, ten seconds at most: more is forgotten, or nonsense. Unused time is saved up for POLICY_CAP_SAVED_NS. percent is 1 to 100; a cap of 0 is none.
#define POLICY_CAP_SAVED_NS 100000000ull
uint64_t policy_cap_pay(uint64_t paid_until_ns, uint64_t now_ns, uint64_t used_ns, uint32_t percent);
uint64_t policy_cap_wait(uint64_t paid_until_ns, uint64_t now_ns);
// The longest turn for a holder that has paid until then, with quantum_ns the ordinary one.
uint64_t policy_cap_turn(uint64_t paid_until_ns, uint64_t now_ns, uint64_t quantum_ns, uint32_t percent);

#endif
