// SPDX-License-Identifier: AGPL-3.0-or-later
// The virtual GPUs that want a token, kept so that the policy's choice among them costs O(log n): the same choice that policy_choose
// makes in O(n).
//
// A tournament tree over the places of the ring. Each node has the least level at which anybody below it is due, of all and of the high
// class. So the root tells whether and how far the level has to be raised, and the next in ring order that is due is found on one way up
// and one way down.
//
// Passes too far behind the level need not be raised in all entries at every choice: who is behind is due, raised or not, and what he is
// raised to matters only to his own turn. Debts too deep to remember need a second key, the rise of the level that is enough whatever the
// debt is (`pardon`): it depends on the weight alone.
//
// Pure: fixed-width fields in one piece of memory, no pointers, no allocation. One user at a time.
#ifndef VGPU_SCHEDULER_RING_H
#define VGPU_SCHEDULER_RING_H

#include "scheduler/policy.h"

struct ring_key {
    uint64_t due;    // level from which on the first of them may have a turn; UINT64_MAX: there is none
    uint64_t pardon; // rise of the level with which one of them may, whatever he owes
};

struct ring_node {
    struct ring_key all, high;
};

struct ring_place {
    uint64_t pass;
    uint32_t weight;
    uint32_t class;
};

struct ring {
    uint32_t size;  // places, a power of two
    uint32_t count; // that are taken
    uint64_t weights;
    uint64_t shortest_ns;
    struct ring_node nodes[]; // 2 x size: the root is number 1, the leaves begin at `size`; then the places
};

#define RING_BYTES(size) (sizeof(struct ring) + (size) * (2 * sizeof(struct ring_node) + sizeof(struct ring_place)))

// An empty ring in RING_BYTES(size) of memory, for turns no shorter than shortest_ns.
void ring_init(struct ring *ring, uint32_t size, uint64_t shortest_ns);

// Puts an entry at the place entry->vgpu, or renews it there. O(log n).
void ring_put(struct ring *ring, const struct policy_entry *entry);

// Takes the entry of `vgpu` away, where there is one. O(log n).
void ring_remove(struct ring *ring, uint32_t vgpu);

static inline bool ring_has(const struct ring *ring, uint32_t vgpu)
{
    return ring->nodes[ring->size + vgpu].all.due != UINT64_MAX;
}

struct policy_entry ring_entry(const struct ring *ring, uint32_t vgpu);

// policy_choose among those in the ring, of whom there must be one, from place `start` on. choice.index is the chosen one's place, *pass
// his raised pass, which the ring does not keep. O(log n).
struct policy_choice ring_choose(const struct ring *ring, uint32_t start, uint64_t level, uint64_t round, uint32_t first,
                                 uint64_t quantum_ns, uint64_t *pass);

#endif
