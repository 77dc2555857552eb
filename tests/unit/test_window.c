// SPDX-License-Identifier: AGPL-3.0-or-later
// The window with a clock of its own and a made-up GPU that runs what it is given in order: what is learned, and how much is ever in
// flight.
#include "base/clock.h"
#include "scheduler/window.h"
#include "tests/unit/random.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define LAUNCH_NS 3000ull     // what a launch takes the launching thread
#define OVERSLEEP_NS 60000ull // and how much longer than asked a sleep may take
#define SWITCH_NS 160000ull   // what going from one tenant's work to another's costs the GPU
#define STREAMS 4
#define KEY(function) ((const void *)((uintptr_t)(function)*64 + 4096)) // what the window knows a function by

static struct {
    uint64_t now_ns, busy_until_ns, stream_until_ns[STREAMS];
    int marks, looks; // marks that exist, looks at one
    bool marks_fail, stuck;
    uint64_t stall_ns;         // how long the thread stands still in its next look
    uint64_t longest_queue_ns; // work ahead of a launch, its own included
} gpu;

static struct window window;
static __thread uintptr_t own_stream; // of this thread, by handle 0

static void *mark_put(void *unused, void *stream)
{
    (void)unused;
    uint64_t *mark = gpu.marks_fail ? NULL : (uint64_t *)malloc(sizeof *mark);
    if (mark) {
        *mark = gpu.stream_until_ns[(own_stream + (uintptr_t)stream) % STREAMS];
        gpu.marks++;
    }
    return mark;
}

static bool mark_done(void *unused, void *mark)
{
    (void)unused;
    gpu.looks++;
    gpu.now_ns += gpu.stall_ns;
    gpu.stall_ns = 0;
    return !gpu.stuck && gpu.now_ns >= *(uint64_t *)mark;
}

static void mark_drop(void *unused, void *mark)
{
    (void)unused;
    gpu.marks--;
    free(mark);
}

static const struct gpu_ops ops = {.mark_put = mark_put, .mark_done = mark_done, .mark_drop = mark_drop};

static uint64_t clock_of_gpu(void)
{
    return gpu.now_ns;
}

static void begin(void)
{
    memset(&gpu, 0, sizeof gpu);
    gpu.now_ns = NS_PER_S;
    window_init(&window, &ops, NULL);
    window.clock_ns = clock_of_gpu;
}

static void end(void)
{
    window_clear(&window);
    is_int(gpu.marks, 0, "every mark is dropped");
}

// A kernel is given to the GPU.
static void run(uintptr_t stream, uint64_t kernel_ns)
{
    gpu.busy_until_ns = (gpu.busy_until_ns > gpu.now_ns ? gpu.busy_until_ns : gpu.now_ns) + kernel_ns;
    gpu.stream_until_ns[stream % STREAMS] = gpu.busy_until_ns;
}

// Launches as the gate does. Returns how long it waited.
static uint64_t launch(uintptr_t stream, uintptr_t function, uint64_t duration_ns)
{
    uint64_t began = gpu.now_ns;
    for (uint64_t pause; (pause = window_ask(&window, KEY(function), WINDOW_NS, gpu.now_ns)) > 0;)
        gpu.now_ns += pause + OVERSLEEP_NS;
    uint64_t waited = gpu.now_ns - began;
    gpu.now_ns += LAUNCH_NS;
    run(stream, duration_ns);
    if (gpu.busy_until_ns - gpu.now_ns > gpu.longest_queue_ns)
        gpu.longest_queue_ns = gpu.busy_until_ns - gpu.now_ns;
    window_launched(&window, (void *)stream, KEY(function), gpu.now_ns);
    return waited;
}

static uint64_t estimate(uintptr_t function)
{
    return window_estimate(&window, KEY(function));
}

static bool is_near(uint64_t value, uint64_t goal, uint64_t percent)
{
    return value * 100 > goal * (100 - percent) && value * 100 < goal * (100 + percent);
}

