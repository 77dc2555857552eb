// SPDX-License-Identifier: AGPL-3.0-or-later
// The ring's choice in O(log n) against policy_choose's in O(n), and what each costs.
#include "scheduler/ring.h"
#include "base/clock.h"
#include "scheduler/turn.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

#define PLACES 1024u
#define LARGEST 16384u // places, where the cost is measured
#define QUANTUM (20 * NS_PER_MS)
#define STEPS (STEP_IS_SLOW ? 30000 : 600000)

static struct policy_entry oracle[PLACES];
static bool there[PLACES];
static struct ring *ring;
static uint64_t state = 11;

static uint64_t below(uint64_t limit)
{
    return random_next(&state) % limit;
}

static void begin(uint32_t size)
{
    ring_init(ring, size, TURN_SHORTEST_NS);
    for (uint32_t i = 0; i < PLACES; i++)
        there[i] = false;
}

static void put(uint32_t place, uint32_t weight, enum policy_class class, uint64_t pass)
{
    oracle[place] = (struct policy_entry){place, weight, class, pass};
    there[place] = true;
    ring_put(ring, &oracle[place]);
}

// Whether both make the same choice; it is then made: the level and the pass of the chosen are as after it.
static bool agree(uint32_t start, uint64_t *level, uint64_t *round, uint32_t first, uint64_t quantum_ns, uint32_t *chosen)
{
    static struct policy_entry entries[PLACES];
    const struct policy_rules rules = {quantum_ns, TURN_SHORTEST_NS};
    size_t count = 0;
    for (uint32_t i = 0; i < ring->size; i++)
        if (there[(start + i) % ring->size])
            entries[count++] = oracle[(start + i) % ring->size];
    if (count != ring->count)
        return false;
    uint64_t pass;
    struct policy_choice theirs = policy_choose(entries, count, start, *level, *round, first, &rules);
    struct policy_choice ours = ring_choose(ring, start, *level, *round, first, quantum_ns, &pass);
    const struct policy_entry *entry = &entries[theirs.index];
    bool same = ours.index == entry->vgpu && pass == entry->pass && ours.turn_ns == theirs.turn_ns &&
                ours.level == theirs.level && ours.round == theirs.round && ours.in_ring == theirs.in_ring;
    if (!same)
        printf("# of %zu: %u for %llu ns at level %llu, pass %llu, expected %u for %llu ns at level %llu, pass %llu\n", count,
               (unsigned)ours.index, (unsigned long long)ours.turn_ns, (unsigned long long)ours.level, (unsigned long long)pass,
               entry->vgpu, (unsigned long long)theirs.turn_ns, (unsigned long long)theirs.level,
               (unsigned long long)entry->pass);
    *level = theirs.level;
    *round = theirs.round;
    *chosen = entry->vgpu;
    oracle[entry->vgpu].pass = entry->pass;
    return same;
}

// Turns as they are in life: the chosen one runs, with overruns now and then very long; others come and go.
static void test_turns(uint32_t size)
{
    uint64_t level = 0, turn_round = 0;
    uint32_t place = 0, first = POLICY_NOBODY;
    bool same = true;
    begin(size);
    put(0, 100, POLICY_NORMAL, 0);
    for (uint64_t i = 0; i < STEPS / size + 20000 && same; i++) {
        uint32_t who = (uint32_t)below(size), chosen;
        if (there[who] ? ring->count > 1 && below(4) == 0 : below(2) == 0) {
            if (there[who])
                ring_remove(ring, who);
            else
                put(who, 1 + (uint32_t)below(below(4) ? 300 : 10000), (enum policy_class)below(3),
                    below(8) ? oracle[who].pass : level);
            there[who] = ring_has(ring, who);
        }
        same = agree(place, &level, &turn_round, first, below(3) ? QUANTUM : 1 + below(100 * NS_PER_MS), &chosen);
        place = chosen;
        first = below(4) ? POLICY_NOBODY : (uint32_t)below(size);
        uint64_t ran = below(30 * NS_PER_MS) + (below(50) ? 0 : below(40 * NS_PER_S));
        put(chosen, oracle[chosen].weight, oracle[chosen].class, oracle[chosen].pass + policy_pass(&oracle[chosen], ran));
    }
    ok(same, "of at most %u, the same one is chosen at each of many thousands of turns", size);
}

