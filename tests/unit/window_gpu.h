// SPDX-License-Identifier: AGPL-3.0-or-later
// A window with a clock of its own and a made-up GPU that runs what it is given in order.
#ifndef WINDOW_GPU_H
#define WINDOW_GPU_H

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "scheduler/window.h"
#include "tests/unit/tap.h"

#define LAUNCH_NS 3000ull     // what a launch takes the launching thread
#define OVERSLEEP_NS 60000ull // and how much longer than asked a sleep may take
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

static inline void *mark_put(void *unused, void *stream)
{
    (void)unused;
    uint64_t *mark = gpu.marks_fail ? NULL : (uint64_t *)malloc(sizeof *mark);
    if (mark) {
        *mark = gpu.stream_until_ns[(own_stream + (uintptr_t)stream) % STREAMS];
        gpu.marks++;
    }
    return mark;
}

static inline bool mark_done(void *unused, void *mark)
{
    (void)unused;
    gpu.looks++;
    gpu.now_ns += gpu.stall_ns;
    gpu.stall_ns = 0;
    return !gpu.stuck && gpu.now_ns >= *(uint64_t *)mark;
}

static inline void mark_drop(void *unused, void *mark)
{
    (void)unused;
    gpu.marks--;
    free(mark);
}

static const struct gpu_ops ops = {.mark_put = mark_put, .mark_done = mark_done, .mark_drop = mark_drop};

static inline uint64_t clock_of_gpu(void)
{
    return gpu.now_ns;
}

static inline void begin(void)
{
    memset(&gpu, 0, sizeof gpu);
    gpu.now_ns = NS_PER_S;
    window_init(&window, &ops, NULL);
    window.clock_ns = clock_of_gpu;
}

static inline void end(void)
{
    window_clear(&window);
    is_int(gpu.marks, 0, "every mark is dropped");
}

// A kernel is given to the GPU.
static inline void run(uintptr_t stream, uint64_t kernel_ns)
{
    gpu.busy_until_ns = (gpu.busy_until_ns > gpu.now_ns ? gpu.busy_until_ns : gpu.now_ns) + kernel_ns;
    gpu.stream_until_ns[stream % STREAMS] = gpu.busy_until_ns;
}

// Launches as the gate does. Returns how long it waited.
static inline uint64_t launch(uintptr_t stream, uintptr_t function, uint64_t duration_ns)
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

static inline uint64_t estimate(uintptr_t function)
{
    return window_estimate(&window, KEY(function));
}

static inline bool is_near(uint64_t value, uint64_t goal, uint64_t percent)
{
    return value * 100 > goal * (100 - percent) && value * 100 < goal * (100 + percent);
}

// With a kernel that is known, and complete.
static inline void begin_known(uint64_t kernel_ns)
{
    begin();
    for (int n = 0; n < 100; n++)
        launch(0, 1, kernel_ns);
    gpu.now_ns += NS_PER_S;
    window_ask(&window, KEY(1), WINDOW_NS, gpu.now_ns);
}

#endif
