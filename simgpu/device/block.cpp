// The threads of one block: which of them runs when, barriers and sleep.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Threads run one after the other on the same fiber for as long as none of them has to wait. One that waits keeps its fiber,
// and the threads behind it go on with another. So a block without barriers costs one switch there and back, and one with
// barriers as many stacks as it has threads; stacks are kept for the next block.
#include "simgpu/device/block.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "simgpu/device/builtins.hpp"
#include "simgpu/device/fiber.hpp"

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread uint3 blockDim;
__thread uint3 gridDim;

namespace simgpu
{

struct worker {
    fiber context;
    uint3 index;      // of the thread that it runs
    uint64_t wake_ns; // while asleep
    worker *next;     // in the list that holds it: idle, ready, asleep or at_barrier
};

struct queue {
    worker *head = nullptr, *tail = nullptr;

    void push(worker *w)
    {
        w->next = nullptr;
        (head ? tail->next : head) = w;
        tail = w;
    }

    worker *pop()
    {
        worker *w = head;
        if (w)
            head = w->next;
        return w;
    }

    // Takes the one with the earliest wake_ns.
    worker *pop_earliest()
    {
        worker *earliest = head, *before = nullptr;
        for (worker *w = head; w && w->next; w = w->next) {
            if (w->next->wake_ns < earliest->wake_ns) {
                earliest = w->next;
                before = w;
            }
        }
        if (!before)
            return pop();
        before->next = earliest->next;
        if (tail == earliest)
            tail = before;
        return earliest;
    }
};

// All state of the OS thread that runs blocks. Every worker is running, or in exactly one of the lists.
struct scheduler {
    fiber caller; // of block_run
    worker *current = nullptr;
    worker *idle = nullptr;
    queue ready, asleep, at_barrier;

    const simgpu_block *block = nullptr;
    void (*thread)(void **) = nullptr;
    void **params = nullptr;
    uint3 next = {0, 0, 0}; // the thread to start next
    uint32_t started = 0, threads = 0, workers = 0;

    ~scheduler();
    worker *take_idle();
    worker *choose();
    void wait();
    void work();
};

static thread_local scheduler here;

static uint64_t now_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

static void worker_main(void *)
{
    for (;;)
        here.work();
}

scheduler::~scheduler()
{
    while (worker *w = idle) {
        idle = w->next;
        fiber_destroy(&w->context);
        free(w);
    }
}

worker *scheduler::take_idle()
{
    worker *w = idle;
    if (w) {
        idle = w->next;
        return w;
    }
    w = static_cast<worker *>(calloc(1, sizeof *w));
    if (!w || !fiber_create(&w->context, workers++, worker_main, nullptr)) {
        // A GPU has registers for every thread of a block; without a stack for each the block cannot be run at all.
        fprintf(stderr, "simgpu: no memory for the stacks of a block of %u threads\n", threads);
        abort();
    }
    return w;
}

// Who goes on: threads past a barrier, then threads not yet started, then whoever wakes first. If all that are left wait at a
// barrier it opens. Null when every thread has returned.
worker *scheduler::choose()
{
    worker *w = ready.pop();
    if (w)
        return w;
    if (started < threads)
        return take_idle();
    w = asleep.pop_earliest();
    if (w) {
        uint64_t now = now_ns();
        if (w->wake_ns > now)
            block->yield(block->yield_arg, w->wake_ns - now);
        return w;
    }
    ready = at_barrier;
    at_barrier = queue();
    return ready.pop();
}

// Lets others run until it is the caller's turn again. The caller is already in a list.
void scheduler::wait()
{
    worker *self = current;

    current = choose();
    if (current != self)
        fiber_switch(&self->context, current ? &current->context : &caller);
    threadIdx = self->index;
}

// One round of a worker: runs threads until none is left to start, and waits for another block.
void scheduler::work()
{
    worker *self = current;

    while (started < threads) {
        started++;
        threadIdx = self->index = next;
        if (++next.x == blockDim.x) {
            next.x = 0;
            if (++next.y == blockDim.y) {
                next.y = 0;
                next.z++;
            }
        }
        thread(params);
    }
    self->next = idle;
    idle = self;
    wait();
}

void block_run(const simgpu_block *block, void (*thread)(void **params), void **params)
{
    blockIdx = make_uint3(block->block_idx.x, block->block_idx.y, block->block_idx.z);
    blockDim = make_uint3(block->block_dim.x, block->block_dim.y, block->block_dim.z);
    gridDim = make_uint3(block->grid_dim.x, block->grid_dim.y, block->grid_dim.z);
    here.block = block;
    here.thread = thread;
    here.params = params;
    here.next = make_uint3(0, 0, 0);
    here.started = 0;
    here.threads = blockDim.x * blockDim.y * blockDim.z;
    here.current = here.choose();
    fiber_switch(&here.caller, &here.current->context);
}

} // namespace simgpu

void __syncthreads()
{
    simgpu::scheduler &s = simgpu::here;
    s.at_barrier.push(s.current);
    s.wait();
}

void __nanosleep(unsigned ns)
{
    simgpu::scheduler &s = simgpu::here;
    s.current->wake_ns = simgpu::now_ns() + ns;
    s.asleep.push(s.current);
    s.wait();
}

uint64_t simgpu_global_timer_ns()
{
    return simgpu::now_ns();
}
