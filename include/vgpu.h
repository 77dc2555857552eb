// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu: virtual GPUs inside one program.
//
// A program makes as many virtual GPUs as it wants. Each has its own memory quota and share of GPU time, and competes in the
// same pool and ring with the virtual GPUs of all other programs, including unmodified programs under libvgpu_shim.so.
//
//  - Functions return 0 or a negative errno value. vgpu_strerror says what the value means, vgpu_detail what went wrong in this
//    call. A call that fails changes nothing, unless its page says otherwise.
//  - Any thread may call any function at any time, except on a handle that is being destroyed or released. errno and the
//    thread's current CUDA context are preserved.
//  - Device pointers are void *, streams CUstream (cudaStream_t), as in the driver API and the CUDA runtime, in the primary
//    context of the device. This header needs none of CUDA's headers.
//  - A child made by fork has no virtual GPUs: -ECHILD.
//
// Link with -lvgpu, or use `pkg-config --cflags --libs vgpu`. Every function has a man page: vgpu_create(3) and so on.
#ifndef VGPU_H
#define VGPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vgpu; // a handle to a virtual GPU
struct CUstream_st;
typedef struct CUstream_st *vgpu_stream;

// Classes: high interrupts others' turns, within its share; low counts with a hundredth of its weight.
enum vgpu_priority { VGPU_PRIORITY_LOW = 1, VGPU_PRIORITY_NORMAL = 2, VGPU_PRIORITY_HIGH = 3 };

// A quantum chosen by the scheduler, also for vgpu_change, where 0 means unchanged.
#define VGPU_QUANTUM_AUTO UINT64_MAX

// The options of a virtual GPU. Initialise with VGPU_CONFIG_INIT: the size lets a program and a library that know different
// versions of this structure understand each other.
struct vgpu_config {
    size_t size;
    const char *name;        // 1 to 48 characters out of A-Z a-z 0-9 . _ -; NULL: named after the process
    const char *device_uuid; // GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx; NULL: by `device`
    int32_t device;          // ordinal, as the program counts its GPUs
    uint32_t weight;         // share of GPU time, 1 to 10000; 0: 100
    uint64_t memory_bytes;   // quota, rounded down to whole chunks; 0: none, it uses what is not reserved
    uint64_t quantum_us;     // length of a turn at equal weights, 1000 to 1000000; 0 or VGPU_QUANTUM_AUTO: automatic
    uint32_t limit_percent;  // the most GPU time it gets, 1 to 100, even while nobody else wants it; 0 or 100: no limit
    uint32_t priority;       // one of enum vgpu_priority; 0: VGPU_PRIORITY_NORMAL
    uint32_t queue_tasks;    // tasks that may wait at once, vgpu_submit(3); 0: 1024
    uint32_t concurrency;    // how many virtual GPUs may run at the same time, if each of them allows as many, 1 to 64; 0: 1
};

#define VGPU_CONFIG_INIT                                                                                                       \
    {                                                                                                                          \
        sizeof(struct vgpu_config), NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0                                                         \
    }

// Makes a new virtual GPU. -EEXIST: the name is taken on that GPU.
int vgpu_create(const struct vgpu_config *config, struct vgpu **vgpu);
// Joins an existing virtual GPU, whatever program made it. Values that `config` sets, other than name and device, must agree
// with it. -ENOENT: no such name.
int vgpu_open(const struct vgpu_config *config, struct vgpu **vgpu);
// Changes a live virtual GPU for all its members. Applies what `config` sets, except name, device and queue_tasks; 0 leaves a
// value unchanged, so a default is set by its own value: weight 100, VGPU_QUANTUM_AUTO, limit 100, concurrency 1. -EBUSY: less
// memory than is in use.
int vgpu_change(struct vgpu *vgpu, const struct vgpu_config *config);
// Runs the queued tasks to their end, waits for the work on all streams, and releases everything. Fails only with -EBUSY
// (regions are open), -EDEADLK (called in a turn), -ESHUTDOWN (another thread is destroying it) and -ECHILD.
int vgpu_destroy(struct vgpu *vgpu);

// Streams. Each virtual GPU has a stream of its own, for which NULL stands everywhere, and can have VGPU_MAX_STREAMS in all.
// They are non-blocking: never ordered against the default streams.
#define VGPU_MAX_STREAMS 64
vgpu_stream vgpu_own_stream(const struct vgpu *vgpu);
int vgpu_stream_create(struct vgpu *vgpu, vgpu_stream *stream);
// Waits for the work on the stream first.
int vgpu_stream_destroy(struct vgpu *vgpu, vgpu_stream stream);
// Waits for the work on `stream`; with NULL, on all of the virtual GPU's streams.
int vgpu_synchronize(struct vgpu *vgpu, vgpu_stream stream);

