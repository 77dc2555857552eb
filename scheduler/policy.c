// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/policy.h"

// A pass is in units of 100 ns at weight 100 of the normal class: the lightest then runs for three years before it overflows.
#define PASS_SCALE 100
#define LOW_PART 100
// What one grant takes beyond this is forgotten.
#define DEEPEST_DEBT_NS 10000000000ull
// No turn or round is longer, whatever the pool says.
#define LONGEST_NS 100000000000ull

#define SECOND_NS 1000000000ull
#define SHORTEST_AUTO_NS 2000000ull
#define LONGEST_AUTO_NS 50000000ull
#define CHEAPEST_SWITCH_NS 10000ull
#define DEAREST_SWITCH_NS 500000ull

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t policy_weight(const struct policy_entry *entry)
{
    uint64_t weight = entry->weight ? entry->weight : 1;
    return entry->class == POLICY_LOW ? weight : weight * LOW_PART;
}

// To the nearest, so that many small charges add up to the right sum.
static uint64_t scale(uint64_t value, uint64_t by, uint64_t over)
{
    unsigned __int128 scaled = ((unsigned __int128)value * by + over / 2) / over;
    return scaled > POLICY_PASS_MAX ? POLICY_PASS_MAX : (uint64_t)scaled;
}

uint64_t policy_pass(const struct policy_entry *entry, uint64_t ns)
{
    return scale(least(ns, DEEPEST_DEBT_NS), PASS_SCALE, policy_weight(entry));
}

uint64_t policy_time(const struct policy_entry *entry, uint64_t pass)
{
    return least(scale(pass, policy_weight(entry), PASS_SCALE), LONGEST_NS);
}

// How far a round raises the level if `count` entries with these weights in total want the token.
static uint64_t round_of(uint64_t weights, size_t count, uint64_t asked_ns, const struct policy_rules *rules)
{
    uint64_t quantum_ns = asked_ns < UINT64_MAX ? asked_ns : policy_auto_quantum(rules->switch_ns, count);
    return most(scale(least(quantum_ns, LONGEST_NS), PASS_SCALE * count, most(weights, 1)), 1);
}

// One quantum measures all, so the most impatient chooses it.
static uint64_t asked(const struct policy_entry *entry, const struct policy_rules *rules)
{
    return entry->quantum_ns >= rules->shortest_ns ? entry->quantum_ns : UINT64_MAX;
}

// The level from which an entry may have a turn.
static uint64_t due(const struct policy_entry *entry, const struct policy_rules *rules)
{
    return least(entry->pass, UINT64_MAX / 2) + most(policy_pass(entry, rules->shortest_ns), 1);
}

// An entry's pass, bounded: no more is saved up, no deeper debt remembered. A light entry saves up for its shortest turn over
// many rounds.
static uint64_t bounded(const struct policy_entry *entry, uint64_t level, uint64_t round, const struct policy_rules *rules)
{
    uint64_t saved = (POLICY_SAVED_ROUNDS + 1) * round + policy_pass(entry, rules->shortest_ns);
    uint64_t lowest = level > saved ? level - saved : 0, highest = level + policy_pass(entry, DEEPEST_DEBT_NS);
    return entry->pass < lowest ? lowest : least(entry->pass, highest);
}

// --- the ring ---

// The first virtual GPU from `from` on that wants the token and is in the mask, if any; POLICY_NOBODY if there is none.
static uint32_t next_wanting(const struct policy_ring *ring, const uint64_t *mask, uint32_t from)
{
    for (uint32_t i = from; i / 64 < ring->words; i = (i / 64 + 1) * 64) {
        uint64_t word = ring->wanting[i / 64] & (mask ? mask[i / 64] : UINT64_MAX);
        word >>= i % 64;
        if (word)
            return i + (uint32_t)__builtin_ctzll(word);
    }
    return POLICY_NOBODY;
}

bool policy_anybody(const struct policy_ring *ring)
{
    return next_wanting(ring, NULL, 0) != POLICY_NOBODY;
}

#define EACH_WANTING(vgpu, ring, mask, from)                                                                                   \
    for (uint32_t vgpu = next_wanting(ring, mask, from); vgpu != POLICY_NOBODY; vgpu = next_wanting(ring, mask, vgpu + 1))

static bool wants(const struct policy_ring *ring, uint32_t vgpu)
{
    return vgpu / 64 < ring->words && ring->wanting[vgpu / 64] >> vgpu % 64 & 1;
}