static void test_durations(void)
{
    static const uint64_t durations[] = {14000, 50000, 100000, 300000, 590000, 1000000, 3000000, 11700000, 20000000};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        uint64_t duration = durations[i], launches = 50 + 200 * NS_PER_MS / duration;
        begin();
        for (uint64_t n = 0; n < launches; n++)
            launch(0, 1, duration);
        ok(is_near(estimate(1), duration, 25), "kernels of %llu us are learned: %llu us", (unsigned long long)(duration / 1000),
           (unsigned long long)(estimate(1) / 1000));
        gpu.longest_queue_ns = 0;
        uint64_t began = gpu.now_ns, idle_before = gpu.busy_until_ns;
        for (uint64_t n = 0; n < launches; n++)
            launch(0, 1, duration);
        // A window or one kernel, a batch that is not marked yet; a quarter more for what the estimate may err.
        uint64_t most = ((duration > WINDOW_NS ? duration : WINDOW_NS) + WINDOW_NS / 4) * 5 / 4;
        ok(gpu.longest_queue_ns <= most, "then at most %llu us of work are in flight: %llu us",
           (unsigned long long)(most / 1000), (unsigned long long)(gpu.longest_queue_ns / 1000));
        uint64_t span = gpu.busy_until_ns - (idle_before > began ? idle_before : began);
        ok(launches * duration * 100 >= span * 85, "and the GPU is kept at work: %llu %%",
           (unsigned long long)(launches * duration * 100 / span));
        end();
    }
}

static void test_unknown(void)
{
    begin();
    for (uintptr_t i = 0; i < 500; i++)
        launch(0, 1000 + i, 500000);
    ok(gpu.longest_queue_ns <= 3 * WINDOW_NS, "functions never seen before are let in by ones and twos: %llu us in flight",
       (unsigned long long)(gpu.longest_queue_ns / 1000));
    is_int(estimate(999999), 0, "of a function never launched nothing is known");
    end();
}

static void test_many_functions(void)
{
    uintptr_t functions[200];
    uint64_t state = 5;
    for (int f = 0; f < 200; f++)
        functions[f] = random_next(&state) % (1u << 20); // without the regularity that hashing by multiplication likes
    begin();
    for (int round = 0; round < 60; round++)
        for (int f = 0; f < 200; f++)
            launch(0, functions[f], 14000);
    int unknown = 0;
    for (int f = 0; f < 200; f++)
        unknown += estimate(functions[f]) == 0;
    ok(unknown <= 2, "200 functions in turn are told apart: of %d nothing is known", unknown);
    gpu.longest_queue_ns = 0;
    uint64_t began = gpu.now_ns;
    for (int round = 0; round < 20; round++)
        for (int f = 0; f < 200; f++)
            launch(0, functions[f], 14000);
    ok((gpu.now_ns - began) * 70 <= 20 * 200 * 14000ull * 100, "and keep the GPU at work");
    end();
}

static void test_changing(void)
{
    begin();
    for (int n = 0; n < 2000; n++)
        launch(0, 1, 50000);
    for (int n = 0; n < 200; n++)
        launch(0, 1, 2000000);
    ok(is_near(estimate(1), 2000000, 30), "a function that becomes forty times as long is learned anew: %llu us",
       (unsigned long long)(estimate(1) / 1000));
    for (int n = 0; n < 5000; n++)
        launch(0, 1, 50000);
    ok(is_near(estimate(1), 50000, 30), "and back: %llu us", (unsigned long long)(estimate(1) / 1000));
    for (int n = 0; n < 4000; n++)
        launch(0, n % 2 ? 1 : 2, n % 2 ? 20000 : 400000);
    gpu.longest_queue_ns = 0;
    for (int n = 0; n < 4000; n++)
        launch(0, n % 2 ? 1 : 2, n % 2 ? 20000 : 400000);
    ok(gpu.longest_queue_ns <= 2 * WINDOW_NS + 400000, "two functions of different length keep the queue short: %llu us",
       (unsigned long long)(gpu.longest_queue_ns / 1000));
    end();
}

