// SPDX-License-Identifier: AGPL-3.0-or-later
// The window over turns, and with work that is hard to estimate: what a switch costs, what is left at the end of a turn, and
// that the GPU does not run dry.
#include "tests/unit/random.h"
#include "tests/unit/window_gpu.h"

#define SWITCH_NS 160000ull // what going from one tenant's work to another's costs the GPU

// The thread stands still between reading the clock and looking at the marks, and then finds everything complete.
static void test_stalled_look(void)
{
    begin_known(60000);
    for (int n = 0; n < 2000; n++)
        launch(0, 1, 60000);
    gpu.stall_ns = 3 * NS_PER_MS;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns += 3000);
    ok(is_near(estimate(1), 60000, 20),
       "what is complete after a thread stood still has not run within a moment: %llu of 60 us",
       (unsigned long long)(estimate(1) / 1000));
    end();
}

// Seven kernels of 0.2 ms in one stream beside each of 3 ms in another: they are complete long before it, and seen when it is.
static void test_overlap(void)
{
    begin();
    for (int n = 0; n < 4000; n++) {
        uintptr_t stream = n % 8 == 0;
        while (window_ask(&window, KEY(stream), WINDOW_WIDEST_NS, gpu.now_ns) > 0)
            gpu.now_ns += LAUNCH_NS;
        uint64_t *until_ns = &gpu.stream_until_ns[stream];
        gpu.now_ns += LAUNCH_NS;
        *until_ns = (*until_ns > gpu.now_ns ? *until_ns : gpu.now_ns) + (stream ? 3 * NS_PER_MS : 200000);
        window_launched(&window, (void *)stream, KEY(stream), gpu.now_ns);
    }
    ok(estimate(0) >= 50000, "kernels that ran beside a longer one are not taken for nothing: %llu of 200 us",
       (unsigned long long)(estimate(0) / 1000));
    end();
}

// A function that takes other_ns in every other launch, and what of it is in flight at most.
static void test_two_in_one(uint64_t kernel_ns, uint64_t other_ns)
{
    begin();
    for (int n = 0; n < 2000; n++) {
        while (window_ask(&window, KEY(1), WINDOW_WIDEST_NS, gpu.now_ns) > 0)
            gpu.now_ns += LAUNCH_NS;
        gpu.now_ns += LAUNCH_NS;
        run(0, n % 2 ? other_ns : kernel_ns);
        if (gpu.busy_until_ns - gpu.now_ns > gpu.longest_queue_ns)
            gpu.longest_queue_ns = gpu.busy_until_ns - gpu.now_ns;
        window_launched(&window, NULL, KEY(1), gpu.now_ns);
    }
    ok(gpu.longest_queue_ns <= 2 * WINDOW_WIDEST_NS, "a function of %llu and %llu us does not fill the window twice: %llu us",
       (unsigned long long)(kernel_ns / 1000), (unsigned long long)(other_ns / 1000),
       (unsigned long long)(gpu.longest_queue_ns / 1000));
    end();
}

// Kernels of 0.2 ms, one of which stands behind a wait of 50 ms for an event. What is waited for is not work.
static void test_wait_in_stream(void)
{
    begin_known(200000);
    for (int n = 0; n < 100; n++)
        launch(0, 1, 200000);
    gpu.busy_until_ns += 50 * NS_PER_MS;
    uint64_t most = 0;
    for (int n = 0; n < 100; n++) {
        launch(0, 1, 200000);
        most = estimate(1) > most ? estimate(1) : most;
    }
    ok(most <= 2 * NS_PER_MS, "a wait in a stream is not taken for a kernel's time: %llu us",
       (unsigned long long)(most / 1000));
    ok(is_near(estimate(1), 200000, 50), "and soon forgotten: %llu us", (unsigned long long)(estimate(1) / 1000));
    end();
}

