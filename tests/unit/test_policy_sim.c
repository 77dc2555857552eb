// SPDX-License-Identifier: AGPL-3.0-or-later
// The policy over hours of simulated load with up to ten thousand virtual GPUs: shares, waits, limits, classes, adversaries.
//
// What shares can be held to. A turn lasts quantum x count x share, so within a window W a tenant's time may differ from its share p by
// the part of one turn that the window cuts off, quantum x count x p (1 - p), and by what kernels run over. That is at most one point of
// a 1 s window where quantum x count <= 40 ms; for longer rounds the bound is what the formula says.
#include "tests/unit/simulation.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

#define SHORTER (STEP_IS_SLOW ? 20 : 1) // under the sanitizers
#define US NS_PER_US
#define MS NS_PER_MS
#define S NS_PER_S

static uint64_t simulated_ns, decisions;

// What a decision costs: entries looked at, on average.
static void test_looks(uint32_t count, double most)
{
    double looks_each = (double)sim.looks / (double)sim.decisions;
    ok(looks_each <= most, "a decision among %u looks at %.1f entries on average: at most %.1f", count, looks_each, most);
}

static void finish(void)
{
    simulated_ns += sim.now_ns - 1000 * S;
    decisions += sim.decisions;
}

static uint64_t used_by(uint32_t index)
{
    return sim.tenants[index].used_ns;
}

// Shares of the time since `from`, by what each had used then.
static uint64_t used_before[SIM_PLACES];

static void mark(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        used_before[i] = used_by(i);
}

static double share_since_mark(uint32_t index, uint64_t from)
{
    return (double)(used_by(index) - used_before[index]) / (double)(sim.now_ns - from);
}

static double weight_of(uint32_t index)
{
    struct policy_entry entry = sim_entry(index);
    return (double)policy_weight(&entry);
}

struct error_of_shares {
    double worst;    // of all tenants and windows, in parts of the window
    double over;     // by how much the bound is passed at worst; not positive where it holds
    double greatest; // bound
};

// Runs windows of `window_ns`, all tenants saturated.
static struct error_of_shares measure(uint32_t count, uint64_t window_ns, int windows, uint64_t longest_kernel_ns)
{
    struct error_of_shares error = {0, -1, 0};
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += weight_of(i);
    double round = (double)sim_quantum(count) * count;
    for (int w = 0; w < windows; w++) {
        uint64_t from = sim.now_ns;
        mark(count);
        sim_run(from + window_ns);
        for (uint32_t i = 0; i < count; i++) {
            double due = weight_of(i) / sum, off = fabs(share_since_mark(i, from) - due);
            // Where a turn would be shorter than the shortest, it is that, in fewer rounds; and a kernel may run over at either end.
            double turn = round * due > (double)TURN_SHORTEST_NS ? round * due : (double)TURN_SHORTEST_NS;
            double bound = (turn * (1 - due) + (double)longest_kernel_ns + (double)sim.switch_ns) / (double)window_ns;
            error.worst = off > error.worst ? off : error.worst;
            error.over = off - bound > error.over ? off - bound : error.over;
            error.greatest = bound > error.greatest ? bound : error.greatest;
        }
    }
    return error;
}