static void test_streams(void)
{
    begin();
    for (uintptr_t n = 0; n < 4000; n++)
        launch(n, n % 3, 60000);
    gpu.longest_queue_ns = 0;
    for (uintptr_t n = 0; n < 4000; n++)
        launch(n, n % 3, 60000);
    ok(gpu.longest_queue_ns <= 2 * WINDOW_NS, "over several streams the queue stays short: %llu us",
       (unsigned long long)(gpu.longest_queue_ns / 1000));
    end();
}

static void launched(void *stream, uint64_t until_ns)
{
    gpu.stream_until_ns[(own_stream + (uintptr_t)stream) % STREAMS] = until_ns;
    window_launched(&window, stream, KEY(1), gpu.now_ns);
}

static void *launch_beside(void *stream)
{
    own_stream = 1 - (uintptr_t)stream;
    for (int n = 0; n < 8; n++)
        launched(stream, gpu.now_ns += 100000);
    own_stream = 0;
    return NULL;
}

// With a kernel that is known, and complete.
static void begin_known(uint64_t kernel_ns)
{
    begin();
    for (int n = 0; n < 100; n++)
        launch(0, 1, kernel_ns);
    gpu.now_ns += NS_PER_S;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
}

static void test_marks_of_streams(void)
{
    for (uintptr_t other = 0; other < 2; other++) {
        begin_known(100000);
        launched(NULL, gpu.now_ns);
        launched(NULL, gpu.now_ns + NS_PER_S);
        pthread_t thread;
        if (other)
            launch_beside((void *)other);
        else if (pthread_create(&thread, NULL, launch_beside, NULL) == 0)
            pthread_join(thread, NULL);
        window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
        is_int(gpu.marks, 9, "what is complete in one stream tells nothing of another's work%s",
               other ? "" : ", nor of that in another thread's stream by the same handle");
        end();
    }
    begin_known(100000);
    for (int n = 0; n < 10; n++)
        launched(NULL, gpu.now_ns);
    gpu.looks = 0;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
    ok(gpu.marks == 0 && gpu.looks == 2, "of one stream the oldest and the newest mark tell all: %d looks", gpu.looks);
    end();
}

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

// Five kernels of 1 ms, launched at once. Nobody looks between two moments, at which the first of what is complete has been so
// for long.
static void test_late_looks(uint64_t from_us, uint64_t to_us, const char *when)
{
    begin_known(NS_PER_MS);
    window_clear(&window);
    uint64_t known = estimate(1), start = gpu.now_ns;
    for (uint64_t n = 1; n <= 5; n++)
        launched(NULL, start + n * NS_PER_MS);
    for (; gpu.now_ns < start + 4500 * NS_PER_US; gpu.now_ns += 10 * NS_PER_US)
        if (gpu.now_ns < start + from_us * NS_PER_US || gpu.now_ns >= start + to_us * NS_PER_US)
            window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
    ok(is_near(estimate(1), known, 5), "a look that comes late %s teaches nothing wrong: %llu of %llu us", when,
       (unsigned long long)(estimate(1) / 1000), (unsigned long long)(known / 1000));
    end();
}

// A training step: many short kernels in turn, always in the same order.
static void test_mixture(unsigned functions, uint64_t kernel_ns)
{
    begin();
    for (uintptr_t n = 0; n < 10000; n++)
        launch(0, n % functions, kernel_ns);
    uint64_t began = gpu.now_ns, worked = 10000 * kernel_ns;
    for (uintptr_t n = 0; n < 10000; n++)
        launch(0, n % functions, kernel_ns);
    uint64_t took = gpu.now_ns - began;
    ok(took * 95 < worked * 100, "%u kernels of %llu ns in turn keep the GPU at work: %llu of %llu us", functions,
       (unsigned long long)kernel_ns, (unsigned long long)worked / 1000, (unsigned long long)took / 1000);
    end();
}

static void test_no_marks(void)
{
    begin();
    gpu.marks_fail = true;
    uint64_t waited = 0;
    for (int n = 0; n < 1000; n++)
        waited += launch(0, 1, 100000);
    is_int(waited, 0, "without marks launches go ahead at once");
    is_int(estimate(1), 0, "and nothing is learned");
    end();
}