// Memory, from the virtual GPU's heap of whole chunks; aligned to 256 bytes or, on request, to a power of two up to 2 MiB.
// Memory freed by vgpu_free is reused once all work submitted to the virtual GPU's streams until then, by these functions or in
// a turn, is complete; memory freed by vgpu_free_async, in the order of the stream. -ENOMEM: the quota. Freeing NULL does
// nothing. A pointer that is not this virtual GPU's (-ENOENT), lies inside an allocation (-EFAULT) or is freed already
// (-EALREADY) is refused, without side effects.
int vgpu_malloc(struct vgpu *vgpu, size_t bytes, void **pointer);
int vgpu_malloc_aligned(struct vgpu *vgpu, size_t bytes, size_t alignment, void **pointer);
int vgpu_malloc_async(struct vgpu *vgpu, size_t bytes, vgpu_stream stream, void **pointer);
int vgpu_free(struct vgpu *vgpu, void *pointer);
int vgpu_free_async(struct vgpu *vgpu, void *pointer, vgpu_stream stream);
// Free and total bytes: of the quota, or of what is not reserved.
int vgpu_mem_info(struct vgpu *vgpu, size_t *free_bytes, size_t *total_bytes);

// Copies, from and to host or device, and fills: on the virtual GPU's own stream, waiting for completion, or on any of its
// streams.
int vgpu_memcpy(struct vgpu *vgpu, void *to, const void *from, size_t bytes);
int vgpu_memcpy_async(struct vgpu *vgpu, void *to, const void *from, size_t bytes, vgpu_stream stream);
int vgpu_memset(struct vgpu *vgpu, void *to, int value, size_t bytes);
int vgpu_memset_async(struct vgpu *vgpu, void *to, int value, size_t bytes, vgpu_stream stream);

// A launch. Initialise with VGPU_LAUNCH_INIT.
struct vgpu_launch_config {
    size_t size;
    void *function;            // a CUfunction, CUkernel or cudaKernel_t
    const void *host_function; // or the CUDA runtime's handle of a kernel: the address of a __global__ function
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t shared_bytes;
    uint32_t reserved; // 0
    vgpu_stream stream;
    void **args;
};

#define VGPU_LAUNCH_INIT                                                                                                       \
    {                                                                                                                          \
        sizeof(struct vgpu_launch_config), NULL, NULL, {1, 1, 1}, {1, 1, 1}, 0, 0, NULL, NULL                                  \
    }

// Launches a kernel in the virtual GPU's turn, waiting for the turn as long as it takes.
int vgpu_launch(struct vgpu *vgpu, const struct vgpu_launch_config *launch);

// For GPU work launched by other means on the virtual GPU's streams: from vgpu_enter to vgpu_leave this thread works in the
// virtual GPU's turn. The calls nest. Keep it short: the turn does not end in between.
int vgpu_enter(struct vgpu *vgpu);
int vgpu_leave(struct vgpu *vgpu);

// Tasks: host functions that issue GPU work on the virtual GPU's streams, by whatever calls. They run one after another on a
// thread of the virtual GPU, in its turns: two virtual GPUs with queued tasks alternate by weight. A task is done when its
// function has returned; the work that it launched continues in the order of the streams.
struct vgpu_task;
typedef int vgpu_task_function(struct vgpu *vgpu, void *argument);

// Queues a task. If as many tasks wait as the configuration allows, it waits for room or, in a turn, returns -EAGAIN. `task`
// may be NULL; otherwise the caller must call vgpu_task_release, which does not affect the task itself.
int vgpu_submit(struct vgpu *vgpu, vgpu_task_function *function, void *argument, struct vgpu_task **task);
// Waits until the task is done; a negative timeout waits without limit, 0 only polls. `result` (may be NULL) is what the
// function returned; if that is negative, vgpu_detail returns what it said in the task. -ETIMEDOUT, -ECANCELED; -EDEADLK: in a
// turn, unless it only polls.
int vgpu_task_wait(struct vgpu_task *task, int64_t timeout_ns, int *result);
// Cancels a task that has not begun. -EBUSY: it has begun; -EALREADY: it is done.
int vgpu_task_cancel(struct vgpu_task *task);
void vgpu_task_release(struct vgpu_task *task);

// Shared regions: named memory on the GPU that virtual GPUs of several programs map. A region is charged once, to the virtual
// GPU that made it; when that goes, to one that still maps it, whether it has room or not. The memory lives until the last
// mapping is closed. The rules for names are those of virtual GPUs; each pool has one set of names.
struct vgpu_region;
enum vgpu_region_flags { VGPU_REGION_READONLY = 1 }; // kernels and copies through this mapping cannot write