static void test_nonsense(void)
{
    static const uint64_t odd[] = {0, 1, UINT64_MAX, UINT64_MAX / 2, UINT64_MAX / 2 + 1, UINT64_MAX / 4, UINT64_MAX / 4 + 1};
    bool same = true;
    for (int round = 0; round < (STEP_IS_SLOW ? 2000 : 40000) && same; round++) {
        uint32_t size = 2u << below(5), chosen;
        begin(size);
        for (uint64_t i = 0; i < size || ring->count == 0; i++)
            if (below(3))
                put((uint32_t)(i % size), (uint32_t)random_next(&state) >> below(32), (enum policy_class)below(3),
                    below(3) ? random_next(&state) >> below(64) : odd[below(sizeof odd / sizeof odd[0])]);
        uint64_t before = random_next(&state) >> below(64);
        uint64_t level = below(3) ? random_next(&state) >> below(64) : odd[below(sizeof odd / sizeof odd[0])];
        same =
            agree((uint32_t)below(size), &level, &before, (uint32_t)below(2 * size), random_next(&state) >> below(64), &chosen);
    }
    ok(same, "whatever weights, passes, levels and quanta are");
}

static void test_changes(void)
{
    uint64_t level = 5000000, before = 0;
    uint32_t chosen;
    bool same = true;
    begin(8);
    for (uint32_t i = 0; i < 8; i++)
        put(i, 100, POLICY_NORMAL, level);
    for (uint32_t i = 0; i < 2000 && same; i++) {
        uint32_t who = (uint32_t)below(8);
        put(who, 1 + (uint32_t)below(10000), (enum policy_class)below(3), oracle[who].pass + below(1000000));
        same = agree((uint32_t)below(8), &level, &before, POLICY_NOBODY, QUANTUM, &chosen);
        ring_put(ring, &oracle[chosen]);
    }
    ok(same, "also where weights and classes change in the ring");
    for (uint32_t i = 0; i < 8; i++) {
        ring_remove(ring, i);
        ring_remove(ring, i);
    }
    ok(ring->count == 0 && ring->weights == 0, "who is taken away twice is gone once");
}

// What a choice costs, for people: nothing is asserted of time.
static void measure(uint32_t count)
{
    static struct policy_entry entries[PLACES], work[PLACES];
    const struct policy_rules rules = {QUANTUM, TURN_SHORTEST_NS};
    uint32_t size = 2;
    while (size < count)
        size *= 2;
    begin(size);
    for (uint32_t i = 0; i < count; i++) {
        struct policy_entry entry = {i, 100 + i % 7, POLICY_NORMAL, below(1000)};
        if (count <= PLACES)
            entries[i] = entry;
        ring_put(ring, &entry);
    }
    const uint64_t rounds = STEP_IS_SLOW ? 200 : count > 1000 ? 200000 : 20000;
    uint64_t pass, level = 0, used = 0, from = clock_now_ns();
    uint32_t place = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        struct policy_choice choice = ring_choose(ring, place, level, 0, POLICY_NOBODY, QUANTUM, &pass);
        place = (uint32_t)choice.index;
        level = choice.level;
        struct policy_entry entry = ring_entry(ring, place);
        entry.pass = pass + policy_pass(&entry, choice.turn_ns);
        ring_put(ring, &entry);
        used += choice.turn_ns;
    }
    uint64_t fast = (clock_now_ns() - from) / rounds, slow = 0;
    if (count <= PLACES) {
        from = clock_now_ns();
        for (uint64_t i = 0; i < rounds / 10; i++) {
            memcpy(work, entries, count * sizeof *work); // as ring_gather copies them out of the pool
            used += policy_choose(work, count, 0, level, 0, POLICY_NOBODY, &rules).turn_ns;
        }
        slow = (clock_now_ns() - from) / (rounds / 10);
    }
    printf("# %u wait: %llu ns for a choice and its update in the ring", count, (unsigned long long)fast);
    if (slow)
        printf(", %llu ns for policy_choose", (unsigned long long)slow);
    printf("\n");
    ok(used > 0 && ring->count == count, "%u take their turns", count);
}

int main(void)
{
    ring = (struct ring *)malloc(RING_BYTES((size_t)LARGEST));
    if (!ring)
        bail_out("out of memory");
    for (uint32_t size = 1; size <= PLACES; size *= 2)
        test_turns(size);
    test_nonsense();
    test_changes();
    static const uint32_t counts[] = {2, 32, 512, 10000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        measure(counts[i]);
    free(ring);
    return done_testing();
}