static void test_patience(void)
{
    begin();
    for (int n = 0; n < 100; n++)
        launch(0, 1, 500000);
    gpu.stuck = true; // as work that waits for a launch which the window holds back
    uint64_t longest = 0;
    for (int n = 0; n < 20; n++) {
        uint64_t waited = launch(0, 1, 500000);
        longest = waited > longest ? waited : longest;
    }
    ok(longest > WINDOW_NS, "work that never ends holds launches back");
    ok(longest <= WINDOW_PATIENCE_NS + 10 * NS_PER_MS, "but no longer than the patience: %llu ms",
       (unsigned long long)(longest / NS_PER_MS));
    gpu.stuck = false;
    end();
}

static void test_full_ring(void)
{
    begin();
    for (int n = 0; n < 3000; n++)
        launch(0, 1, 2000);
    gpu.stuck = true;
    // Each launch on another stream closes a batch of its own: more of them than there is room for.
    for (uintptr_t n = 0; n < 4 * WINDOW_BATCHES; n++) {
        window_launched(&window, (void *)n, KEY(1), gpu.now_ns);
        gpu.now_ns += 1000;
    }
    ok((uint32_t)gpu.marks <= WINDOW_BATCHES, "no more than %u marks exist at once: %d", WINDOW_BATCHES, gpu.marks);
    gpu.stuck = false;
    gpu.now_ns += NS_PER_S;
    is_int(window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns), 0, "when the work is done, launches go on");
    end();
}

static void test_clear(void)
{
    begin();
    for (int n = 0; n < 100; n++)
        launch(0, 1, 500000);
    uint64_t known = estimate(1);
    window_clear(&window);
    is_int(gpu.marks, 0, "a clear drops the marks");
    is_int(window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns), 0, "and what was in flight");
    is_int(estimate(1), known, "what was learned stays");
    end();
}

// One function with a small and a large grid, in phases.
static void test_grids(void)
{
    const void *function = &gpu;
    const uintptr_t small = (uintptr_t)window_key(function, 8, 1, 1), large = (uintptr_t)window_key(function, 64, 64, 2);
    begin();
    for (int phase = 0; phase < 6; phase++) {
        gpu.longest_queue_ns = 0;
        for (int n = 0; n < 1000; n++)
            launch(0, small, 20000);
        for (int n = 0; n < 20; n++)
            launch(0, large, 2 * NS_PER_MS);
    }
    // What is under way when a phase ends is learned together.
    ok(estimate(small) <= 60000 && is_near(estimate(large), 2 * NS_PER_MS, 25),
       "one function's launches with 8 and with 8192 blocks are told apart: %llu and %llu us",
       (unsigned long long)(estimate(small) / 1000), (unsigned long long)(estimate(large) / 1000));
    ok(gpu.longest_queue_ns <= 4 * WINDOW_NS,
       "so that the first large ones do not fill the window as if they were small: %llu us",
       (unsigned long long)(gpu.longest_queue_ns / 1000));
    ok(window_key(function, 65535, 65535, 1) == window_key(function, 65535, 40000, 1),
       "a number of blocks counts to a power of two");
    ok(window_key(function, 0, 1, 1) == function && window_key(function, 1, 1, 1) == function,
       "one block, or none, is the function itself");
    end();
}

static void test_ahead(void)
{
    const uint64_t kernel_ns = 300000;
    begin();
    launch(0, 1, kernel_ns);
    ok(window_ahead(&window, gpu.now_ns) == UINT64_MAX, "of a function never seen complete it is not known how much is ahead");
    for (int n = 0; n < 200; n++)
        launch(0, 1, kernel_ns);
    uint64_t left = gpu.busy_until_ns - gpu.now_ns, before = window_ahead(&window, gpu.now_ns);
    ok(is_near(before, left, 25), "of others it is: %llu of %llu us", (unsigned long long)(before / 1000),
       (unsigned long long)(left / 1000));
    uint64_t last = before;
    for (; gpu.now_ns < gpu.busy_until_ns - 20000; gpu.now_ns += 2000)
        last = window_ahead(&window, gpu.now_ns);
    ok(last <= 20000 + kernel_ns / 10 || last == UINT64_MAX, "less is ahead later: %llu of 20 us",
       (unsigned long long)(last / 1000));
    gpu.busy_until_ns += 3 * kernel_ns;
    gpu.stuck = true;
    gpu.now_ns += 2 * kernel_ns;
    ok(window_ahead(&window, gpu.now_ns) == UINT64_MAX, "what takes longer than estimated may take any time");
    gpu.stuck = false;
    gpu.now_ns += NS_PER_S;
    ok(window_ahead(&window, gpu.now_ns) == UINT64_MAX, "and where nothing is known to be ahead something unknown may be");
    end();
}