// Turns that begin with a switch: the kernel that comes first ends so much later.
static void test_switches(uint64_t cost_ns, uint64_t kernel_ns)
{
    begin();
    for (uint64_t n = 0; n < 100 + 40 * NS_PER_MS / kernel_ns; n++)
        launch(0, 1, kernel_ns);
    bool bounded = true;
    int told = 0;
    uint64_t least, most;
    for (int turn = 0; turn < 20; turn++) {
        gpu.now_ns = gpu.busy_until_ns;
        window_clear(&window);
        bounded = bounded && !window_switch(&window, &least, &most);
        uint64_t granted = gpu.now_ns;
        window_granted(&window, granted);
        gpu.busy_until_ns = granted + cost_ns;
        for (uint64_t n = 0; n < 8 + 4 * NS_PER_MS / kernel_ns; n++) {
            launch(0, 1, kernel_ns);
            window_granted(&window, granted); // of a thread that comes later
            if (!window_switch(&window, &least, &most))
                continue;
            told++;
            uint64_t error = kernel_ns / 10 + 25000; // of the estimate of a batch
            bounded = bounded && least <= cost_ns + error && most + error >= cost_ns && most - least <= OVERSLEEP_NS + 300000;
        }
    }
    ok(bounded, "with kernels of %llu us a switch of %llu us is seen for what it costs", (unsigned long long)(kernel_ns / 1000),
       (unsigned long long)(cost_ns / 1000));
    is_int(told, kernel_ns <= WINDOW_NS ? 20 : 0, "once in each turn, unless kernels are too long to tell");
    window_clear(&window);
    window_granted(&window, gpu.now_ns);
    for (uint64_t n = 0; n < NS_PER_MS / kernel_ns + 4; n++) {
        launch(0, 1, kernel_ns);
        gpu.now_ns = gpu.busy_until_ns;
    }
    if (kernel_ns < 100000)
        ok(!window_switch(&window, &least, &most), "a turn in which the GPU waits for each launch tells nothing");
    end();
}

// Whether a turn that begins with kernels of kernel_ns tells what a switch costs.
static bool tells_switch(uint64_t kernel_ns)
{
    gpu.now_ns = gpu.busy_until_ns;
    window_clear(&window);
    window_granted(&window, gpu.now_ns);
    gpu.busy_until_ns = gpu.now_ns + SWITCH_NS;
    bool told = false;
    for (int n = 0; n < 30; n++) {
        uint64_t least, most;
        launch(0, 1, kernel_ns);
        told |= window_switch(&window, &least, &most);
    }
    return told;
}

static void test_confirmed(void)
{
    begin();
    launch(0, 1, 200000);
    launch(0, 1, 200000);
    ok(!tells_switch(200000), "a kernel hardly known does not tell what a switch costs");
    for (int n = 0; n < 100; n++)
        launch(0, 1, 200000);
    ok(tells_switch(200000), "one that many launches have confirmed does");
    for (int n = 0; n < 8; n++)
        launch(0, 1, 400000);
    ok(!tells_switch(400000), "one that has just taken twice as long does not");
    for (int n = 0; n < 100; n++)
        launch(0, 1, 400000);
    ok(tells_switch(400000), "until that is confirmed");
    end();
}

#define TURN_NS (20 * NS_PER_MS)
#define LOOK_NS 3000ull // between two looks of a launching thread that spins

static uint64_t randomness = 7;

// A thread that is held up now and then, a few times in a second of looking.
static void pass(uint64_t ns)
{
    gpu.now_ns += ns;
    if (random_next(&randomness) % 5000 == 0)
        gpu.now_ns += 100000 + random_next(&randomness) % 200000;
}

// How much may be in flight so long before the end of a turn, as turn_window has it where none is of the high class.
static uint64_t width_before(uint64_t end_ns)
{
    uint64_t width = end_ns > gpu.now_ns ? (end_ns - gpu.now_ns) / 4 : 0;
    return width < WINDOW_NS ? WINDOW_NS : width < WINDOW_WIDEST_NS ? width : WINDOW_WIDEST_NS;
}

