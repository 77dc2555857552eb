// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/policy.h"

// Debts beyond this are forgotten: one endless kernel must not shut its tenant out for good.
#define DEEPEST_DEBT_NS (-10000000000ll)

// No round credits more than this: beyond any sensible quantum, and small enough that sums of credits cannot overflow.
#define HIGHEST_CREDIT_NS 100000000000ll

// Deficits come from memory that others write: whatever stands there must not overflow.
static int64_t bounded(int64_t deficit_ns)
{
    return deficit_ns < DEEPEST_DEBT_NS ? DEEPEST_DEBT_NS : deficit_ns > HIGHEST_CREDIT_NS ? HIGHEST_CREDIT_NS : deficit_ns;
}

static uint64_t effective_weight(uint32_t weight)
{
    return weight ? weight : 1;
}

int64_t policy_credit(uint32_t weight, uint64_t weight_sum, size_t count, uint64_t quantum_ns)
{
    unsigned __int128 credit = (unsigned __int128)quantum_ns * effective_weight(weight) * count / weight_sum;
    return credit == 0 ? 1 : credit > HIGHEST_CREDIT_NS ? HIGHEST_CREDIT_NS : (int64_t)credit;
}

// Rounds of `credit` until `deficit_ns` reaches `goal_ns`.
static uint64_t rounds_to(int64_t deficit_ns, int64_t goal_ns, int64_t credit)
{
    return deficit_ns >= goal_ns ? 0 : (uint64_t)((goal_ns - deficit_ns + credit - 1) / credit);
}

size_t policy_next(struct policy_entry *entries, size_t count, uint64_t quantum_ns, uint64_t shortest_turn_ns,
                   uint64_t *turn_ns)
{
    uint64_t weight_sum = 0;
    for (size_t i = 0; i < count; i++)
        weight_sum += effective_weight(entries[i].weight);

    // The one that is reached in the fewest rounds is next; between equals, the first in the ring.
    int64_t goal = (int64_t)shortest_turn_ns;
    size_t chosen = 0;
    uint64_t rounds = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        int64_t credit = policy_credit(entries[i].weight, weight_sum, count, quantum_ns);
        entries[i].deficit_ns = bounded(entries[i].deficit_ns);
        // Never less than the shortest turn: a tenant whose round's credit is a small part of it saves up for its turn over many rounds.
        int64_t most = POLICY_SAVED_ROUNDS * credit > goal ? POLICY_SAVED_ROUNDS * credit : goal;
        if (entries[i].deficit_ns > most)
            entries[i].deficit_ns = most;
        uint64_t needed = rounds_to(entries[i].deficit_ns, goal, credit);
        if (needed == 0)
            needed = 1; // a turn is always credited before it is taken
        if (needed < rounds) {
            rounds = needed;
            chosen = i;
        }
    }

    // Entries up to the chosen one have been passed in this round as well; those behind it have not been reached yet.
    for (size_t i = 0; i < count; i++) {
        uint64_t passed = i <= chosen ? rounds : rounds - 1;
        entries[i].deficit_ns += (int64_t)passed * policy_credit(entries[i].weight, weight_sum, count, quantum_ns);
    }
    int64_t longest = 2 * policy_credit(entries[chosen].weight, weight_sum, count, quantum_ns);
    int64_t turn = entries[chosen].deficit_ns < longest ? entries[chosen].deficit_ns : longest;
    *turn_ns = (uint64_t)(turn > goal ? turn : goal);
    return chosen;
}

int64_t policy_charge(int64_t deficit_ns, uint64_t used_ns)
{
    int64_t used = used_ns > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)used_ns;
    return bounded(bounded(deficit_ns) - used);
}
