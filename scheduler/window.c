// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/window.h"

#include <stddef.h>
#include <string.h>

#include "base/clock.h"

// A batch is closed by a mark when it holds this part of the window. Nobody sees what has no mark yet: with a quarter, kernels
// of 0.2 ms went in pairs. Marks cost the GPU nothing: on an H100, 14 us kernels follow each other as closely with one behind
// every ninth as with none.
#define BATCH_NS (WINDOW_NS / 16)
// A span begins and ends with a batch seen complete. That is seen late, and only when somebody looks: a span teaches once it is
// this long and both ends together may be off by at most this part of it.
#define SPAN_NS (2 * WINDOW_NS)
#define SPAN_DOUBT_PART 8
// No launch takes less; a smaller estimate would admit any number to the window.
#define SHORTEST_LAUNCH_NS NS_PER_US
#define SHORTEST_PAUSE_NS (20 * NS_PER_US)
#define LONGEST_PAUSE_NS (200 * NS_PER_US)
// A batch that takes this much longer than estimated shows that the estimates are wrong: nothing is added until it is done.
#define OVERDUE_NS (100 * NS_PER_US)
// A launch longer than the window is admitted when this little is left of what is ahead: the GPU goes on without a pause, and a
// drain that begins then takes hardly longer than that launch.
#define SLACK_NS (30 * NS_PER_US)
// A kernel may begin this long before its launch returns. A graph or a task begins longer before: one that finds the GPU idle
// counts as what is left of it when it returns, and is learned in full behind other work.
#define EARLY_NS (10 * NS_PER_US)
// A batch is believed to take so many times its estimate at most: it may have waited for an event instead of running.
#define MOST_RAISE 4
// An estimate is sure after so many spans that confirm it. It is confirmed, and not contradicted, if it is off by at most this
// part.
#define SURE_SPANS 2u
#define SURE_PART 8
#define PROBES 8u

void window_init(struct window *window, const struct gpu_ops *ops, void *ops_gpu)
{
    *window = (struct window){.ops = ops, .ops_gpu = ops_gpu, .clock_ns = clock_now_ns};
    pthread_mutex_init(&window->mutex, NULL);
}

// The slot of `function`, or the one it may have: the first free one, else the first of those it can be in. There are a few,
// since two functions that alternated in one slot would both stay unknown, and an unknown launch waits as a whole window's
// would. Slots never become free again, so what is known lies before the first free one.
static uint32_t slot_of(const struct window *window, const void *function)
{
    // Fibonacci hashing: handles differ in their middle bits.
    uint64_t hash = (uint64_t)(uintptr_t)function * 0x9e3779b97f4a7c15ull;
    uint32_t first = (uint32_t)(hash >> 32) % WINDOW_FUNCTIONS;
    for (uint32_t i = 0; i < PROBES; i++) {
        uint32_t slot = (first + i) % WINDOW_FUNCTIONS;
        const void *there = window->durations[slot].function;
        if (there == function || !there)
            return slot;
    }
    return first;
}

// The entry of `function`, taken from whatever had the slot: it belongs to the function that used it last.
static struct window_duration *duration_of(struct window *window, const void *function)
{
    struct window_duration *duration = &window->durations[slot_of(window, function)];
    if (duration->function != function)
        *duration = (struct window_duration){.function = function};
    return duration;
}

// What is known of `function`, without taking a slot for it; 0 if nothing.
static uint64_t known_ns(const struct window *window, const void *function)
{
    const struct window_duration *duration = &window->durations[slot_of(window, function)];
    return duration->function == function ? duration->estimate_ns : 0;
}

// Threads may read the clock in a different order than they get the mutex.
static uint64_t since(uint64_t start_ns, uint64_t now_ns)
{
    return start_ns < now_ns ? now_ns - start_ns : 0;
}

static struct window_batch *oldest(struct window *window)
{
    return &window->batches[window->first];
}

static bool is_in_stream(const struct window_batch *batch, const void *stream, pthread_t thread)
{
    return batch->stream == stream && pthread_equal(batch->thread, thread);
}