// Launches until the end of the turn as the gate does, with a window that narrows towards it: kernels of which each takes, by
// chance, one time or the other. Returns how long the GPU works on after it.
static uint64_t full_turn(uint64_t end_ns, uint64_t kernel_ns, uint64_t other_ns)
{
    while (gpu.now_ns < end_ns) {
        if (window_ask(&window, KEY(0), width_before(end_ns), gpu.now_ns) > 0) {
            pass(LOOK_NS);
            continue;
        }
        pass(LAUNCH_NS);
        if (gpu.now_ns >= end_ns)
            break;
        run(0, random_next(&randomness) % 2 ? kernel_ns : other_ns);
        window_launched(&window, NULL, KEY(0), gpu.now_ns);
    }
    return gpu.busy_until_ns > end_ns ? gpu.busy_until_ns - end_ns : 0;
}

// The first batches stand behind a switch, and completion is seen late at times: neither may mislead the estimates, on which a
// prompt end of the turn depends.
static void test_turns(uint64_t kernel_ns)
{
    begin();
    bool learned = true;
    uint64_t most = 0, allowed = (kernel_ns > WINDOW_NS ? kernel_ns : WINDOW_NS) + 50000;
    for (int turn = 0; turn < 500; turn++) {
        gpu.busy_until_ns = gpu.now_ns + SWITCH_NS;
        uint64_t left = full_turn(gpu.now_ns + TURN_NS, kernel_ns, kernel_ns);
        if (turn > 2) {
            uint64_t known = window_estimate(&window, KEY(0));
            learned = learned && known > kernel_ns - kernel_ns / 5 && known < kernel_ns + kernel_ns / 5;
            most = left > most ? left : most;
        }
        gpu.now_ns += left + TURN_NS;
        window_clear(&window);
    }
    ok(learned, "over many turns kernels of %llu us stay known", (unsigned long long)(kernel_ns / 1000));
    ok(most <= allowed, "and what is left at a turn's end is no more than the window or a kernel: %llu of %llu us",
       (unsigned long long)(most / 1000), (unsigned long long)(allowed / 1000));
    end();
}

// One function that takes very different times, as matrix products of different depths do.
static void test_turns_of_two(uint64_t kernel_ns, uint64_t other_ns)
{
    begin();
    uint64_t most = 0, allowed = 2 * (WINDOW_NS + other_ns);
    for (int turn = 0; turn < 500; turn++) {
        gpu.busy_until_ns = gpu.now_ns + SWITCH_NS;
        uint64_t left = full_turn(gpu.now_ns + TURN_NS, kernel_ns, other_ns);
        if (turn > 2 && left > most)
            most = left;
        gpu.now_ns += left + TURN_NS;
        window_clear(&window);
    }
    ok(most <= allowed,
       "what is left of kernels of %llu and %llu us by chance is no more than two windows and kernels: %llu us",
       (unsigned long long)(kernel_ns / 1000), (unsigned long long)(other_ns / 1000), (unsigned long long)(most / 1000));
    end();
}

// One step of the eager training of tests/programs/train.py on an H200: which function (two matrix products have one and the
// same, with the same grid), how long its kernel takes, and how long after the one before it is launched.
static const struct {
    uintptr_t function;
    uint64_t kernel_ns, launch_ns;
} step[] = {
    {0, 357100, 342200}, {1, 15700, 52900},   {0, 1348100, 161600}, {1, 15200, 21400},     {2, 900, 156900},
    {3, 70900, 7700},    {4, 1700, 8900},     {5, 1300, 38300},     {6, 12000, 46300},     {7, 800, 91400},
    {7, 800, 13000},     {8, 700, 184800},    {9, 5600, 40500},     {10, 1200, 68600},     {11, 18300, 181300},
    {12, 25200, 149600}, {13, 5500, 57800},   {14, 24000, 147500},  {15, 1336200, 170800}, {16, 1306500, 124000},
    {17, 16900, 63500},  {14, 24900, 147900}, {18, 328400, 133500}, {17, 15700, 52900},    {19, 43600, 345100},
    {20, 15100, 34900},  {21, 63900, 50500},  {22, 18400, 9300},    {21, 63600, 22500},    {22, 17200, 10400},
};
#define STEP_KERNELS (sizeof step / sizeof step[0])