// A choice under way: the level before it and as raised by rounds, and the larger of the round now in force and the one before.
struct choosing {
    const struct policy_ring *ring;
    const struct policy_rules *rules;
    uint64_t before, level, round;
};

static struct policy_entry entry_of(const struct choosing *choosing, uint32_t vgpu)
{
    struct policy_entry entry = choosing->ring->entry(choosing->ring->context, vgpu);
    entry.pass = bounded(&entry, choosing->before, choosing->round, choosing->rules);
    if (choosing->level != choosing->before)
        entry.pass = bounded(&entry, choosing->level, choosing->round, choosing->rules);
    return entry;
}

static const struct policy_entry nobody = {.vgpu = POLICY_NOBODY};

// The first in ring order, from `from` on, that may have a turn.
static struct policy_entry first_due(const struct choosing *choosing, bool high, uint32_t from)
{
    const struct policy_ring *ring = choosing->ring;
    const uint64_t *mask = high ? ring->high : NULL;
    for (int lap = 0; lap < 2; lap++)
        EACH_WANTING(vgpu, ring, mask, lap ? 0 : from)
        {
            if (lap && vgpu >= from)
                break;
            struct policy_entry entry = entry_of(choosing, vgpu);
            if ((!high || entry.class == POLICY_HIGH) && due(&entry, choosing->rules) <= choosing->level)
                return entry;
        }
    return nobody;
}

static struct policy_entry next_in_turn(const struct choosing *choosing, uint32_t from)
{
    struct policy_entry entry = first_due(choosing, true, from);
    return entry.vgpu != POLICY_NOBODY ? entry : first_due(choosing, false, from);
}

// Looks at all that want the token: how far a round raises the level for them, and from which level the first is due.
static uint64_t survey(const struct choosing *choosing, uint64_t *next_due)
{
    uint64_t weights = 0, quantum_ns = UINT64_MAX;
    size_t count = 0;
    *next_due = UINT64_MAX;
    EACH_WANTING(vgpu, choosing->ring, NULL, 0)
    {
        struct policy_entry entry = entry_of(choosing, vgpu);
        weights += policy_weight(&entry);
        quantum_ns = least(quantum_ns, asked(&entry, choosing->rules));
        *next_due = least(*next_due, due(&entry, choosing->rules));
        count++;
    }
    return round_of(weights, count, quantum_ns, choosing->rules);
}

// Raises the level, by whole rounds so that all are raised alike, until the first may run. Returns by how much a round does.
static uint64_t begin_rounds(struct choosing *choosing)
{
    uint64_t next_due, round = survey(choosing, &next_due);
    choosing->round = most(choosing->round, round);
    if (next_due > choosing->level) // as just before
        choosing->level += round * ((next_due - choosing->level + round - 1) / round);
    return round;
}

struct policy_choice policy_choose(const struct policy_ring *ring, uint32_t place, uint64_t level, uint64_t round,
                                   uint32_t first, const struct policy_rules *rules)
{
    level = least(level, POLICY_PASS_MAX);
    struct choosing choosing = {ring, rules, level, level, least(round, POLICY_PASS_MAX)};
    uint32_t lowest = next_wanting(ring, NULL, 0), foremost = next_wanting(ring, NULL, place);
    foremost = foremost == POLICY_NOBODY ? lowest : foremost;
    if (lowest == POLICY_NOBODY || next_wanting(ring, NULL, lowest + 1) == POLICY_NOBODY) {
        uint64_t pass = lowest == POLICY_NOBODY ? 0 : ring->entry(ring->context, lowest).pass;
        return (struct policy_choice){.vgpu = lowest, .pass = pass, .level = level, .round = round, .in_ring = true};
    }
    struct policy_entry chosen = wants(ring, first) ? entry_of(&choosing, first) : nobody;
    bool in_ring = chosen.vgpu == POLICY_NOBODY || due(&chosen, rules) > level;
    if (in_ring)
        chosen = next_in_turn(&choosing, place);
    if (chosen.vgpu == POLICY_NOBODY) {
        round = begin_rounds(&choosing);
        // The one with the last turn of a round does not come first in the next: it would have two turns in a row.
        foremost = next_wanting(ring, NULL, place + 1);
        foremost = foremost == POLICY_NOBODY ? lowest : foremost;
        chosen = next_in_turn(&choosing, place + 1);
    }
    if (chosen.class == POLICY_HIGH && chosen.vgpu != foremost)
        in_ring = false;
    uint64_t turn = policy_time(&chosen, choosing.level - chosen.pass);
    return (struct policy_choice){chosen.vgpu, chosen.pass, most(turn, rules->shortest_ns), choosing.level, round, in_ring};
}

