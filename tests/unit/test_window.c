// SPDX-License-Identifier: AGPL-3.0-or-later
// The window while one program works: what is learned, and how much is ever in flight.
#include "tests/unit/random.h"
#include "tests/unit/window_gpu.h"

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
    return done_testing();
}