static uint64_t start_of(const struct window *window, const struct window_batch *batch)
{
    return batch->submitted_ns > window->last_done_ns ? batch->submitted_ns : window->last_done_ns;
}

// An unknown launch counts as a whole window.
static uint64_t assumed_ns(uint64_t estimate_ns)
{
    return estimate_ns ? estimate_ns : WINDOW_NS;
}

static void remember(const struct window *window, struct window_functions *functions, uint32_t slot, uint32_t launches)
{
    uint32_t i = 0;
    while (i < functions->count && functions->each[i].slot != slot)
        i++;
    if (i == WINDOW_BATCH_FUNCTIONS) {
        functions->other_ns += launches * assumed_ns(window->durations[slot].estimate_ns);
        return;
    }
    if (i == functions->count) {
        functions->each[i] = (struct window_function){.slot = slot};
        functions->count++;
    }
    functions->each[i].launches += launches;
}

static void forget(struct window_functions *functions)
{
    functions->other_ns = 0;
    functions->count = 0;
}

// What launches take by the current estimates. Those of the time of launch would not do: a queue is several spans long, and an
// error corrected once would be corrected again by everything launched before.
static uint64_t estimate_of(const struct window *window, const struct window_functions *functions)
{
    uint64_t sum = functions->other_ns;
    for (uint32_t i = 0; i < functions->count; i++)
        sum += functions->each[i].launches * assumed_ns(window->durations[functions->each[i].slot].estimate_ns);
    return sum;
}

// How it is known what functions took together. A bound teaches nothing of what is unknown: it is from one batch, a span from
// many.
enum evidence { EVIDENCE_BOUND, EVIDENCE_SPAN, EVIDENCE_SPAN_ALONE };

// Corrects the estimates of functions that took took_ns together: all by the same factor, and halfway if something was known.
static void correct(struct window *window, const struct window_functions *functions, uint64_t took_ns, enum evidence evidence)
{
    uint64_t sum = estimate_of(window, functions);
    if (sum == 0)
        return;
    bool agrees = since(took_ns, sum) <= sum / SURE_PART && since(sum, took_ns) <= sum / SURE_PART;
    for (uint32_t i = 0; i < functions->count; i++) {
        uint32_t slot = functions->each[i].slot;
        struct window_duration *duration = &window->durations[slot];
        uint64_t known = duration->estimate_ns, base = assumed_ns(known);
        if (!known && evidence == EVIDENCE_BOUND)
            continue;
        uint64_t seen = (uint64_t)((unsigned __int128)base * took_ns / sum);
        uint64_t estimate = known ? (known + seen) / 2 : seen;
        duration->estimate_ns = estimate > SHORTEST_LAUNCH_NS ? estimate : SHORTEST_LAUNCH_NS;
        if (!agrees)
            duration->confirmed = 0;
        else if (known && evidence == EVIDENCE_SPAN_ALONE && duration->confirmed < SURE_SPANS)
            duration->confirmed++;
    }
}

static void learn(struct window *window, uint64_t took_ns)
{
    const struct window_functions *functions = &window->span_functions;
    bool alone = functions->count == 1 && functions->other_ns == 0;
    correct(window, functions, took_ns, alone ? EVIDENCE_SPAN_ALONE : EVIDENCE_SPAN);
}

static void start_span(struct window *window, uint64_t start_ns, uint64_t doubt_ns)
{
    window->span_start_ns = start_ns;
    window->span_doubt_ns = doubt_ns;
    forget(&window->span_functions);
}

// A batch has just been seen complete and the GPU still works: what is complete ran from the start of the span until now.
static void span_goes_on(struct window *window, uint64_t now_ns)
{
    uint64_t took = since(window->span_start_ns, now_ns);
    if (took < SPAN_NS || window->span_doubt_ns + window->done_doubt_ns > took / SPAN_DOUBT_PART)
        return;
    learn(window, took);
    start_span(window, now_ns, window->done_doubt_ns);
}