// Makes a region of `bytes`, rounded up to 2 MiB, with undefined contents. -EEXIST: the name is taken.
int vgpu_region_create(struct vgpu *vgpu, const char *name, size_t bytes, struct vgpu_region **region);
// Maps a region. -ENOENT: no such region; -EPERM: it is another user's; -ENODEV: it is on another GPU.
int vgpu_region_open(struct vgpu *vgpu, const char *name, unsigned flags, struct vgpu_region **region);
// Unmaps it, after the work on the virtual GPU's streams. Close regions before you destroy their virtual GPU (else -EBUSY
// there).
int vgpu_region_close(struct vgpu_region *region);
// Removes the name: the region can no longer be opened, and the name is free. Existing mappings stay.
int vgpu_region_unlink(struct vgpu *vgpu, const char *name);
void *vgpu_region_pointer(const struct vgpu_region *region);
size_t vgpu_region_bytes(const struct vgpu_region *region);

// Synchronisation on a shared region. A region has a generation, initially 0. vgpu_region_publish raises it, on behalf of the
// work submitted to the stream until now. vgpu_region_await waits until the generation is above `seen` and makes the stream
// wait for the work that the newest generation stands for. *generation is the newest. Timeouts as in vgpu_task_wait;
// -ETIMEDOUT.
int vgpu_region_publish(struct vgpu_region *region, vgpu_stream stream, uint64_t *generation);
int vgpu_region_await(struct vgpu_region *region, vgpu_stream stream, uint64_t seen, int64_t timeout_ns, uint64_t *generation);

// Figures of a virtual GPU. Initialise with VGPU_STATS_INIT. Units are bytes and nanoseconds; sums count from its creation.
struct vgpu_instance_stats {
    size_t size;
    char name[64];
    char device_uuid[48];
    uint32_t weight;
    uint32_t limit_percent;
    uint32_t priority;
    uint32_t processes;  // slots of its members: one for each program under the preload library, one for each handle of the API
    uint64_t quantum_us; // 0: chosen by the scheduler
    uint64_t quota_bytes; // 0: none
    uint64_t used_bytes;  // of the quota, in chunks
    uint64_t peak_bytes;
    uint64_t refusals; // allocations refused for the quota
    uint64_t refused_bytes;
    uint64_t launches;   // a task or a turn counts as one
    uint64_t grants;     // turns
    uint64_t held_ns;    // of the GPU's time
    uint64_t charged_ns; // of that, while others waited: what shares are made of
    uint64_t waits;      // launches that had to wait
    uint64_t waited_ns;
    uint64_t overruns; // turns that ended with work still under way
    // Of this handle alone; 0 in vgpu_each.
    uint64_t heap_bytes;  // the part of used_bytes that its heap has
    uint64_t live_bytes;  // the part of heap_bytes that is allocated
    uint64_t allocations; // live ones
    uint64_t tasks_waiting;
    uint64_t tasks_finished;
};

#define VGPU_STATS_INIT                                                                                                        \
    {                                                                                                                          \
        sizeof(struct vgpu_instance_stats), "", "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0           \
    }

// Figures of a physical GPU of the pool.
struct vgpu_gpu_stats {
    size_t size;
    char name[64];
    char uuid[48];
    uint64_t total_bytes;
    uint64_t reserved_bytes; // the sum of the quotas on it
    uint64_t open_bytes;     // held by virtual GPUs without a quota
    uint64_t context_bytes;  // what one CUDA context takes
    uint32_t virtual_gpus;
    uint32_t reserved; // 0
};

// Reading never waits and holds nobody up.
int vgpu_stats(struct vgpu *vgpu, struct vgpu_instance_stats *stats);
// Calls `visit` for every virtual GPU of the pool, whatever program made it, until `visit` returns nonzero, which is then the
// result. The figures are from one moment. Works without a virtual GPU of one's own; a missing pool is no error.
int vgpu_each(int (*visit)(const struct vgpu_instance_stats *stats, void *argument), void *argument);
int vgpu_each_gpu(int (*visit)(const struct vgpu_gpu_stats *stats, void *argument), void *argument);

// What an error means, as static text; never NULL.
const char *vgpu_strerror(int error);
// What went wrong in the last call on this thread that failed: one line, valid until the next call fails; "" if none has
// failed.
const char *vgpu_detail(void);
// The library's version, as text.
const char *vgpu_version(void);

#ifdef __cplusplus
}
#endif

#endif
