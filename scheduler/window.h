// SPDX-License-Identifier: AGPL-3.0-or-later
// The window: how much GPU work a contended holder may have in flight, in GPU time.
//
// A revoked token can be handed over only when the holder's queued work is done, so a holder that others wait for keeps its
// queue short: a launch waits until it and what is ahead of it are at most the window's width of estimated work, or next to
// nothing is ahead. Estimates are learned per function and grid from completed work: launches are gathered into batches, each
// closed by a mark (an untimed event) in its stream. The time that a span of several batches took corrects the estimates of the
// functions in it, all by the same factor and halfway. It does not tell which of them took how much; so a batch corrects them
// too if, by the moments between which it must have run, it cannot have taken what they say. (Equations and inequalities, one
// after the other: multiplicative ART, R. Gordon, R. Bender, G. T. Herman, "Algebraic Reconstruction Techniques (ART) for
// three-dimensional electron microscopy and X-ray photography", J. Theoretical Biology 29, 1970; with inequalities: G. T.
// Herman, A. Lent, P. H. Lutz, "Relaxation methods for image reconstruction", CACM 21, 1978.)
//
// Invariants
//  - A single launch is never split or refused: one longer than the window goes in alone.
//  - No thread sleeps holding the mutex, and no GPU operation that can block happens under it.
//  - A wait for the window ends after WINDOW_PATIENCE_NS without progress: queued work may itself wait for a later launch.
//  - Estimates steer the length of the queue, the cost of a switch and with it the automatic quantum, and under MPS when the
//    token moves. GPU time is charged as measured, whatever they say.
// Thread safe.
#ifndef VGPU_SCHEDULER_WINDOW_H
#define VGPU_SCHEDULER_WINDOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gpu_ops.h"

#define WINDOW_NS 1000000ull // 1 ms: six times a context switch, a thirtieth of a quantum
// Far from the end of its turn a holder may be this far ahead, but at most a quarter of the way to the end: a program that
// alternates long kernels with many short ones prepares the short ones while the long ones run.
#define WINDOW_WIDEST_NS 5000000ull
// As long as a drain may take.
#define WINDOW_PATIENCE_NS 200000000ull
#define WINDOW_BATCHES 64u     // most marks in flight
#define WINDOW_FUNCTIONS 1024u // learned durations kept, by hash of the function
// Different functions told apart within one batch, and within one span. With 8, steps of many short kernels would leave out the
// same ones every time: their first assumed time would be blamed on the others, and the GPU would run dry.
#define WINDOW_BATCH_FUNCTIONS 32u

// How often which functions were launched, by their slots in the table of durations. Those that do not fit learn nothing this
// time.
struct window_function {
    uint32_t slot, launches;
};

struct window_functions {
    uint64_t other_ns; // estimate of those that do not fit, as of their launch
    uint32_t count;
    struct window_function each[WINDOW_BATCH_FUNCTIONS]; // last, as in a batch: unused ones are not copied
};

struct window_batch {
    void *mark;            // NULL while the batch is open
    void *stream;          // of its last launch
    pthread_t thread;      // that put the mark: the same handle may mean a stream of its own to each thread
    uint64_t estimate_ns;  // sum over its launches; 0: none yet
    uint64_t submitted_ns; // when its first launch returned
    uint64_t launched_ns;  // and its last
    bool loose;            // of partly unknown duration, or launched so slowly that the GPU may have waited for launches
    bool unsure;           // with a function whose estimate had not been confirmed at its launch
    struct window_functions functions;
};

struct window_duration {
    const void *function;
    uint64_t estimate_ns; // 0: not learned yet
    uint64_t lowered_ns;  // when a bound last lowered it
    uint32_t confirmed;   // by how many spans of nothing else since it was contradicted, SURE_SPANS at most
};

struct window {
    pthread_mutex_t mutex;
    const struct gpu_ops *ops;
    void *ops_gpu;
    uint64_t (*clock_ns)(void); // clock_now_ns, but in tests

    uint32_t first, count; // closed batches, a ring, oldest first
    struct window_batch batches[WINDOW_BATCHES];
    struct window_batch open; // launches since the last mark
    uint64_t closed_ns;       // estimates of the closed batches
    uint64_t last_done_ns;    // when the last batch was seen complete,
    uint64_t done_doubt_ns;   // and by how much earlier it may have been
    uint64_t last_pending_ns; // when a batch was last seen incomplete
    void *done_stream;        // the stream of the last batch seen complete, if all marks were in it, else this window
    pthread_t done_thread;    // and who put its mark

    // A span: the work seen complete since span_start_ns, in which the GPU was never seen idle.
    // The first batch after a clear may have stood behind earlier work: it begins no span, and shows only what it cannot have
    // exceeded.
    bool primed;
    uint64_t span_start_ns; // 0: no span
    uint64_t span_doubt_ns; // by how much earlier it may have begun
    struct window_functions span_functions;

    uint64_t granted_ns; // when the turn began whose first batch has not been seen complete yet; 0: none
    // What the last switch cost, until somebody asks; 0, 0: nothing new. Whether there is news can be seen without the mutex.
    uint64_t switch_least_ns;
    _Atomic uint64_t switch_most_ns;

    struct window_duration durations[WINDOW_FUNCTIONS];
};

// What a launch's duration is learned by: its function and its number of blocks, to a power of two, since one function may take
// very different times for different grids. Only compared, never followed.
static inline const void *window_key(const void *function, unsigned int x, unsigned int y, unsigned int z)
{
    uint64_t blocks = (uint64_t)x * y * z;
    uint64_t doublings = blocks ? 63 - (uint64_t)__builtin_clzll(blocks) : 0;
    return (const void *)((uintptr_t)function ^ (uintptr_t)(doublings * 0x9e3779b97f4a7c15ull));
}

void window_init(struct window *window, const struct gpu_ops *ops, void *ops_gpu);

// Returns how long a launch of `function` should wait before it asks again, in nanoseconds; 0: it may go ahead now, since at
// most width_ns of estimated work would then be in flight, or since next to nothing is.
uint64_t window_ask(struct window *window, const void *function, uint64_t width_ns, uint64_t now_ns);

// Notes a launch of `function` that has just been given to `stream`.
void window_launched(struct window *window, void *stream, const void *function, uint64_t now_ns);

// A thread that waited for the turn goes ahead: the time from granted_ns, when the other's work was complete, to the end of the
// first batch, less what that takes, is the cost of the switch. If launches have gone ahead already, nothing is learned from
// this turn.
void window_granted(struct window *window, uint64_t granted_ns);

// What the last switch cost, once, between *least_ns and *most_ns. false: nothing new.
bool window_switch(struct window *window, uint64_t *least_ns, uint64_t *most_ns);

// How much estimated work is ahead; UINT64_MAX if unknown: none is known of, it takes longer than estimated, or there may be
// some from before the first batch. For the agent, while it drains.
uint64_t window_ahead(struct window *window, uint64_t now_ns);

// Estimated GPU time of one launch of `function`; 0: not learned yet. Exposed for tests.
uint64_t window_estimate(struct window *window, const void *function);

// Drops all marks: for a new grant, the end of contention, and the end of a context.
void window_clear(struct window *window);

#endif
