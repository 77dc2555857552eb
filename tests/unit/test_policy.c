// SPDX-License-Identifier: AGPL-3.0-or-later
// Deficit round robin, by simulation with a clock of its own: shares, starvation, debts, and figures that make no sense.
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define MAX_ENTRIES 1000
#define WORDS (MAX_ENTRIES / 64 + 1)
#define QUANTUM (20 * NS_PER_MS)
#define SHORTEST TURN_SHORTEST_NS

static const struct policy_rules rules = {.switch_ns = TURN_SWITCH_NS, .shortest_ns = SHORTEST};

static struct simulated {
    uint32_t weight;
    uint64_t pass;
    enum policy_class class;
    bool wants;
    uint64_t used;      // GPU time
    uint64_t last_turn; // when its last turn ended
    uint64_t longest_gap;
    uint64_t overrun; // how far each of its turns runs over
} tenants[MAX_ENTRIES];

static size_t tenant_count, place; // whose place in the ring it is
static uint64_t level, last_round, clock_ns, state, asked_ns = QUANTUM;
static uint32_t first; // who is to go before its turn
static size_t holder;

static void begin(size_t count)
{
    memset(tenants, 0, sizeof tenants);
    tenant_count = count;
    place = holder = 0;
    level = last_round = clock_ns = 0;
    first = POLICY_NOBODY;
    for (size_t i = 0; i < count; i++)
        tenants[i] = (struct simulated){.weight = 100, .wants = true};
}

static struct policy_entry entry_of(size_t index)
{
    return (struct policy_entry){(uint32_t)index, tenants[index].weight, tenants[index].class, tenants[index].pass, asked_ns};
}

static void use(struct simulated *tenant, uint64_t ns)
{
    struct policy_entry entry = entry_of((size_t)(tenant - tenants));
    clock_ns += ns;
    tenant->used += ns;
    tenant->pass += policy_pass(&entry, ns);
}

static struct policy_entry look(const void *unused, uint32_t vgpu)
{
    (void)unused;
    return entry_of(vgpu);
}

static struct policy_ring ring_of_tenants(void)
{
    static uint64_t wanting[WORDS], all[WORDS];
    memset(wanting, 0, sizeof wanting);
    memset(all, 255, sizeof all);
    for (size_t i = 0; i < tenant_count; i++)
        wanting[i / 64] |= (uint64_t)tenants[i].wants << i % 64;
    return (struct policy_ring){WORDS, wanting, all, look, NULL};
}

// Chooses the next holder, as turn_pass does it. Returns the length of its turn.
static uint64_t choose(void)
{
    struct policy_ring ring = ring_of_tenants();
    struct policy_choice choice = policy_choose(&ring, (uint32_t)place, level, last_round, first, &rules);
    level = choice.level;
    last_round = choice.round;
    first = POLICY_NOBODY;
    holder = choice.vgpu;
    tenants[holder].pass = choice.pass;
    if (choice.in_ring)
        place = holder;
    return choice.turn_ns;
}

// One turn. `portion`: how many permille of it the holder uses.
static void one_turn(uint64_t portion)
{
    uint64_t turn = choose();
    struct simulated *next = &tenants[holder];
    if (clock_ns - next->last_turn > next->longest_gap)
        next->longest_gap = clock_ns - next->last_turn;
    use(next, turn * portion / 1000 + next->overrun);
    next->last_turn = clock_ns;
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
        double credit = (double)QUANTUM * t->weight * (double)tenant_count / (double)sum;
        // A turn is never shorter than the shortest: who is owed less waits, or overdraws by up to that much, as by an overrun.
        double own = ((POLICY_SAVED_ROUNDS + 2) * credit + (double)t->overrun + 2 * (double)SHORTEST) / t->weight,
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

// A quantum is what it says: nobody has two turns on end while others wait.
static void test_turns_alternate(void)
{
    int twice = 0;
    begin(3);
    for (int i = 0; i < 3000; i++) {
        size_t before = holder;
        one_turn(1000);
        twice += i > 0 && holder == before;
    }
    is_int(twice, 0, "at equal weights nobody has two turns on end");
}

// Heavier ones that come in the middle of a round make the rounds smaller; who has waited since then loses nothing by it.
static void test_smaller_rounds(void)
{
    begin(12);
    for (size_t i = 8; i < 12; i++)
        tenants[i] = (struct simulated){.weight = 10000};
    for (int i = 0; i < 20000; i++) {
        for (size_t k = 8; k < 12; k++) {
            tenants[k].wants = i % 11 < 4;
            tenants[k].pass = level;
        }
        one_turn(1000);
    }
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t i = 0; i < 8; i++) {
        least = tenants[i].used < least ? tenants[i].used : least;
        most = tenants[i].used > most ? tenants[i].used : most;
    }
    ok(most - least <= 3 * 20 * NS_PER_MS,
       "who always wants and weighs alike gets alike, whoever comes and goes (%llu to %llu ms)",
       (unsigned long long)(least / NS_PER_MS), (unsigned long long)(most / NS_PER_MS));
}