// A thread on its way to the next launch. The agent looks meanwhile.
static void pass_watched(uint64_t ns)
{
    for (; ns > 250000; ns -= 250000) {
        gpu.now_ns += 250000;
        window_ahead(&window, gpu.now_ns);
    }
    pass(ns);
}

// Makes steps in turns of turn_ns, with twice that in between, each step followed by a wait for its end. Returns how long the
// GPU was held for them. *told counts how often the window said what a switch costs.
static uint64_t train(unsigned steps, uint64_t turn_ns, int *told)
{
    uint64_t end_ns = 0, held_ns = 0, from_ns = gpu.now_ns, least, most;
    for (unsigned n = 0; n < steps * STEP_KERNELS; n++) {
        size_t i = n % STEP_KERNELS;
        if (i == 0)
            gpu.now_ns = gpu.busy_until_ns > gpu.now_ns ? gpu.busy_until_ns : gpu.now_ns;
        pass_watched(step[i].launch_ns);
        if (gpu.now_ns >= end_ns) {
            gpu.now_ns = gpu.busy_until_ns > gpu.now_ns ? gpu.busy_until_ns : gpu.now_ns;
            held_ns += gpu.now_ns - from_ns;
            from_ns = gpu.now_ns += 2 * turn_ns;
            end_ns = from_ns + turn_ns;
            window_clear(&window);
            window_granted(&window, gpu.now_ns);
            gpu.busy_until_ns = gpu.now_ns + SWITCH_NS;
        }
        do
            pass(LOOK_NS);
        while (window_ask(&window, KEY(step[i].function), width_before(end_ns), gpu.now_ns) > 0);
        run(0, step[i].kernel_ns);
        window_launched(&window, NULL, KEY(step[i].function), gpu.now_ns);
        *told += window_switch(&window, &least, &most);
    }
    return held_ns + gpu.now_ns - from_ns;
}

// Short kernels, long ones, and two that take different times but look the same: none is blamed for the time of another, and
// the GPU does not run dry because a window seems full of kernels of a microsecond.
static void test_training(uint64_t turn_ns)
{
    const unsigned steps = 400;
    uint64_t alone_ns = 0, launched_ns = 0; // of a step that nothing holds up
    for (size_t i = 0; i < STEP_KERNELS; i++) {
        launched_ns += step[i].launch_ns + LOOK_NS;
        alone_ns = (alone_ns > launched_ns ? alone_ns : launched_ns) + step[i].kernel_ns;
    }
    int told = 0;
    begin();
    train(steps, turn_ns, &told);
    uint64_t took_ns = train(steps, turn_ns, &told) / steps, longest_ns = 0;
    bool known = true;
    for (size_t i = 0; i < STEP_KERNELS; i++) {
        uint64_t estimate_ns = estimate(step[i].function);
        known = known && estimate_ns > 0;
        if (step[i].kernel_ns < 10000 && estimate_ns > longest_ns)
            longest_ns = estimate_ns;
    }
    ok(known && longest_ns <= 60000, "kernels of microseconds are known, and not blamed for long ones: %llu us",
       (unsigned long long)(longest_ns / 1000));
    is_int(told, 0, "as no kernel's time is certain, none tells what a switch costs");
    ok(took_ns * 100 <= alone_ns * 104, "a training step takes hardly longer in turns of %llu ms: %llu of %llu us",
       (unsigned long long)(turn_ns / NS_PER_MS), (unsigned long long)(took_ns / 1000), (unsigned long long)(alone_ns / 1000));
    end();
}

int main(void)
{
    test_stalled_look();
    test_overlap();
    test_two_in_one(1300000, 15000);
    test_two_in_one(3 * NS_PER_MS, 100000);
    test_wait_in_stream();
    test_switches(14000, 14000);
    test_switches(150000, 300000);
    test_switches(400000, 500000);
    test_switches(150000, 11700000);
    test_confirmed();
    test_turns(14000);
    test_turns(100000);
    test_turns(500000);
    test_turns(1000000);
    test_turns(2000000);
    test_turns_of_two(20000, 400000);
    test_turns_of_two(5000, 50000);
    test_training(11 * NS_PER_MS);
    test_training(33 * NS_PER_MS);
    return done_testing();
}