// Whether the window knows how much is ahead when `count` launches are interval_ns apart.
static bool knows_ahead(int count, uint64_t interval_ns)
{
    for (int n = 0; n < count; n++, gpu.now_ns += interval_ns)
        launched(NULL, gpu.now_ns + NS_PER_MS);
    return window_ahead(&window, gpu.now_ns) != UINT64_MAX;
}

static void test_not_known_ahead(void)
{
    begin_known(100000);
    ok(knows_ahead(1, 0), "what is ahead is known");
    window_clear(&window);
    ok(!knows_ahead(1, 0), "but not behind work from before the window was cleared");
    end();
    begin_known(20000);
    for (int n = 0; n < 1000; n++)
        launch(0, 1, 20000);
    gpu.now_ns = gpu.busy_until_ns + NS_PER_S;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
    ok(!knows_ahead(5, 15000), "nor where launches come so slowly that the GPU may have waited for them");
    end();
}

// What the launches of one stream have in flight is in sight when the next goes to another.
static void test_other_stream_is_marked(void)
{
    begin_known(20000);
    for (int n = 0; n < 1000 || window.open.estimate_ns; n++)
        launch(0, 1, 20000);
    int before = gpu.marks;
    launched(NULL, gpu.now_ns);
    is_int(gpu.marks, before, "a short launch is not marked alone");
    launched((void *)1, gpu.now_ns);
    is_int(gpu.marks, before + 1, "but where the next goes to another stream");
    end();
}

static void test_overdue(void)
{
    begin_known(100000);
    launched(NULL, gpu.now_ns);
    gpu.stuck = true;
    is_int(window_ask(&window, KEY(1), WINDOW_WIDEST_NS, gpu.now_ns += 200000), 0,
           "what takes twice as long as estimated holds nothing up");
    ok(window_ask(&window, KEY(1), WINDOW_WIDEST_NS, gpu.now_ns += 200000) > 0, "what takes much longer does");
    gpu.stuck = false;
    end();
}

// Two threads launch at once, and who read the clock first takes note last.
static void test_crossed_times(void)
{
    begin_known(20000);
    for (int n = 0; n < 1000 || window.open.estimate_ns; n++)
        launch(0, 1, 20000);
    gpu.now_ns += NS_PER_MS;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
    launched(NULL, gpu.now_ns + NS_PER_MS);
    gpu.now_ns -= 500;
    while (window.open.estimate_ns)
        launched(NULL, gpu.now_ns + NS_PER_MS);
    ok(window_ahead(&window, gpu.now_ns) != UINT64_MAX, "launches that follow each other closely are not taken for slow ones");
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
    test_durations();
    test_unknown();
    test_many_functions();
    test_changing();
    test_streams();
    test_marks_of_streams();
    test_late_looks(100, 1900, "at the beginning");
    test_late_looks(1900, 4500, "at the end");
    test_stalled_look();
    test_overlap();
    test_two_in_one(1300000, 15000);
    test_two_in_one(3 * NS_PER_MS, 100000);
    test_wait_in_stream();
    test_mixture(20, 5000);
    test_mixture(50, 5000);
    test_mixture(200, 5000);
    test_mixture(200, 100000);
    test_no_marks();
    test_patience();
    test_full_ring();
    test_clear();
    test_grids();
    test_ahead();
    test_not_known_ahead();
    test_other_stream_is_marked();
    test_overdue();
    test_crossed_times();
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
