// SPDX-License-Identifier: AGPL-3.0-or-later
// Deficit round robin, by simulation with a clock of its own: shares, starvation, debts, and figures that make no sense.
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define MAX_ENTRIES 1000
#define QUANTUM TURN_QUANTUM_NS
#define SHORTEST TURN_SHORTEST_NS

static struct simulated {
    uint32_t weight;
    int64_t deficit;
    bool wants;
    uint64_t used;      // GPU time
    uint64_t last_turn; // when its last turn ended
    uint64_t longest_gap;
    uint64_t overrun; // how far each of its turns runs over
} tenants[MAX_ENTRIES];

static size_t tenant_count, holder;
static uint64_t clock_ns, state;
static uint64_t longest_turn;

static void begin(size_t count)
{
    memset(tenants, 0, sizeof tenants);
    tenant_count = count;
    holder = 0;
    clock_ns = 0;
    longest_turn = 0;
    for (size_t i = 0; i < count; i++)
        tenants[i] = (struct simulated){.weight = 100, .wants = true};
}

// One turn, as turn_pass does it. `portion`: how many permille of its turn the holder uses.
static void one_turn(uint64_t portion)
{
    static struct policy_entry entries[MAX_ENTRIES];
    size_t count = 0;
    uint64_t turn;
    for (size_t i = 1; i <= tenant_count; i++) {
        size_t index = (holder + i) % tenant_count;
        if (tenants[index].wants)
            entries[count++] = (struct policy_entry){(uint32_t)index, tenants[index].weight, tenants[index].deficit};
    }
    size_t chosen = policy_next(entries, count, QUANTUM, SHORTEST, &turn);
    for (size_t i = 0; i < count; i++)
        tenants[entries[i].vgpu].deficit = entries[i].deficit_ns;
    struct simulated *next = &tenants[entries[chosen].vgpu];
    holder = entries[chosen].vgpu;
    uint64_t used = turn * portion / 1000 + next->overrun;
    if (clock_ns - next->last_turn > next->longest_gap)
        next->longest_gap = clock_ns - next->last_turn;
    clock_ns += used;
    next->used += used;
    next->last_turn = clock_ns;
    next->deficit = policy_charge(next->deficit, used);
    if (turn > longest_turn)
        longest_turn = turn;
}

// The invariant of policy.h for all pairs, since the start: GPU time by weight differs by some rounds' credit and an overrun each.
static bool shares_hold(void)
{
    uint64_t sum = 0;
    double low = 1e300, high = 0, slack = 0;
    for (size_t i = 0; i < tenant_count; i++)
        sum += tenants[i].weight;
    for (size_t i = 0; i < tenant_count; i++) {
        const struct simulated *t = &tenants[i];
        double credit = (double)policy_credit(t->weight, sum, tenant_count, QUANTUM);
        // A turn is never shorter than the shortest: who is owed less overdraws by up to that much, as by an overrun.
        double own = ((POLICY_SAVED_ROUNDS + 2) * credit + (double)t->overrun + (double)SHORTEST) / t->weight,
               share = (double)t->used / t->weight;
        slack = own > slack ? own : slack;
        low = share < low ? share : low;
        high = share > high ? share : high;
    }
    if (high - low > 2 * slack)
        printf("# between %g and %g ns per weight, allowed is %g\n", low, high, 2 * slack);
    return high - low <= 2 * slack;
}

static void test_shares(void)
{
    static const size_t counts[] = {2, 3, 10, 64, 1000};
    for (size_t n = 0; n < sizeof counts / sizeof counts[0]; n++) {
        for (int kind = 0; kind < 4; kind++) {
            begin(counts[n]);
            for (size_t i = 0; i < tenant_count; i++) {
                tenants[i].weight = kind == 0 ? 100 : kind == 1 ? 1 + (uint32_t)i : 1 + (uint32_t)(random_next(&state) % 10000);
                tenants[i].overrun = kind == 3 ? random_next(&state) % (5 * NS_PER_MS) : 0;
            }
            bool held = true;
            for (size_t i = 0; i < 2000 + 500000 / tenant_count && i < 20000; i++) {
                one_turn(1000);
                held = held && (i % 100 || shares_hold());
            }
            ok(held && shares_hold(), "%zu tenants with %s share by weight at every moment", tenant_count,
               kind == 0   ? "equal weights"
               : kind == 1 ? "weights 1, 2, 3, ..."
               : kind == 2 ? "random weights"
                           : "random weights and overruns");
        }
    }
}

static void test_extremes(void)
{
    begin(2);
    tenants[0].weight = 1;
    tenants[1].weight = 10000;
    for (int i = 0; i < 100000; i++)
        one_turn(1000);
    double ratio = (double)tenants[1].used / (double)tenants[0].used;
    ok(ratio > 9000 && ratio < 11000, "weights 1:10000 share 1:%.0f", ratio);
    begin(100);
    tenants[0].weight = 10000;
    for (size_t i = 1; i < 100; i++)
        tenants[i].weight = 1;
    for (int i = 0; i < 30000; i++)
        one_turn(1000);
    double mean = 0;
    for (size_t i = 1; i < 100; i++)
        mean += (double)tenants[i].used / 99;
    ratio = (double)tenants[0].used / mean;
    ok(ratio > 9000 && ratio < 11000, "one of weight 10000 among 99 of weight 1 gets 1:%.0f", ratio);
}