struct policy_choice policy_start(const struct policy_ring *ring, const struct policy_entry *holder, uint64_t level,
                                  const struct policy_rules *rules)
{
    struct policy_entry entry = *holder;
    level = least(level, POLICY_PASS_MAX);
    const struct choosing choosing = {ring, rules, level, level, 0};
    uint64_t unused, round = survey(&choosing, &unused);
    entry.pass = least(entry.pass, POLICY_PASS_MAX);
    if (due(&entry, rules) > level)
        level = most(level, entry.pass + round);
    else
        entry.pass = bounded(&entry, level, round, rules);
    uint64_t turn = policy_time(&entry, level > entry.pass ? level - entry.pass : 0);
    return (struct policy_choice){entry.vgpu, entry.pass, most(turn, rules->shortest_ns), level, round, true};
}

bool policy_outranks(enum policy_class class, enum policy_class other)
{
    static const int rank[] = {[POLICY_LOW] = 0, [POLICY_NORMAL] = 1, [POLICY_HIGH] = 2};
    return rank[class] > rank[other];
}

// The round of two that want the GPU, and the level that counts between them: a holder that ran alone may be beyond the GPU's.
static uint64_t round_between(const struct policy_entry *entry, const struct policy_entry *holder,
                              const struct policy_rules *rules)
{
    uint64_t weights = policy_weight(entry) + policy_weight(holder);
    return round_of(weights, 2, least(asked(entry, rules), asked(holder, rules)), rules);
}

static uint64_t level_between(const struct policy_entry *holder, uint64_t level)
{
    return most(least(level, POLICY_PASS_MAX), least(holder->pass, POLICY_PASS_MAX));
}

bool policy_preempts(const struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                     const struct policy_rules *rules)
{
    struct policy_entry own = *waiter;
    level = level_between(holder, level);
    own.pass = bounded(waiter, level, round_between(waiter, holder, rules), rules);
    if (policy_outranks(holder->class, own.class))
        return false;
    return due(&own, rules) <= (policy_outranks(own.class, holder->class) ? level : holder->pass);
}

// --- company ---

bool policy_joins(struct policy_entry *waiter, const struct policy_entry *holder, uint64_t level,
                  const struct policy_rules *rules)
{
    uint64_t round = round_between(waiter, holder, rules);
    level = level_between(holder, level);
    waiter->pass = bounded(waiter, level, round, rules);
    return due(waiter, rules) <= level + round;
}

bool policy_parts(const struct policy_entry *companion, const struct policy_entry *holder, uint64_t level,
                  const struct policy_rules *rules)
{
    return companion->pass > level_between(holder, level) + 2 * round_between(companion, holder, rules);
}

// --- the quantum ---

uint64_t policy_auto_quantum(uint64_t switch_ns, size_t count)
{
    uint64_t cheap = most(least(least(switch_ns, DEAREST_SWITCH_NS) * POLICY_SWITCH_PART, LONGEST_AUTO_NS), SHORTEST_AUTO_NS);
    uint64_t quanta = count ? count : 1;
    uint64_t rounds = SECOND_NS / (quanta < POLICY_LONGEST_ROUND_NS / cheap ? cheap * quanta : POLICY_LONGEST_ROUND_NS);
    return most(SECOND_NS / (rounds * quanta), SHORTEST_AUTO_NS);
}

uint64_t policy_learn_switch(uint64_t known_ns, uint64_t least_ns, uint64_t most_ns)
{
    // Equal steps up and down: at rest when as many are dearer as cheaper. One that may be either counts as neither.
    uint64_t known = most(least(known_ns, DEAREST_SWITCH_NS), CHEAPEST_SWITCH_NS), step = known / 64;
    uint64_t next = least_ns > known ? known + step : most_ns < known ? known - step : known;
    return most(least(next, DEAREST_SWITCH_NS), CHEAPEST_SWITCH_NS);
}

// --- caps ---

static uint64_t cap(uint32_t percent)
{
    return percent < 1 ? 1 : percent > 100 ? 100 : percent;
}

// What was paid long ago counts as paid until the earliest time from which unused time is kept.
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
    // A longer turn could not be paid for in the longest wait. Half of that is for what it runs over.
    uint64_t payable = scale(DEEPEST_DEBT_NS / 2, cap(percent), 100);
    return most(least(quantum_ns, payable) + saved, 1);
}