// Everything is complete, since some moment between the last look and this one. If that gap is narrow, the span still teaches;
// otherwise only if even the longest it can have taken is less than was estimated.
static void span_ends(struct window *window, uint64_t now_ns)
{
    if (!window->span_start_ns)
        return;
    uint64_t longest = since(window->span_start_ns, now_ns) + window->span_doubt_ns + 1;
    uint64_t shortest = since(window->span_start_ns, window->last_pending_ns);
    if (longest - shortest <= longest / 4)
        learn(window, (longest + shortest) / 2);
    else if (estimate_of(window, &window->span_functions) > longest)
        learn(window, longest);
    start_span(window, 0, 0);
}

// The first batch of a turn is complete, since some moment between the last look and this one. One that is loose, whose
// estimate nothing has confirmed, or so long that an error in it outweighs a switch, tells nothing.
static void note_switch(struct window *window, const struct window_batch *batch, uint64_t now_ns)
{
    uint64_t expected = window->granted_ns + batch->estimate_ns, pending = window->last_pending_ns;
    window->granted_ns = 0;
    if (batch->loose || batch->unsure || batch->estimate_ns > WINDOW_NS)
        return;
    window->switch_least_ns = pending > expected ? pending - expected : 0;
    atomic_store_explicit(&window->switch_most_ns, now_ns > expected ? now_ns - expected : 1, memory_order_relaxed);
}

// Whether a bound may lower these functions again: no more often than spans, which need as long. A function that takes
// different times would follow its last batch, and when it takes long again fill the window many times over.
static bool may_lower(struct window *window, const struct window_functions *functions, uint64_t now_ns)
{
    for (uint32_t i = 0; i < functions->count; i++)
        if (since(window->durations[functions->each[i].slot].lowered_ns, now_ns) < SPAN_NS)
            return false;
    for (uint32_t i = 0; i < functions->count; i++)
        window->durations[functions->each[i].slot].lowered_ns = now_ns;
    return true;
}

// Corrects the estimates of a batch that has just been seen complete and cannot have taken what they say. It began when it was
// launched or when the one before it in its stream was complete, whichever was later. Only while all marks are in that stream:
// nothing is known of when it began beside another's.
static void keep_in_bounds(struct window *window, const struct window_batch *batch, uint64_t now_ns)
{
    uint64_t launched = batch->submitted_ns - EARLY_NS, done = window->last_done_ns - window->done_doubt_ns;
    uint64_t earliest = launched > done ? launched : done;
    uint64_t latest = batch->launched_ns > window->last_done_ns ? batch->launched_ns : window->last_done_ns;
    uint64_t longest = since(earliest, now_ns) + 1, shortest = since(latest, window->last_pending_ns);
    uint64_t sum = estimate_of(window, &batch->functions), most = sum * MOST_RAISE;
    if (sum > longest && may_lower(window, &batch->functions, now_ns))
        correct(window, &batch->functions, longest, EVIDENCE_BOUND);
    // Unless primed, it may have stood behind earlier work.
    else if (sum < shortest && window->primed)
        correct(window, &batch->functions, shortest < most ? shortest : most, EVIDENCE_BOUND);
}

// `alone`: all marks are in one stream.
static void take_off(struct window *window, bool alone, uint64_t now_ns)
{
    struct window_batch *batch = oldest(window);
    if (alone && is_in_stream(batch, window->done_stream, window->done_thread))
        keep_in_bounds(window, batch, now_ns);
    uint64_t pending = window->last_pending_ns > batch->submitted_ns ? window->last_pending_ns : batch->submitted_ns;
    if (window->granted_ns)
        note_switch(window, batch, now_ns);
    // A batch seen complete in the same look as its predecessor began at an unknown time and cannot start a span.
    if (!window->span_start_ns && window->primed && window->last_done_ns < now_ns)
        start_span(window, start_of(window, batch), window->last_done_ns > batch->submitted_ns ? window->done_doubt_ns : 0);
    if (window->span_start_ns) {
        for (uint32_t i = 0; i < batch->functions.count; i++)
            remember(window, &window->span_functions, batch->functions.each[i].slot, batch->functions.each[i].launches);
        window->span_functions.other_ns += batch->functions.other_ns;
    }
    window->primed = true;
    window->done_stream = alone ? batch->stream : window;
    window->done_thread = batch->thread;
    window->ops->mark_drop(window->ops_gpu, batch->mark);
    window->closed_ns -= batch->estimate_ns;
    window->last_done_ns = now_ns;
    window->done_doubt_ns = since(pending, now_ns);
    window->first = (window->first + 1) % WINDOW_BATCHES;
    window->count--;
}