static void test_give_away(void)
{
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

// A program that waits for the GPU after every step: it works, pauses for a moment in which the other runs, and comes back. Returns its
// share in permille.
static uint64_t share_of_stepper(uint32_t weight, uint64_t work_ns, uint64_t pause_ns, int steps)
{
    begin(2);
    tenants[0].weight = weight;
    uint64_t left = work_ns;
    for (int i = 0; i < steps;) {
        uint64_t turn = choose();
        if (holder == 0) {
            uint64_t ran = turn < left ? turn : left;
            use(&tenants[0], ran);
            left -= ran;
            tenants[0].wants = left > 0;
            continue;
        }
        if (tenants[0].wants) {
            use(&tenants[1], turn);
            continue;
        }
        // The other alone, until the stepper is back; then until it is interrupted, or its own turn is over.
        use(&tenants[1], pause_ns);
        tenants[0].wants = true;
        left = work_ns;
        i++;
        const struct policy_entry pair[] = {entry_of(0), entry_of(1)};
        const struct policy_ring ring = ring_of_tenants();
        struct policy_choice start = policy_start(&ring, &pair[1], level, &rules);
        level = start.level;
        if (policy_preempts(&pair[0], &pair[1], level, &rules))
            first = 0;
        else
            use(&tenants[1], start.turn_ns);
    }
    return tenants[0].used * 1000 / clock_ns;
}

static void test_interruptions(void)
{
    uint64_t share = share_of_stepper(300, 5500000, 400000, 2000);
    ok(share > 720 && share < 760, "who pauses after each step and weighs three times as much gets 3 of 4 (%llu permille)",
       (unsigned long long)share);
    share = share_of_stepper(100, 5500000, 400000, 2000);
    ok(share > 480 && share < 510, "at equal weights half (%llu permille)", (unsigned long long)share);
    share = share_of_stepper(10000, 1000000, 4000000, 2000);
    ok(share > 180 && share < 210, "who wants a fifth gets no more (%llu permille)", (unsigned long long)share);
    struct policy_entry high = {0, 100, POLICY_HIGH, 1000000, 0}, normal = {1, 100, POLICY_NORMAL, 1000000, 0},
                        low = {2, 100, POLICY_LOW, 1000000, 0};
    ok(policy_preempts(&high, &normal, 1300000, &rules), "the high class interrupts the normal one while it has time left");
    ok(!policy_preempts(&high, &normal, 1000000, &rules), "and no longer");
    ok(policy_preempts(&normal, &low, 1300000, &rules), "the normal class interrupts the low one");
    ok(!policy_preempts(&low, &normal, 99000000, &rules) && !policy_preempts(&normal, &high, 99000000, &rules),
       "never the other way round");
    ok(!policy_preempts(&normal, &normal, 1300000, &rules), "equals that are level do not interrupt each other");
}

// Two that run beside each other for so long, each charged half: the holder always, the companion while the policy lets it. Returns what the
// companion gets of the time that is charged, in permille.
static uint64_t share_of_companion(uint32_t holder_weight, uint32_t companion_weight)
{
    struct policy_entry host = {0, holder_weight, POLICY_NORMAL, 0, 0}, companion = {1, companion_weight, POLICY_NORMAL, 0, 0};
    uint64_t had = 0, steps = 0;
    for (bool together = false; steps < 200000; steps++) {
        together = together ? !policy_parts(&companion, &host, 0, &rules) : policy_joins(&companion, &host, 0, &rules);
        host.pass += policy_pass(&host, together ? 50000 : 100000);
        companion.pass += together ? policy_pass(&companion, 50000) : 0;
        had += together ? 500 : 0;
    }
    return had / steps;
}

static void test_company(void)
{
    uint64_t share = share_of_companion(100, 100);
    ok(share > 495, "of two equal ones the companion never has to leave (%llu permille)", (unsigned long long)share);
    share = share_of_companion(300, 100);
    ok(share > 245 && share < 255, "one with a third of the weight gets a quarter of the time (%llu permille)",
       (unsigned long long)share);
    share = share_of_companion(10000, 1);
    ok(share < 2, "and one with next to none next to nothing (%llu permille)", (unsigned long long)share);
    struct policy_entry host = {0, 100, POLICY_NORMAL, 1000000, 0}, late = {1, 100, POLICY_NORMAL, 0, 0};
    host.pass = 1000000000;
    ok(policy_joins(&late, &host, 0, &rules) && late.pass > 990000000,
       "who has been away long is owed two rounds, not all of that time");
}

static void test_classes(void)
{
    begin(3);
    tenants[2].class = POLICY_HIGH;
    for (int i = 0; i < 3000; i++)
        one_turn(1000);
    uint64_t third = clock_ns / 3;
    ok(tenants[2].used > third * 98 / 100 && tenants[2].used < third * 102 / 100, "the high class gets its share, not more");
    begin(3);
    tenants[1].class = POLICY_LOW;
    for (int i = 0; i < 30000; i++)
        one_turn(1000);
    uint64_t part = tenants[1].used * 10000 / clock_ns;
    ok(part > 40 && part < 60, "the low class beside two saturated tenants counts with a hundredth (%llu of 10000)",
       (unsigned long long)part);
}

// The part of its time, in thousandths, that a capped tenant has the GPU if it always wants it and its turns run over.
static uint64_t capped_permille(uint32_t percent, uint64_t quantum_ns)
{
    const uint64_t start = 1000 * NS_PER_S;
    uint64_t paid = 0, used = 0, now = start;
    while (now < start + 1000 * NS_PER_S) {
        now += policy_cap_wait(paid, now);
        uint64_t turn = policy_cap_turn(paid, now, quantum_ns, percent) + 3 * NS_PER_MS;
        now += turn;
        used += turn;
        paid = policy_cap_pay(paid, now, turn, percent);
    }
    return used * 1000 / (now - start);
}

static void test_caps(void)
{
    uint64_t permille = capped_permille(30, QUANTUM), now = 1000 * NS_PER_S;
    ok(permille >= 299 && permille <= 301, "a cap of 30 %% holds whatever turns run over (%llu permille)",
       (unsigned long long)permille);
    static const uint32_t caps[] = {1, 2, 9, 50, 99};
    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++) {
        uint64_t longest = capped_permille(caps[i], NS_PER_S), shortest = capped_permille(caps[i], NS_PER_MS);
        ok(longest <= caps[i] * 10 && longest + 1 >= caps[i] * 10 && shortest <= caps[i] * 10,
           "a cap of %u %% holds with the longest quantum and with the shortest (%llu and %llu permille)", caps[i],
           (unsigned long long)longest, (unsigned long long)shortest);
    }
    uint64_t paid = policy_cap_pay(0, now, 0, 30);
    is_int(policy_cap_turn(paid, now, QUANTUM, 30), QUANTUM + POLICY_CAP_SAVED_NS * 3 / 10, "little is saved up while idle");
    ok(policy_cap_pay(UINT64_MAX, now, UINT64_MAX, 0) != 0 && policy_cap_turn(UINT64_MAX, 0, UINT64_MAX / 2, 1000) >= 1,
       "nonsense does no harm");
}

