// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/policy.h"

// A pass is in units of 100 ns at weight 100 of the normal class: then the lightest can run for three years before it overflows.
#define PASS_SCALE 100
#define LOW_PART 100
// Passes and levels come from memory that others write: what is added to them must not overflow.
#define PASS_MAX (UINT64_MAX / 4)
// What one grant takes beyond this is forgotten.
#define DEEPEST_DEBT_NS 10000000000ull
// No turn and no round is longer, whatever the pool says.
#define LONGEST_NS 100000000000ull

// A round of all who wait takes no longer than this, as far as a quantum of SHORTEST_AUTO_NS allows.
#define LONGEST_ROUND_NS 400000000ull
#define SHORTEST_AUTO_NS 2000000ull
#define LONGEST_AUTO_NS 50000000ull

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t effective_weight(const struct policy_entry *entry)
{
    uint64_t weight = most(least(entry->weight, POLICY_MAX_WEIGHT), 1);
    return entry->class == POLICY_LOW ? weight : weight * LOW_PART;
}

// To the nearest, so that many small charges add up to the right sum.
static uint64_t scale(uint64_t value, uint64_t by, uint64_t over)
{
    unsigned __int128 scaled = ((unsigned __int128)value * by + over / 2) / over;
    return scaled > PASS_MAX ? PASS_MAX : (uint64_t)scaled;
}

uint64_t policy_pass(const struct policy_entry *entry, uint64_t ns)
{
    return scale(least(ns, DEEPEST_DEBT_NS), PASS_SCALE, effective_weight(entry));
}

uint64_t policy_time(const struct policy_entry *entry, uint64_t pass)
{
    return least(scale(pass, effective_weight(entry), PASS_SCALE), LONGEST_NS);
}

uint64_t policy_round(const struct policy_entry *entries, size_t count, uint64_t quantum_ns)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += effective_weight(&entries[i]);
    return most(scale(least(quantum_ns, LONGEST_NS), PASS_SCALE * count, sum), 1);
}

// The level from which on an entry may have a turn.
static uint64_t due(const struct policy_entry *entry, const struct policy_rules *rules)
{
    return entry->pass + most(policy_pass(entry, rules->shortest_ns), 1);
}

// The lowest and the highest sensible pass: no more is saved up, no deeper debt remembered. A light entry saves up for its shortest turn
// over many rounds.
static uint64_t bounded(const struct policy_entry *entry, uint64_t level, uint64_t round, const struct policy_rules *rules)
{
    uint64_t saved = (POLICY_SAVED_ROUNDS + 1) * round + policy_pass(entry, rules->shortest_ns);
    uint64_t lowest = level > saved ? level - saved : 0, highest = level + policy_pass(entry, DEEPEST_DEBT_NS);
    return entry->pass < lowest ? lowest : least(entry->pass, highest);
}

// The first from `start` on that may have a turn at this level, those of the high class before others; count where there is none.
static size_t first_due(const struct policy_entry *entries, size_t count, size_t start, uint64_t level,
                        const struct policy_rules *rules)
{
    size_t found = count;
    for (size_t n = 0; n < count; n++) {
        size_t i = (start + n) % count;
        if (due(&entries[i], rules) > level)
            continue;
        if (entries[i].class == POLICY_HIGH)
            return i;
        if (found == count)
            found = i;
    }
    return found;
}