static struct window_batch *newest(struct window *window)
{
    return &window->batches[(window->first + window->count - 1) % WINDOW_BATCHES];
}

static bool is_done(const struct window *window, const struct window_batch *batch)
{
    return window->ops->mark_done(window->ops_gpu, batch->mark);
}

// Whether all marks are in one stream, so that the last mark speaks for all.
static bool in_one_stream(const struct window *window)
{
    const struct window_batch *first = &window->batches[window->first];
    for (uint32_t i = 1; i < window->count; i++) {
        const struct window_batch *batch = &window->batches[(window->first + i) % WINDOW_BATCHES];
        if (!is_in_stream(batch, first->stream, first->thread))
            return false;
    }
    return true;
}

static void collect(struct window *window, uint64_t now_ns)
{
    bool any = window->count > 0;
    if (any && is_done(window, oldest(window))) {
        // A batch is seen complete after the look at it, and pending before: the thread may have stood still in between.
        now_ns = window->clock_ns();
        bool alone = in_one_stream(window);
        take_off(window, alone, now_ns);
        bool all = alone && window->count > 2 && is_done(window, newest(window));
        if (all)
            now_ns = window->clock_ns();
        while (window->count && (all || is_done(window, oldest(window))))
            take_off(window, alone, now_ns);
    }
    if (window->count) {
        if (window->span_start_ns && window->last_done_ns == now_ns)
            span_goes_on(window, now_ns);
        window->last_pending_ns = now_ns;
    } else if (any) {
        span_ends(window, now_ns);
    }
}

static void drop_all(struct window *window)
{
    while (window->count) {
        window->ops->mark_drop(window->ops_gpu, oldest(window)->mark);
        window->first = (window->first + 1) % WINDOW_BATCHES;
        window->count--;
    }
    window->closed_ns = 0;
    window->open = (struct window_batch){0};
    window->primed = false;
    window->granted_ns = 0;
    start_span(window, 0, 0);
}

static uint64_t pause_for(struct window *window, uint64_t own_ns, uint64_t width_ns, uint64_t now_ns)
{
    if (window->count == 0)
        return 0;
    const struct window_batch *batch = oldest(window);
    uint64_t elapsed = since(start_of(window, batch), now_ns);
    if (elapsed > WINDOW_PATIENCE_NS) {
        drop_all(window);
        return 0;
    }
    if (elapsed > 2 * batch->estimate_ns + OVERDUE_NS)
        return SHORTEST_PAUSE_NS;
    uint64_t done = elapsed < batch->estimate_ns ? elapsed : batch->estimate_ns;
    uint64_t ahead = window->closed_ns - done + window->open.estimate_ns;
    uint64_t most = width_ns > own_ns + SLACK_NS ? width_ns - own_ns : SLACK_NS;
    if (ahead <= most)
        return 0;
    uint64_t pause = (ahead - most) / 2;
    return pause < SHORTEST_PAUSE_NS ? SHORTEST_PAUSE_NS : pause > LONGEST_PAUSE_NS ? LONGEST_PAUSE_NS : pause;
}

uint64_t window_ahead(struct window *window, uint64_t now_ns)
{
    pthread_mutex_lock(&window->mutex);
    collect(window, now_ns);
    // The open batch runs if all closed ones are complete.
    const struct window_batch *batch = window->count ? oldest(window) : &window->open;
    uint64_t elapsed = since(start_of(window, batch), now_ns);
    uint64_t ahead = window->closed_ns + window->open.estimate_ns;
    bool known = window->primed && !batch->loose && elapsed < batch->estimate_ns;
    pthread_mutex_unlock(&window->mutex);
    return known ? ahead - elapsed : UINT64_MAX;
}