static void test_auto_quantum(void)
{
    is_int(policy_auto_quantum(100000, 2), 20 * NS_PER_MS, "two hundred switches of 0.1 ms");
    is_int(policy_auto_quantum(14000, 2), NS_PER_S / 178 / 2, "short where a switch is cheap");
    is_int(policy_auto_quantum(110000, 8), 25 * NS_PER_MS, "longer, so that a second holds whole rounds");
    is_int(policy_auto_quantum(200000, 8), NS_PER_S / 4 / 8,
           "shorter where a round would be longer than a quarter of a second");
    is_int(policy_auto_quantum(100000, 500), 2 * NS_PER_MS, "but not below 2 ms");
    uint64_t before = 0;
    bool grows = true, whole = true;
    for (uint64_t cost = 0; cost <= 600000; cost += 1000) {
        uint64_t quantum = policy_auto_quantum(cost, 3), rounds = NS_PER_S / (3 * quantum);
        grows = grows && quantum >= before;
        whole = whole && NS_PER_S - rounds * 3 * quantum < 3 * rounds;
        before = quantum;
    }
    ok(grows, "a dearer switch never makes it shorter");
    ok(whole, "rounds of it divide a second to the nanosecond");
    is_int(policy_auto_quantum(UINT64_MAX, 0), 50 * NS_PER_MS, "nonsense is bounded");
    is_int(policy_auto_quantum(0, 100000), 2 * NS_PER_MS, "at either end");
}