struct policy_choice policy_choose(struct policy_entry *entries, size_t count, const struct policy_ring *ring,
                                   const struct policy_rules *rules)
{
    uint64_t round = policy_round(entries, count, rules->quantum_ns), next_due = UINT64_MAX,
             level = least(ring->level, PASS_MAX);
    size_t chosen = count, start = 0;
    if (count == 1)
        return (struct policy_choice){.level = level, .in_ring = true};
    for (size_t i = 0; i < count; i++) {
        entries[i].pass = bounded(&entries[i], level, round, rules);
        next_due = least(next_due, due(&entries[i], rules));
        if (entries[i].vgpu == ring->first && due(&entries[i], rules) <= level)
            chosen = i;
    }
    bool in_ring = chosen == count;
    if (next_due > level) {
        // Whole rounds, so that all are raised alike, until the first may run; who had the last turn of the old round comes last.
        level += round * most((next_due - level + round - 1) / round, 1);
        start = entries[0].vgpu == ring->place ? 1 : 0;
        for (size_t i = 0; i < count; i++)
            entries[i].pass = bounded(&entries[i], level, round, rules);
    }
    if (in_ring) {
        chosen = first_due(entries, count, start, level, rules);
        in_ring = chosen == start || entries[chosen].class != POLICY_HIGH;
    }
    const struct policy_entry *entry = &entries[chosen];
    uint64_t turn = policy_time(entry, level - entry->pass);
    return (struct policy_choice){chosen, most(turn, rules->shortest_ns), level, in_ring};
}

struct policy_choice policy_start(const struct policy_entry *entries, size_t count, size_t holder, uint64_t level,
                                  const struct policy_rules *rules)
{
    const struct policy_entry *entry = &entries[holder];
    uint64_t pass = least(entry->pass, PASS_MAX);
    level = least(level, PASS_MAX);
    if (due(entry, rules) > level)
        level = most(level, pass + policy_round(entries, count, rules->quantum_ns));
    uint64_t turn = policy_time(entry, level > pass ? level - pass : 0);
    return (struct policy_choice){holder, most(turn, rules->shortest_ns), level, true};
}

bool policy_preempts(const struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                     const struct policy_rules *rules)
{
    const struct policy_entry pair[] = {*waiter, *holder};
    level = most(least(level, PASS_MAX), least(holder->pass, PASS_MAX));
    struct policy_entry own = *waiter;
    own.pass = bounded(waiter, level, policy_round(pair, 2, rules->quantum_ns), rules);
    static const int rank[] = {[POLICY_LOW] = 0, [POLICY_NORMAL] = 1, [POLICY_HIGH] = 2};
    if (rank[own.class] < rank[holder->class])
        return false;
    return due(&own, rules) <= (rank[own.class] > rank[holder->class] ? level : holder->pass);
}

uint64_t policy_auto_quantum(uint64_t switch_ns, size_t count)
{
    uint64_t cheap = least(least(switch_ns, LONGEST_NS) * POLICY_SWITCH_PART, LONGEST_AUTO_NS);
    uint64_t prompt = LONGEST_ROUND_NS / (count ? count : 1);
    return most(least(cheap, prompt), SHORTEST_AUTO_NS);
}

static uint64_t cap(uint32_t percent)
{
    return percent < 1 ? 1 : percent > 100 ? 100 : percent;
}

// What was paid long ago counts as paid until the earliest time that unused time is kept from.
static uint64_t paid(uint64_t paid_until_ns, uint64_t now_ns)
{
    return most(paid_until_ns, now_ns > POLICY_CAP_SAVED_NS ? now_ns - POLICY_CAP_SAVED_NS : 0);
}

uint64_t policy_cap_pay(uint64_t paid_until_ns, uint64_t now_ns, uint64_t used_ns, uint32_t percent)
{
    uint64_t start = now_ns > used_ns ? now_ns - used_ns : 0;
    uint64_t from = paid_until_ns > start + DEEPEST_DEBT_NS ? start : paid(paid_until_ns, start);
    uint64_t until = from + scale(least(used_ns, LONGEST_NS), 100, cap(percent));
    return least(until, now_ns + DEEPEST_DEBT_NS);
}

uint64_t policy_cap_wait(uint64_t paid_until_ns, uint64_t now_ns)
{
    uint64_t wait = paid_until_ns > now_ns ? paid_until_ns - now_ns : 0;
    return wait > DEEPEST_DEBT_NS ? 0 : wait;
}

uint64_t policy_cap_turn(uint64_t paid_until_ns, uint64_t now_ns, uint64_t quantum_ns, uint32_t percent)
{
    uint64_t from = paid(paid_until_ns, now_ns);
    uint64_t saved = now_ns > from ? scale(now_ns - from, cap(percent), 100) : 0;
    return most(quantum_ns + saved, 1);
}