uint64_t window_ask(struct window *window, const void *function, uint64_t width_ns, uint64_t now_ns)
{
    pthread_mutex_lock(&window->mutex);
    collect(window, now_ns);
    uint64_t pause = pause_for(window, assumed_ns(known_ns(window, function)), width_ns, now_ns);
    pthread_mutex_unlock(&window->mutex);
    return pause;
}

static void copy_batch(struct window_batch *to, const struct window_batch *from)
{
    memcpy(to, from, offsetof(struct window_batch, functions.each) + from->functions.count * sizeof from->functions.each[0]);
}

// Adds a launch to the open batch. Returns true and moves the batch to *closed when it is time for a mark: the batch is long
// enough or contains something unknown, or the launch went to another stream than the one before, whose work no later mark
// would follow.
static bool add_launch(struct window *window, void *stream, const void *function, uint64_t now_ns, struct window_batch *closed)
{
    struct window_duration *duration = duration_of(window, function);
    struct window_batch *open = &window->open;
    bool first = open->estimate_ns == 0, unknown = duration->estimate_ns == 0;
    bool moved = open->stream != stream;
    if (first)
        open->submitted_ns = now_ns;
    open->stream = stream;
    open->launched_ns = now_ns;
    open->estimate_ns += assumed_ns(duration->estimate_ns);
    open->loose |= unknown;
    open->unsure |= duration->confirmed < SURE_SPANS;
    remember(window, &open->functions, (uint32_t)(duration - window->durations), 1);
    if (!(unknown || moved || open->estimate_ns >= BATCH_NS) || window->count == WINDOW_BATCHES)
        return false;
    copy_batch(closed, open);
    closed->loose |= since(open->submitted_ns, now_ns) > open->estimate_ns / 2;
    open->estimate_ns = 0;
    open->loose = false;
    open->unsure = false;
    forget(&open->functions);
    return true;
}

void window_launched(struct window *window, void *stream, const void *function, uint64_t now_ns)
{
    struct window_batch closed;
    pthread_mutex_lock(&window->mutex);
    bool close = add_launch(window, stream, function, now_ns, &closed);
    pthread_mutex_unlock(&window->mutex);
    if (!close)
        return;
    // Outside the mutex: a mark can block while the stream's queue is full.
    closed.thread = pthread_self();
    closed.mark = window->ops->mark_put(window->ops_gpu, stream);
    if (!closed.mark)
        return;
    pthread_mutex_lock(&window->mutex);
    bool room = window->count < WINDOW_BATCHES;
    if (room) {
        copy_batch(&window->batches[(window->first + window->count++) % WINDOW_BATCHES], &closed);
        window->closed_ns += closed.estimate_ns;
    }
    pthread_mutex_unlock(&window->mutex);
    if (!room)
        window->ops->mark_drop(window->ops_gpu, closed.mark);
}

void window_granted(struct window *window, uint64_t granted_ns)
{
    pthread_mutex_lock(&window->mutex);
    if (!window->primed && window->count == 0 && window->open.estimate_ns == 0)
        window->granted_ns = granted_ns;
    pthread_mutex_unlock(&window->mutex);
}

bool window_switch(struct window *window, uint64_t *least_ns, uint64_t *most_ns)
{
    if (!atomic_load_explicit(&window->switch_most_ns, memory_order_relaxed))
        return false;
    pthread_mutex_lock(&window->mutex);
    *least_ns = window->switch_least_ns;
    *most_ns = atomic_exchange_explicit(&window->switch_most_ns, 0, memory_order_relaxed);
    window->switch_least_ns = 0;
    pthread_mutex_unlock(&window->mutex);
    return *most_ns > 0;
}

uint64_t window_estimate(struct window *window, const void *function)
{
    pthread_mutex_lock(&window->mutex);
    uint64_t estimate = known_ns(window, function);
    pthread_mutex_unlock(&window->mutex);
    return estimate;
}

void window_clear(struct window *window)
{
    pthread_mutex_lock(&window->mutex);
    drop_all(window);
    pthread_mutex_unlock(&window->mutex);
}