static void test_asked_quantum(void)
{
    static const uint64_t asked[] = {SHORTEST, 7 * NS_PER_MS, 300 * NS_PER_MS};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        asked_ns = asked[i];
        begin(4);
        is_int(choose(), asked[i], "a quantum that is asked for is the length of a turn");
        begin(2);
        tenants[1].weight = 300;
        is_int(choose(), asked[i] * 3 / 2, "at equal weights; by weight otherwise");
    }
    asked_ns = SHORTEST - 1;
    begin(4);
    is_int(choose() / 100, (policy_auto_quantum(TURN_SWITCH_NS, 4) + 50) / 100, "one below the shortest turn counts as none");
    asked_ns = QUANTUM;
}

// The figure after many switches of which one in `one_in` takes longer, by up to ten times.
static uint64_t learned(uint64_t known_ns, uint64_t usual_ns, uint64_t one_in)
{
    for (int i = 0; i < 2000; i++) {
        uint64_t seen = usual_ns + usual_ns * (random_next(&state) % 10) / 100;
        seen += random_next(&state) % one_in ? 0 : usual_ns * 9;
        known_ns = policy_learn_switch(known_ns, seen - random_next(&state) % (usual_ns / 10 + 1), seen);
    }
    return known_ns;
}

static void test_switch_cost(void)
{
    uint64_t cost = learned(110000, 14000, 3);
    ok(cost >= 13000 && cost <= 18000, "what a switch costs is learned: 14 us (%llu ns)", (unsigned long long)cost);
    cost = learned(14000, 150000, 3);
    ok(cost >= 140000 && cost <= 170000,
       "also where it is dearer than it was, and one in three looks ten times as dear (%llu ns)", (unsigned long long)cost);
    is_int(policy_learn_switch(50000, 20000, 200000), 50000, "what was seen too late to tell changes nothing");
    is_int(learned(0, 0, 2), 10000, "it is bounded below");
    ok(learned(UINT64_MAX, NS_PER_S, 2) == 500000 && policy_learn_switch(UINT64_MAX, UINT64_MAX, 0) == 500000, "and above");
}

static void test_debts(void)
{
    begin(2);
    use(&tenants[0], 5000 * NS_PER_S); // an endless kernel
    tenants[0].used = 0;
    int turns = 0;
    while (tenants[0].used == 0 && turns < 100000) {
        one_turn(1000);
        turns++;
    }
    ok(turns > 100 && turns <= 502, "the deepest debt is worked off in %d turns of the other", turns);
}

static void test_nonsense(void)
{
    bool sane = true;
    state = 99;
    for (int round = 0; round < 2000; round++) {
        begin(2 + random_next(&state) % (MAX_ENTRIES - 1));
        for (size_t i = 0; i < tenant_count; i++)
            tenants[i] = (struct simulated){.weight = (uint32_t)random_next(&state),
                                            .class = (enum policy_class)(random_next(&state) % 3),
                                            .pass = random_next(&state),
                                            .wants = true};
        if (round % 3 == 0)
            tenants[0] =
                (struct simulated){.weight = round % 2 ? 0 : UINT32_MAX, .pass = round % 2 ? 0 : UINT64_MAX, .wants = true};
        asked_ns = random_next(&state) >> (round % 64);
        struct policy_rules odd = {round % 2 ? random_next(&state) : 1, SHORTEST};
        struct policy_ring ring = ring_of_tenants();
        struct policy_choice choice = policy_choose(&ring, (uint32_t)random_next(&state) >> (round % 32), random_next(&state),
                                                    random_next(&state) >> (round % 64), (uint32_t)random_next(&state), &odd);
        sane = sane && choice.vgpu < tenant_count && choice.turn_ns >= SHORTEST && choice.turn_ns <= 1000 * NS_PER_S;
        sane = sane && choice.pass <= choice.level;
    }
    asked_ns = QUANTUM;
    ok(sane, "random weights, passes, levels and quanta overflow nothing and choose somebody for a turn of sensible length");
    begin(1);
    is_int(choose(), 0, "for one alone no turn runs");
    is_int(level, 0, "and no round begins");
}

int main(void)
{
    state = 7;
    test_shares();
    test_extremes();
    test_starvation();
    test_turns_alternate();
    test_smaller_rounds();
    test_give_away();
    test_interruptions();
    test_company();
    test_classes();
    test_caps();
    test_auto_quantum();
    test_asked_quantum();
    test_switch_cost();
    test_debts();
    test_nonsense();
    return done_testing();
}