static void test_saturated(void)
{
    static const struct {
        uint32_t weights[8], count;
        uint64_t quantum_ns, kernels_ns[2]; // of odd and even places
        bool within_a_point;                // in 1 s, as at every automatic quantum
    } cases[] = {
        {{100, 100}, 2, 0, {600 * US, 600 * US}, true},
        {{100, 100}, 2, 0, {14 * US, 14 * US}, true},
        {{300, 700}, 2, 0, {600 * US, 600 * US}, true},
        {{700, 200, 100}, 3, 10 * MS, {600 * US, 600 * US}, true},
        {{700, 200, 100}, 3, 0, {600 * US, 600 * US}, true},
        {{100, 100, 100, 100, 100, 100, 100, 100}, 8, 4 * MS, {600 * US, 600 * US}, true},
        {{100, 100, 100, 100, 100, 100, 100, 100}, 8, 0, {600 * US, 600 * US}, true},
        {{100, 100}, 2, 10 * MS, {14 * US, 11700 * US}, false},
        {{100, 900, 500, 100}, 4, 0, {14 * US, 11700 * US}, true},
        {{1, 10, 100, 1000}, 4, 0, {14 * US, 600 * US}, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        char text[64] = "";
        sim_begin(cases[c].quantum_ns);
        uint64_t longest = 0;
        for (uint32_t i = 0; i < cases[c].count; i++) {
            uint64_t kernel = cases[c].kernels_ns[i % 2];
            longest = kernel > longest ? kernel : longest;
            sim_add(i, (struct sim_tenant){.weight = cases[c].weights[i], .kernel_ns = kernel});
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u", i ? ":" : "", cases[c].weights[i]);
        }
        sim_run(sim.now_ns + 3 * S);
        struct error_of_shares seconds = measure(cases[c].count, S, 300 / SHORTER, longest);
        struct error_of_shares half_minutes = measure(cases[c].count, 30 * S, 20 / (SHORTER > 1 ? 4 : 1), longest);
        printf("# %s, quantum %llu ms, kernels of %llu and %llu us: off by %.3f points in 1 s (bound %.3f), %.4f in 30 s\n",
               text, (unsigned long long)(sim_quantum(cases[c].count) / MS), (unsigned long long)(cases[c].kernels_ns[0] / US),
               (unsigned long long)(cases[c].kernels_ns[1] / US), seconds.worst * 100, seconds.greatest * 100,
               half_minutes.worst * 100);
        ok(seconds.over <= 0, "%s: in every second shares are within the part of a turn that the window cuts", text);
        if (cases[c].within_a_point)
            ok(seconds.worst <= 0.01, "%s: within one point", text);
        ok(half_minutes.worst <= 0.003, "%s: in every half minute within 0.3 points", text);
        finish();
    }
}

static void test_many(uint32_t count, uint64_t seconds)
{
    sim_begin(0);
    for (uint32_t i = 0; i < count; i++)
        sim_add(i, (struct sim_tenant){.weight = 50 + (uint32_t)(random_next(&sim.random) % 150), .kernel_ns = 300 * US});
    sim_run(sim.now_ns + 10 * S);
    struct error_of_shares error = measure(count, seconds / SHORTER * S, 1, 300 * US);
    // Who has less left than the shortest turn carries it over, so that it is rounds, not turns, that end unevenly.
    ok(error.over <= (POLICY_SAVED_ROUNDS + 1) * error.greatest,
       "%u of random weights share by weight within three turns, over %llu s", count, (unsigned long long)(seconds / SHORTER));
    uint64_t longest = 0;
    for (uint32_t i = 0; i < count; i++)
        longest = sim.tenants[i].longest_wait_ns > longest ? sim.tenants[i].longest_wait_ns : longest;
    // The lightest has a third of the usual turn; where that is under the shortest, it comes in every second round.
    uint64_t round = count * (sim_quantum(count) + sim.switch_ns + 300 * US);
    ok(longest <= 2 * round, "none of them waits longer than two rounds (%llu of %llu ms)", (unsigned long long)(longest / MS),
       (unsigned long long)(2 * round / MS));
    ok(sim.unused_ns == 0, "the GPU is never without a holder");
    test_looks(count, 6); // a constant
    finish();
}

static double jain(uint32_t from, uint32_t to)
{
    double sum = 0, squares = 0;
    for (uint32_t i = from; i < to; i++) {
        sum += (double)used_by(i);
        squares += (double)used_by(i) * (double)used_by(i);
    }
    return sum * sum / (squares * (to - from));
}

// Tenants of all kinds that come and die, and some that stay and always have work.
static void test_mixture(uint32_t count, uint64_t hours_tenths)
{
    const uint32_t stay = 8;
    sim_begin(0);
    for (uint32_t i = 0; i < stay; i++)
        sim_add(i, (struct sim_tenant){.kernel_ns = (14 + 500 * i) * US});
    uint64_t done = 0, from = sim.now_ns, end = from + hours_tenths * 360 * S / SHORTER;
    while (sim.now_ns < end) {
        sim_run(sim.now_ns + 250 * MS);
        uint32_t index = stay + (uint32_t)(random_next(&sim.random) % (count - stay));
        if (sim.tenants[index].lives && random_next(&sim.random) % 4 == 0) {
            done += sim.tenants[index].work_done_ns;
            sim_kill(index);
            continue;
        }
        if (sim.tenants[index].lives)
            continue;
        struct sim_tenant tenant = {.weight = 1 + (uint32_t)(random_next(&sim.random) % 400), .random = true};
        tenant.class = (enum policy_class)(random_next(&sim.random) % 3);
        tenant.limit_percent = random_next(&sim.random) % 5 ? 0 : 1 + (uint32_t)(random_next(&sim.random) % 99);
        switch (random_next(&sim.random) % 4) {
        case 0: // bursty
            tenant.burst_ns = 200 * MS;
            tenant.think_ns = 60 * S;
            tenant.kernel_ns = 2 * MS;
            break;
        case 1: // periodic
            tenant.burst_ns = 3 * MS;
            tenant.period_ns = 10 * S;
            break;
        case 2: // request and response
            tenant.burst_ns = MS;
            tenant.think_ns = 5 * S;
            break;
        case 3: // a storm of small launches
            tenant.burst_ns = 50 * US;
            tenant.think_ns = 300 * MS;
            tenant.kernel_ns = 5 * US;
            break;
        }
        sim_add(index, tenant);
    }
    uint32_t living = 0;
    uint64_t longest = 0;
    for (uint32_t i = 0; i < count; i++) {
        done += sim.tenants[i].work_done_ns * sim.tenants[i].lives;
        living += sim.tenants[i].lives;
        longest = i < stay && sim.tenants[i].longest_wait_ns > longest ? sim.tenants[i].longest_wait_ns : longest;
    }
    double fairness = jain(0, stay), busy = (double)done / (double)(sim.now_ns - from);
    printf("# %u of %u places live at the end, busy %.2f %%, Jain %.6f, longest wait %llu ms, %llu decisions\n", living, count,
           busy * 100, fairness, (unsigned long long)(longest / MS), (unsigned long long)sim.decisions);
    ok(fairness >= 0.999, "of %u that come, go and die, those that always have work and weigh alike get alike", count);
    ok(sim.unused_ns == 0, "the GPU is never without a holder");
    // A grant gives at least the shortest turn's work, or a burst's, for a switch and an idle moment.
    double works = (double)TURN_SHORTEST_NS / (double)(TURN_SHORTEST_NS + sim.switch_ns + SIM_IDLE_NS);
    ok(busy > works, "and works for most of the time (%.2f %%)", works * 100);
    // A round of as many as ever waited at once, and what is left of the one before.
    uint64_t round = sim.most_waiting * (sim_quantum(sim.most_waiting) + sim.switch_ns + SIM_IDLE_NS + 3600 * US);
    ok(longest <= 2 * round, "and nobody who always has work waits longer than two rounds (%llu of %llu ms)",
       (unsigned long long)(longest / MS), (unsigned long long)(2 * round / MS));
    // Here a third are of the high class, and those of them that wait without time left are looked at each time.
    test_looks(count, 4 * log2(count));
    finish();
}

// One ordinary tenant that always has work beside one that does not play fair, at equal weights.
static void test_adversary(const char *what, struct sim_tenant adversary, uint32_t ordinary, double least)
{
    sim_begin(0);
    for (uint32_t i = 0; i < ordinary; i++)
        sim_add(i, (struct sim_tenant){.kernel_ns = 500 * US});
    sim_add(ordinary, adversary);
    uint64_t from = sim.now_ns;
    sim_run(from + 600 * S / SHORTER);
    double worst = 1;
    for (uint32_t i = 0; i < ordinary; i++) {
        double share = (double)used_by(i) / (double)(sim.now_ns - from) * (ordinary + 1);
        worst = share < worst ? share : worst;
    }
    printf("# %s: the others have at least %.4f of their due, it has %.4f\n", what, worst,
           (double)used_by(ordinary) / (double)(sim.now_ns - from) * (ordinary + 1));
    ok(worst >= least, "%s takes nothing from the %u others", what, ordinary);
    finish();
}

static void test_adversaries(void)
{
    test_adversary("one that pauses before each end of a turn", (struct sim_tenant){.dodges = true, .kernel_ns = 10 * US}, 1,
                   0.99);
    test_adversary("one that pauses before each end of a turn", (struct sim_tenant){.dodges = true, .kernel_ns = 10 * US}, 5,
                   0.99);
    test_adversary("a storm of bursts shorter than a switch",
                   (struct sim_tenant){.burst_ns = 20 * US, .think_ns = 120 * US, .kernel_ns = 5 * US}, 3, 0.99);
    test_adversary("a storm of bursts just longer than a turn",
                   (struct sim_tenant){.burst_ns = 21 * MS, .think_ns = 120 * US, .kernel_ns = 5 * US}, 3, 0.99);
    test_adversary("one that runs over by 150 ms each time", (struct sim_tenant){.kernel_ns = 150 * MS}, 3, 0.99);
    test_adversary("one endless kernel", (struct sim_tenant){.kernel_ns = SIM_FOREVER / 4}, 3, 0.99);
    test_adversary("a high one that always has work", (struct sim_tenant){.class = POLICY_HIGH}, 3, 0.99);
    test_adversary("a high storm",
                   (struct sim_tenant){.class = POLICY_HIGH, .burst_ns = 20 * US, .think_ns = 120 * US, .kernel_ns = 5 * US}, 3,
                   0.99);
}

static void test_limits(void)
{
    static const struct {
        uint32_t limits[4], count;
        double due[4];
    } cases[] = {
        {{30}, 1, {0.30}},
        {{1}, 1, {0.01}},
        {{99}, 1, {0.99}},
        {{30, 70}, 2, {0.30, 0.70}},
        {{20, 0, 0}, 3, {0.20, 0.40, 0.40}},
        {{50, 0, 0}, 3, {1.0 / 3, 1.0 / 3, 1.0 / 3}},
        {{5, 10, 20, 0}, 4, {0.05, 0.10, 0.20, 0.65}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double worst = 0;
        sim_begin(0);
        for (uint32_t i = 0; i < cases[c].count; i++)
            sim_add(i, (struct sim_tenant){.limit_percent = cases[c].limits[i], .kernel_ns = 700 * US});
        sim_run(sim.now_ns + 5 * S);
        uint64_t from = sim.now_ns;
        mark(cases[c].count);
        sim_run(from + 120 * S / (SHORTER > 1 ? 4 : 1));
        for (uint32_t i = 0; i < cases[c].count; i++) {
            double off = fabs(share_since_mark(i, from) - cases[c].due[i]);
            worst = off > worst ? off : worst;
            if (off > 0.01)
                printf("# limit %u %%: %.2f %%, due %.2f %%\n", cases[c].limits[i], share_since_mark(i, from) * 100,
                       cases[c].due[i] * 100);
        }
        ok(worst <= 0.01,
           "limits of %u %% and others hold within a point, and what they leave goes to the rest (case %zu: %.3f points)",
           cases[c].limits[0], c, worst * 100);
        finish();
    }
}

static void test_classes(void)
{
    // Request and response at a fifth of the GPU beside one that always has work.
    sim_begin(0);
    sim_add(0, (struct sim_tenant){.kernel_ns = 200 * US, .class = POLICY_LOW});
    sim_add(
        1, (struct sim_tenant){.class = POLICY_HIGH, .burst_ns = MS, .think_ns = 4 * MS, .kernel_ns = 50 * US, .random = true});
    sim.wait_marks_ns[0] = 200 * US; // the kernel that runs
    sim.wait_marks_ns[1] = 20 * MS;
    uint64_t from = sim.now_ns;
    sim_run(from + 600 * S / SHORTER);
    const struct sim_tenant *high = &sim.tenants[1];
    double late = (double)high->waits_over_ns[0] / (double)high->waits,
           share = (double)high->used_ns / (double)(sim.now_ns - from);
    printf("# high beside low: %llu requests, %.4f %% of them wait longer than the kernel that runs, share %.2f %%\n",
           (unsigned long long)high->bursts, late * 100, share * 100);
    ok(late < 0.01, "a high one with a fifth of load waits for the kernel that runs and no longer, 99 times of 100");
    ok(sim.unused_ns == 0 && used_by(0) + used_by(1) >= (sim.now_ns - from) * 99 / 100, "the low one gets all that is left");
    finish();

    // The low class beside others that always have work.
    sim_begin(0);
    sim_add(0, (struct sim_tenant){.class = POLICY_LOW});
    sim_add(1, (struct sim_tenant){.class = POLICY_NORMAL});
    sim_add(2, (struct sim_tenant){.class = POLICY_HIGH});
    from = sim.now_ns;
    sim_run(from + 1800 * S / SHORTER);
    double all = (double)(sim.now_ns - from), low = (double)used_by(0) / all * 201;
    ok(low > 0.95 && low < 1.1, "a low one beside others gets a hundredth of an ordinary share, and gets it (%.3f of it)", low);
    ok(fabs((double)used_by(2) / (double)used_by(1) - 1) < 0.01,
       "a high one that always has work gets no more than a normal one");
    ok(sim.tenants[0].longest_wait_ns < 30 * S, "the low one is not starved (longest wait %llu ms)",
       (unsigned long long)(sim.tenants[0].longest_wait_ns / MS));
    finish();
}

int main(void)
{
    uint64_t began = clock_now_ns();
    test_saturated();
    test_many(32, 600);
    test_many(512, 1200);
    test_many(10000, 400);
    test_mixture(200, 5);
    test_mixture(10000, 2);
    test_adversaries();
    test_limits();
    test_classes();
    printf("# %.1f hours simulated, %.1f million decisions, in %.1f s\n", (double)simulated_ns / (double)S / 3600,
           (double)decisions / 1e6, (double)(clock_now_ns() - began) / (double)S);
    return done_testing();
}
