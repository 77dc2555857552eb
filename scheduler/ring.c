// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/ring.h"

#define NOWHERE UINT32_MAX

static const struct ring_key nobody = {UINT64_MAX, UINT64_MAX};

static struct ring_place *places(struct ring *ring)
{
    return (struct ring_place *)&ring->nodes[2 * (size_t)ring->size];
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct ring_key better(struct ring_key a, struct ring_key b)
{
    return (struct ring_key){least(a.due, b.due), least(a.pardon, b.pardon)};
}

static bool same(struct ring_key a, struct ring_key b)
{
    return a.due == b.due && a.pardon == b.pardon;
}

void ring_init(struct ring *ring, uint32_t size, uint64_t shortest_ns)
{
    *ring = (struct ring){.size = size, .shortest_ns = shortest_ns};
    for (uint32_t i = 0; i < 2 * size; i++)
        ring->nodes[i] = (struct ring_node){nobody, nobody};
    for (uint32_t i = 0; i < size; i++)
        places(ring)[i] = (struct ring_place){0};
}

static void set_leaf(struct ring *ring, uint32_t vgpu, struct ring_node leaf)
{
    uint32_t at = ring->size + vgpu;
    ring->nodes[at] = leaf;
    for (at /= 2; at; at /= 2) {
        const struct ring_node *left = &ring->nodes[2 * at], *right = left + 1;
        struct ring_node node = {better(left->all, right->all), better(left->high, right->high)};
        if (same(node.all, ring->nodes[at].all) && same(node.high, ring->nodes[at].high))
            return;
        ring->nodes[at] = node;
    }
}

static struct policy_rules rules_of(const struct ring *ring, uint64_t quantum_ns)
{
    return (struct policy_rules){.quantum_ns = quantum_ns, .shortest_ns = ring->shortest_ns};
}

struct policy_entry ring_entry(const struct ring *ring, uint32_t vgpu)
{
    const struct ring_place *place = &places((struct ring *)ring)[vgpu];
    return (struct policy_entry){vgpu, place->weight, (enum policy_class)place->class, place->pass};
}

void ring_remove(struct ring *ring, uint32_t vgpu)
{
    if (!ring_has(ring, vgpu))
        return;
    struct policy_entry old = ring_entry(ring, vgpu);
    ring->count--;
    ring->weights -= policy_weight(&old);
    set_leaf(ring, vgpu, (struct ring_node){nobody, nobody});
}

// No level is so high: whoever has such a pass comes by pardon.
static uint64_t sensible(uint64_t pass)
{
    return least(pass, UINT64_MAX / 2);
}

void ring_put(struct ring *ring, const struct policy_entry *entry)
{
    struct policy_rules rules = rules_of(ring, 0);
    struct ring_node leaf = ring->nodes[ring->size + entry->vgpu];
    struct policy_entry old = ring_entry(ring, entry->vgpu);
    bool there = ring_has(ring, entry->vgpu);
    // How far one is due beyond his pass, and how far a debt is remembered, do not change with the pass.
    uint64_t beyond = leaf.all.due - sensible(old.pass), pardon = leaf.all.pardon;
    if (!there || old.weight != entry->weight || old.class != entry->class) {
        const struct policy_entry even = {entry->vgpu, entry->weight, entry->class, 0};
        beyond = policy_due(&even, &rules);
        pardon = beyond + policy_pass(entry, UINT64_MAX);
        ring->weights += policy_weight(entry) - (there ? policy_weight(&old) : 0);
        ring->count += !there;
    }
    places(ring)[entry->vgpu] = (struct ring_place){entry->pass, entry->weight, (uint32_t)entry->class};
    struct ring_key key = {sensible(entry->pass) + beyond, pardon};
    set_leaf(ring, entry->vgpu, (struct ring_node){key, entry->class == POLICY_HIGH ? key : nobody});
}

// --- the next in ring order that is due ---

// Who is looked for: due at `level`, which has risen by `rise`.
struct wanted {
    uint64_t level, rise;
    bool high;
};

static bool has(const struct ring *ring, uint32_t node, const struct wanted *wanted)
{
    const struct ring_key *key = wanted->high ? &ring->nodes[node].high : &ring->nodes[node].all;
    return key->due <= wanted->level || key->pardon <= wanted->rise;
}

static uint32_t next_from(const struct ring *ring, uint32_t place, const struct wanted *wanted)
{
    for (uint32_t at = ring->size + place; at; at++) {
        if (has(ring, at, wanted)) {
            while (at < ring->size)
                at = has(ring, 2 * at, wanted) ? 2 * at : 2 * at + 1;
            return at - ring->size;
        }
        // Up, until there is something to the right.
        while (at & 1)
            at /= 2;
        if (at == 0)
            break;
    }
    return NOWHERE;
}

static uint32_t next_around(const struct ring *ring, uint32_t start, struct wanted wanted)
{
    uint32_t found = next_from(ring, start, &wanted);
    return found != NOWHERE ? found : next_from(ring, 0, &wanted);
}

struct policy_choice ring_choose(const struct ring *ring, uint32_t start, uint64_t level, uint64_t round, uint32_t first,
                                 uint64_t quantum_ns, uint64_t *pass)
{
    const struct policy_rules rules = rules_of(ring, quantum_ns);
    const struct ring_key root = ring->nodes[1].all;
    const uint64_t old_level = least(level, POLICY_PASS_MAX);
    const struct wanted anybody = {.level = UINT64_MAX - 1};
    uint32_t foremost = next_around(ring, start % ring->size, anybody);
    uint64_t next_round = policy_round_of(ring->weights, ring->count, quantum_ns);
    uint64_t known = least(round, POLICY_PASS_MAX), widest = known > next_round ? known : next_round;
    *pass = ring_entry(ring, foremost).pass;
    level = old_level;
    if (ring->count == 1)
        return (struct policy_choice){.index = foremost, .level = level, .round = round, .in_ring = true};

    uint32_t chosen = NOWHERE;
    if (first < ring->size && ring->nodes[ring->size + first].all.due <= level)
        chosen = first;
    bool in_ring = chosen == NOWHERE;
    uint64_t next_due = least(root.due, level + root.pardon);
    if (next_due > level) {
        level += next_round * ((next_due - level + next_round - 1) / next_round);
        round = next_round;
    }
    if (in_ring) {
        if (level > old_level && foremost == start % ring->size)
            start++; // as policy_choose says
        struct wanted wanted = {level, level - old_level, true};
        chosen = next_around(ring, start % ring->size, wanted);
        wanted.high = false;
        if (chosen == NOWHERE)
            chosen = next_around(ring, start % ring->size, wanted);
    }
    struct policy_entry entry = ring_entry(ring, chosen);
    entry.pass = policy_bounded(&entry, old_level, widest, &rules);
    entry.pass = policy_bounded(&entry, level, widest, &rules);
    if (entry.class == POLICY_HIGH && chosen != foremost)
        in_ring = false;
    *pass = entry.pass;
    uint64_t turn = policy_time(&entry, level - entry.pass);
    return (struct policy_choice){chosen, turn > ring->shortest_ns ? turn : ring->shortest_ns, level, round, in_ring};
}
