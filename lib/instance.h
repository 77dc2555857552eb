// SPDX-License-Identifier: AGPL-3.0-or-later
// A virtual GPU of the API: its place in the pool, gate, streams, heap and tasks, and how a call into it begins and ends.
//
// Invariants
//  - Each instance has its own process slot, and with it a mapping of the pool: the slot lives as long as the mapping.
//  - Every public function that touches the instance is a call, counted in and out. Destruction first lets no more calls begin,
//    then waits for those that have begun.
//  - Memory of the instance is charged to its slot and is returned with it, whatever happens to the process.
// Lock order: instance table of the home, then the locks of streams, heap and holdings, which nest in this order.
#ifndef VGPU_LIB_INSTANCE_H
#define VGPU_LIB_INSTANCE_H

#include "allocator/heap.h"
#include "lib/api.h"
#include "lib/error.h"
#include "lib/home.h"
#include "lib/streams.h"
#include "scheduler/gate.h"

struct vgpu {
    uint64_t generation;
    _Atomic uint32_t calls; // under way
    _Atomic bool closing;   // no more calls begin
    _Atomic bool destroying;
    struct home_gpu *gpu;
    struct pool pool;
    uint32_t process, gpu_index, vgpu_index; // in the pool
    struct holdings holdings;
    struct streams streams;
    struct heap *heap;
    struct tasks *tasks;
    _Atomic uint32_t regions; // mapped
    struct gate gate;
};

// The turn in which this thread works.
struct section {
    struct vgpu *vgpu; // NULL: in none
    enum gate_pass pass;
    const void *function; // what the window knows it by
    bool task;            // a task's, which ends with it
    unsigned depth;       // of vgpu_enter
};

extern __thread struct section section_of_thread __attribute__((visibility("hidden")));

// The error for a call that cannot begin. lib/call.c.
int instance_refuse(const struct vgpu *vgpu);

static inline void instance_leave(struct vgpu *vgpu)
{
    atomic_fetch_sub_explicit(&vgpu->calls, 1, memory_order_release);
}

// Counts a call in, until instance_leave. Returns 0, or without counting -EINVAL (NULL), -ECHILD or -ESHUTDOWN. Used directly by
// frequent calls, which leave errno as it is, reach no cancellation point and return in one place.
static inline int instance_enter(struct vgpu *vgpu)
{
    if (!vgpu || vgpu->generation != atomic_load_explicit(&home_generation, memory_order_relaxed))
        return instance_refuse(vgpu);
    // Pairs with close_for_calls in lib/instance.c: counted in before the flag is read.
    atomic_fetch_add(&vgpu->calls, 1);
    if (!atomic_load(&vgpu->closing))
        return 0;
    int rc = instance_refuse(vgpu);
    instance_leave(vgpu);
    return rc;
}

// A call of a public function into an instance. It ends with the scope: CALL call = call_begin(vgpu). lib/call.c.
struct call {
    struct entry entry;
    int rc;            // 0: counted in; else the error of instance_enter, or the driver's
    struct vgpu *vgpu; // where it was counted in
    bool current;      // its context is, and the thread may make calls while another captures
    bool pushed;       // that context
    CUstreamCaptureMode mode;
};

#define CALL __attribute__((cleanup(call_end))) struct call

struct call call_begin(struct vgpu *vgpu);
// With the instance's context current.
struct call call_begin_current(struct vgpu *vgpu);
void call_end(const struct call *call);

int instance_refuse_stream(vgpu_stream stream);

// Checks a stream argument of a public function, and replaces NULL by the instance's own stream. 0 or -EINVAL.
static inline int instance_stream(struct vgpu *vgpu, vgpu_stream *stream)
{
    CUstream found = streams_find(&vgpu->streams, *stream);
    if (!found)
        return instance_refuse_stream(*stream);
    *stream = found;
    return 0;
}

// Checks the name of a virtual GPU or a region: 0 or -EINVAL.
int instance_check_name(const char *name);

// Passes the gate for several launches, which the window knows together by `function`, and leaves it. With the context current.
// lib/launch.c.
void section_begin(struct vgpu *vgpu, const void *function);
void section_end(void);

// lib/memory.c.
int memory_init(struct vgpu *vgpu);

#endif