static void test_starvation(void)
{
    begin(50);
    for (size_t i = 0; i < tenant_count; i++)
        tenants[i].weight = 50 + (uint32_t)(random_next(&state) % 100);
    for (int i = 0; i < 20000; i++)
        one_turn(1000);
    uint64_t longest = 0;
    for (size_t i = 0; i < tenant_count; i++)
        longest = tenants[i].longest_gap > longest ? tenants[i].longest_gap : longest;
    // Weights of at least half the mean: everybody is served at least every other round of 50 quanta.
    ok(longest <= 2 * 50 * QUANTUM + QUANTUM, "with like weights nobody waits longer than two rounds (%llu ms)",
       (unsigned long long)(longest / NS_PER_MS));
    begin(8);
    tenants[3].overrun = 500 * NS_PER_MS; // each of its turns runs half a second over
    for (int i = 0; i < 20000; i++)
        one_turn(1000);
    ok(shares_hold(), "who overruns far works it off");
    uint64_t mean = clock_ns / 8;
    ok(tenants[3].used < mean + mean / 10, "and gets no more than its share");
}

static void test_give_away(void)
{
    begin(2);
    for (int i = 0; i < 1000; i++) {
        // The first comes back each time with only a tenth of its turn to do, and gives the rest away.
        one_turn(holder == 1 ? 100 : 1000);
    }
    const int64_t most = (POLICY_SAVED_ROUNDS + 1) * (int64_t)QUANTUM;
    ok(tenants[0].deficit <= most && tenants[1].deficit <= most, "turns given away cannot be saved up");
    begin(3);
    for (int i = 0; i < 30; i++)
        one_turn(1000);
    tenants[2].wants = false;
    for (int i = 0; i < 1000; i++)
        one_turn(1000);
    uint64_t before = tenants[2].used, since = clock_ns;
    tenants[2].wants = true;
    for (int i = 0; i < 30; i++)
        one_turn(1000);
    uint64_t got = tenants[2].used - before, all = clock_ns - since;
    ok(got > all / 5 && got < all / 2, "who comes back after a long absence gets a share, not what it missed (%llu of %llu ms)",
       (unsigned long long)(got / NS_PER_MS), (unsigned long long)(all / NS_PER_MS));
}

static void test_debts(void)
{
    is_int(policy_charge(0, 5), -5, "what is used is owed");
    ok(policy_charge(0, UINT64_MAX) >= -10 * (int64_t)NS_PER_S, "an endless kernel is not owed for ever");
    is_int(policy_charge(INT64_MIN, UINT64_MAX), policy_charge(0, UINT64_MAX), "nonsense is bounded");
    begin(2);
    tenants[0].deficit = policy_charge(0, UINT64_MAX);
    int turns = 0;
    while (tenants[0].used == 0 && turns < 100000) {
        one_turn(1000);
        turns++;
    }
    ok(turns <= 502, "the deepest debt is worked off in %d turns of the other", turns);
}

static void test_nonsense(void)
{
    static struct policy_entry entries[POOL_MAX_VGPUS];
    bool sane = true;
    state = 99;
    for (int round = 0; round < 2000; round++) {
        size_t count = 1 + random_next(&state) % POOL_MAX_VGPUS;
        for (size_t i = 0; i < count; i++)
            entries[i] = (struct policy_entry){(uint32_t)i, (uint32_t)random_next(&state), (int64_t)random_next(&state)};
        if (round % 3 == 0)
            entries[0] = (struct policy_entry){0, round % 2 ? 0 : UINT32_MAX, round % 2 ? INT64_MIN : INT64_MAX};
        uint64_t turn = 0, quantum = round % 2 ? random_next(&state) : 1;
        size_t chosen = policy_next(entries, count, quantum, SHORTEST, &turn);
        sane = sane && chosen < count && turn >= SHORTEST && turn < 1000 * NS_PER_S;
        for (size_t i = 0; i < count; i++)
            sane =
                sane && entries[i].deficit_ns >= -10 * (int64_t)NS_PER_S && entries[i].deficit_ns <= 1000 * (int64_t)NS_PER_S;
    }
    ok(sane, "random weights, deficits and quanta overflow nothing and choose somebody for a turn of sensible length");
    is_int(policy_credit(100, 200, 2, QUANTUM), QUANTUM, "a round's credit at equal weights is a quantum");
    is_int(policy_credit(0, UINT64_MAX, 1, 1), 1, "and at least 1");
    begin(1);
    one_turn(1000);
    ok(tenants[0].used > 0, "one alone gets its turn");
}

int main(void)
{
    state = 7;
    test_shares();
    test_extremes();
    test_starvation();
    test_give_away();
    test_debts();
    test_nonsense();
    return done_testing();
}
