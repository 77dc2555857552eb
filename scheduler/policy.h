// SPDX-License-Identifier: AGPL-3.0-or-later
// The policy: deficit round robin in GPU time. Pure functions over plain values; no clock, no shared memory, no floating point.
//
// Every virtual GPU has a pass: the GPU time it has used, divided by its weight. Every GPU has a level, which a round raises by
// the same amount for all: a virtual GPU may run until its pass reaches the level, so its deficit is (level - pass) x weight,
// and a round of n takes n quanta whatever the scale of the weights. One that has less than the shortest turn left is passed
// over; when that is true of all that want the token, the next round begins. A drain's overrun carries the pass beyond the
// level and is worked off in the next round. (M. Shreedhar, G. Varghese, "Efficient Fair Queuing using Deficit Round Robin",
// SIGCOMM 1995, with packets replaced by measured GPU time, and everybody's credit given at once by raising the level.)
//
// A virtual GPU that stops wanting the token keeps what it had left, but no more than POLICY_SAVED_ROUNDS rounds' credit beyond
// the current one. One that comes back with some left, and behind the one that runs, takes the token at once: a program that
// waits for its results after every step would otherwise lose the rest of its turn at each step. One of a higher class does so
// whenever it has any left; it gets its turns sooner, not more of them. The low class counts with a hundredth of its weight.
//
// Invariant: over any interval in which a set of virtual GPUs all want the token, the passes of any two of them drift apart by
// no more than POLICY_SAVED_ROUNDS + 2 rounds and one overrun each.
#ifndef VGPU_SCHEDULER_POLICY_H
#define VGPU_SCHEDULER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_SAVED_ROUNDS 1
#define POLICY_NOBODY UINT32_MAX
// Passes and levels come from memory that others write: adding to them must not overflow.
#define POLICY_PASS_MAX (UINT64_MAX / 4)

enum policy_class { POLICY_NORMAL = 0, POLICY_HIGH = 1, POLICY_LOW = 2 };

struct policy_entry {
    uint32_t vgpu; // whose entry this is
    uint32_t weight;
    enum policy_class class;
    uint64_t pass;
    uint64_t quantum_ns; // the one it asks for, 0: none
};

struct policy_rules {
    uint64_t switch_ns;   // cost of going from one's work to another's
    uint64_t shortest_ns; // no turn is shorter
};

// The virtual GPUs that want a token, in ring order. A choice looks at the bitmaps and few entries: those from the place in the
// ring to the next that may have a turn, and once in a round, which lasts as many quanta as there are entries, all of them. So
// its cost does not grow with their number; only those of the high class that wait without time left are looked at each time.
struct policy_ring {
    uint32_t words; // of each bitmap: bit i % 64 of word i / 64 stands for virtual GPU i
    const uint64_t *wanting;
    const uint64_t *high; // those that may be of the high class, wanting the token or not
    struct policy_entry (*entry)(const void *context, uint32_t vgpu);
    const void *context;
};

bool policy_anybody(const struct policy_ring *ring);

// How far a grant of `ns` of GPU time moves a virtual GPU's pass, and the GPU time that a distance of passes is worth. Weights
// of 0 count as 1. A grant longer than ten seconds counts as ten: one endless kernel must not shut its tenant out for good.
uint64_t policy_pass(const struct policy_entry *entry, uint64_t ns);
uint64_t policy_time(const struct policy_entry *entry, uint64_t pass);

uint64_t policy_weight(const struct policy_entry *entry);

struct policy_choice {
    uint32_t vgpu;    // POLICY_NOBODY if nobody wants the token
    uint64_t pass;    // its own, raised if it lay too far behind
    uint64_t turn_ns; // the length of its turn, 0 if no other wants the token
    uint64_t level;   // after the rounds that pass until then
    uint64_t round;   // by how much the last of them raised it
    bool in_ring;     // its place in the ring has come; otherwise it jumped the queue
};

// Chooses the ring's next for the token, from virtual GPU `place` on, whose place in the ring it is. Virtual GPU `first` goes
// before all others if it wants the token and has time left; then come those of the high class. One that lies too far behind
// keeps two rounds' credit, by the round now in force or by `round`, the last to raise the level, whichever is larger: one that
// has waited since keeps what that gave it when others make the rounds smaller. A single one begins no round.
struct policy_choice policy_choose(const struct policy_ring *ring, uint32_t place, uint64_t level, uint64_t round,
                                   uint32_t first, const struct policy_rules *rules);

// The turn of `holder`, one of the ring, which ran alone until the others came: what it has left of the round, or a new round's
// credit from where it has got to. What it used while nobody else wanted the GPU is not held against it, and no more is saved
// up than in a choice.
struct policy_choice policy_start(const struct policy_ring *ring, const struct policy_entry *holder, uint64_t level,
                                  const struct policy_rules *rules);

bool policy_outranks(enum policy_class class, enum policy_class other);

// Whether `waiter`, which has just come to want the token, takes it from `holder` before its turn ends. Both passes are as of
// now.
bool policy_preempts(const struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                     const struct policy_rules *rules);

// Whether `waiter` may run beside `holder`, sharing the GPU's time: not if it is ahead of its share by a round. If its pass lay
// too far behind, it becomes what it counts as. And whether `companion`, which runs beside `holder`, must stop: if ahead by
// two.
bool policy_joins(struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                  const struct policy_rules *rules);
bool policy_parts(const struct policy_entry *companion, const struct policy_entry *holder, uint64_t level,
                  const struct policy_rules *rules);

// The quantum for `count` virtual GPUs if none is asked for. A switch costs at most POLICY_SWITCH_PART of it, within 2 to 50
// ms, as long as a round of all then takes no longer than POLICY_LONGEST_ROUND_NS; and a second holds a whole number of rounds,
// so that shares over a second do not differ by a part of a turn: with 8 tenants and 0.15 ms a switch, a turn of 30 ms would be
// 2.6 points.
#define POLICY_SWITCH_PART 200
#define POLICY_LONGEST_ROUND_NS 250000000ull
uint64_t policy_auto_quantum(uint64_t switch_ns, size_t count);

// A running figure of the cost of a switch, after one seen to cost between least_ns and most_ns: the median, so that a few that
// seem long (a late thread, a first kernel that takes longer than usual) do not matter. Within 10 to 500 us.
uint64_t policy_learn_switch(uint64_t known_ns, uint64_t least_ns, uint64_t most_ns);

// A cap is a token bucket, kept as the time until which its holder has paid (the generic cell rate algorithm, ITU-T I.371): a
// holder that has paid beyond now must wait, ten seconds at most: more is forgotten, or nonsense. Unused time is saved up for
// POLICY_CAP_SAVED_NS. percent is 1 to 100; a cap of 0 is none.
#define POLICY_CAP_SAVED_NS 100000000ull
uint64_t policy_cap_pay(uint64_t paid_until_ns, uint64_t now_ns, uint64_t used_ns, uint32_t percent);
uint64_t policy_cap_wait(uint64_t paid_until_ns, uint64_t now_ns);
// The longest turn of a holder that has paid until then, where quantum_ns is the ordinary one: no longer than a wait pays for.
uint64_t policy_cap_turn(uint64_t paid_until_ns, uint64_t now_ns, uint64_t quantum_ns, uint32_t percent);

#endif
