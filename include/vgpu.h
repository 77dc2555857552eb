// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu: virtual GPUs inside one program.
//
// A program makes as many virtual GPUs as it wants. Each has a memory quota and a share of GPU time of its own, and they meet the virtual
// GPUs of all other programs in the same pool and ring, those of unmodified programs under libvgpu_shim.so included.
//
//  - Functions return 0, or a negative errno value: vgpu_strerror says what it means, vgpu_detail what happened in this call.
//    A call that fails has changed nothing, unless its page says otherwise.
//  - All functions may be called from any thread at any time, but for the handle that is being destroyed or released. They leave errno
//    and the thread's current CUDA context as they were.
//  - Device pointers are void *, streams CUstream (cudaStream_t): what the driver API and the CUDA runtime have, in the primary context of
//    the device. This header needs none of CUDA's.
//  - A child made by fork has no virtual GPUs: -ECHILD.
//
// Link with -lvgpu; `pkg-config --cflags --libs vgpu` says the rest. Every function has a man page: vgpu_create(3) and so on.
#ifndef VGPU_H
#define VGPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vgpu; // a virtual GPU, as one part of a program sees it
struct CUstream_st;
typedef struct CUstream_st *vgpu_stream;

// Classes: a higher one goes before all lower ones; weights count within a class.
enum vgpu_priority { VGPU_PRIORITY_LOW = 1, VGPU_PRIORITY_NORMAL = 2, VGPU_PRIORITY_HIGH = 3 };

// What a virtual GPU is to be. Begin with VGPU_CONFIG_INIT: a program and a library that know different versions of this structure
// understand each other by its size.
struct vgpu_config {
    size_t size;
    const char *name;        // 1 to 48 characters out of A-Z a-z 0-9 . _ -; NULL: named after the process
    const char *device_uuid; // GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx; NULL: by `device`
    int32_t device;          // ordinal, as the program counts its GPUs
    uint32_t weight;         // share of GPU time, 1 to 10000; 0: 100
    uint64_t memory_bytes;   // quota, rounded down to whole chunks; 0: none, it lives on what nobody has reserved
    uint64_t quantum_us;     // length of a turn at equal weights, 1000 to 1000000; 0: chosen by the scheduler
    uint32_t limit_percent;  // most of the GPU's time, 1 to 100, also while nobody else wants it; 0: no limit
    uint32_t priority;       // one of enum vgpu_priority; 0: VGPU_PRIORITY_NORMAL
    uint32_t queue_tasks;    // tasks that may wait at once, vgpu_submit(3); 0: 1024
    uint32_t concurrency;    // how many virtual GPUs may run at a time when this one does, 1 to 64, where all of them allow it; 0: 1
};

#define VGPU_CONFIG_INIT                                                                                                       \
    {                                                                                                                          \
        sizeof(struct vgpu_config), NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0                                                         \
    }

// Makes a new virtual GPU. -EEXIST: the name is taken on that GPU.
int vgpu_create(const struct vgpu_config *config, struct vgpu **vgpu);
// Joins an existing one, made by whatever program: what `config` gives beside name and device must agree with it. -ENOENT: no such name.
int vgpu_open(const struct vgpu_config *config, struct vgpu **vgpu);
// Changes a living virtual GPU for all its members: what `config` gives besides name, device and queue_tasks; 0 leaves a value as it is.
// -EBUSY: less memory than is in use.
int vgpu_change(struct vgpu *vgpu, const struct vgpu_config *config);
// Runs the queued tasks to their end, waits for the work on all its streams, and gives everything back. Fails only with -EBUSY
// (it has regions open), -EDEADLK (called in a turn) and -ECHILD.
int vgpu_destroy(struct vgpu *vgpu);

// Streams. Each virtual GPU has one of its own, which NULL means everywhere, and can have VGPU_MAX_STREAMS in all. They are non-blocking:
// never ordered against the default streams.
#define VGPU_MAX_STREAMS 64
vgpu_stream vgpu_own_stream(const struct vgpu *vgpu);
int vgpu_stream_create(struct vgpu *vgpu, vgpu_stream *stream);
// Waits for the work on it first.
int vgpu_stream_destroy(struct vgpu *vgpu, vgpu_stream stream);
// Waits for the work on `stream`; NULL: on all of the virtual GPU's streams.
int vgpu_synchronize(struct vgpu *vgpu, vgpu_stream stream);

// Memory, from the virtual GPU's heap of whole chunks; aligned to 256 bytes, or as asked to a power of two up to 2 MiB.
// Memory freed by vgpu_free serves again when all work that was given to the virtual GPU's streams by then, by these functions or in a
// turn, is complete; memory freed by vgpu_free_async, in the order of the stream. -ENOMEM: the quota. Freeing NULL does nothing; a pointer that is none of this virtual
// GPU's (-ENOENT), lies inside an allocation (-EFAULT) or is freed already (-EALREADY) is refused, and nothing is lost.
int vgpu_malloc(struct vgpu *vgpu, size_t bytes, void **pointer);
int vgpu_malloc_aligned(struct vgpu *vgpu, size_t bytes, size_t alignment, void **pointer);
int vgpu_malloc_async(struct vgpu *vgpu, size_t bytes, vgpu_stream stream, void **pointer);
int vgpu_free(struct vgpu *vgpu, void *pointer);
int vgpu_free_async(struct vgpu *vgpu, void *pointer, vgpu_stream stream);
// What is free and what there is, in bytes: the quota, or what nobody has reserved.
int vgpu_mem_info(struct vgpu *vgpu, size_t *free_bytes, size_t *total_bytes);

// Copies and fills between any two of host and device, on the virtual GPU's own stream and waiting for it, or on any of its streams.
int vgpu_memcpy(struct vgpu *vgpu, void *to, const void *from, size_t bytes);
int vgpu_memcpy_async(struct vgpu *vgpu, void *to, const void *from, size_t bytes, vgpu_stream stream);
int vgpu_memset(struct vgpu *vgpu, void *to, int value, size_t bytes);
int vgpu_memset_async(struct vgpu *vgpu, void *to, int value, size_t bytes, vgpu_stream stream);

// A launch. Begin with VGPU_LAUNCH_INIT.
struct vgpu_launch_config {
    size_t size;
    void *function;            // a CUfunction, CUkernel or cudaKernel_t
    const void *host_function; // or what the CUDA runtime calls a kernel by: the address of a __global__ function
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

// Launches a kernel in the virtual GPU's turn, waiting for that as long as it takes.
int vgpu_launch(struct vgpu *vgpu, const struct vgpu_launch_config *launch);

// Around GPU work that is launched by other means on the virtual GPU's streams: from vgpu_enter to vgpu_leave this thread works in its
// turn. These nest. Keep it short: a turn does not end inside.
int vgpu_enter(struct vgpu *vgpu);
int vgpu_leave(struct vgpu *vgpu);

// Tasks: host functions that issue GPU work on the virtual GPU's streams, by whatever calls. They run one after another on a thread of the
// virtual GPU, each in its turn: two virtual GPUs with queued tasks alternate by weight. A task is done when its function has
// returned; what it launched goes on in the order of the streams.
struct vgpu_task;
typedef int vgpu_task_function(struct vgpu *vgpu, void *argument);

// Queues a task. Waits for room while as many wait as the configuration allows; in a turn, -EAGAIN instead. `task` may be NULL; else
// vgpu_task_release follows, which does not touch the task itself.
int vgpu_submit(struct vgpu *vgpu, vgpu_task_function *function, void *argument, struct vgpu_task **task);
// Waits until the task is done; a negative time-out means for as long as it takes. `result` (may be NULL) is what the function returned;
// where that is negative, vgpu_detail says what it said in the task. -ETIMEDOUT, -ECANCELED; -EDEADLK in a turn.
int vgpu_task_wait(struct vgpu_task *task, int64_t timeout_ns, int *result);
// Takes a task back that has not begun. -EBUSY: it has; -EALREADY: it is done.
int vgpu_task_cancel(struct vgpu_task *task);
void vgpu_task_release(struct vgpu_task *task);

// Shared regions: named memory on the GPU that virtual GPUs of several programs map. It is charged once, to the virtual GPU that made it, and
// where that goes, to one that still has it, whether it has room or not. The memory lives until the last has closed it. Names are those of
// virtual GPUs, one set for each pool.
struct vgpu_region;
enum vgpu_region_flags { VGPU_REGION_READONLY = 1 }; // kernels and copies through this mapping cannot write

// Makes a region of `bytes`, rounded up to 2 MiB, filled with nothing in particular. -EEXIST: the name is taken.
int vgpu_region_create(struct vgpu *vgpu, const char *name, size_t bytes, struct vgpu_region **region);
// Maps one. -ENOENT: no such region; -EPERM: it is another user's; -ENODEV: it is on another GPU.
int vgpu_region_open(struct vgpu *vgpu, const char *name, unsigned flags, struct vgpu_region **region);
// Unmaps it, after the work on the virtual GPU's streams. Regions are closed before their virtual GPU is destroyed (else -EBUSY there).
int vgpu_region_close(struct vgpu_region *region);
// Takes the name away: nobody can open the region any more, and the name is free. Who has it keeps it.
int vgpu_region_unlink(struct vgpu *vgpu, const char *name);
void *vgpu_region_pointer(const struct vgpu_region *region);
size_t vgpu_region_bytes(const struct vgpu_region *region);

// Synchronisation of those who share a region: it has a generation, 0 at first. vgpu_region_publish raises it, for what was given to the
// stream until now; vgpu_region_await waits until the generation is above `seen` and makes the stream wait for the work that the
// newest stands for. *generation is the newest. Time-outs as in vgpu_task_wait; -ETIMEDOUT.
int vgpu_region_publish(struct vgpu_region *region, vgpu_stream stream, uint64_t *generation);
int vgpu_region_await(struct vgpu_region *region, vgpu_stream stream, uint64_t seen, int64_t timeout_ns, uint64_t *generation);

// Figures of a virtual GPU. Begin with VGPU_STATS_INIT. Bytes and nanoseconds; sums are since it was made.
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
    // Of this handle alone; 0 where vgpu_each tells of it.
    uint64_t heap_bytes;  // what its heap has of used_bytes
    uint64_t live_bytes;  // what of that is allocated
    uint64_t allocations; // alive
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

// Reading never waits for anybody and holds nobody up.
int vgpu_stats(struct vgpu *vgpu, struct vgpu_instance_stats *stats);
// Calls `visit` for every virtual GPU of the pool, whatever program made it, until it returns other than 0, which is then the result. The
// figures are of one moment. Also without a virtual GPU of one's own; no pool is no error.
int vgpu_each(int (*visit)(const struct vgpu_instance_stats *stats, void *argument), void *argument);
int vgpu_each_gpu(int (*visit)(const struct vgpu_gpu_stats *stats, void *argument), void *argument);

// What an error means, as static text; never NULL.
const char *vgpu_strerror(int error);
// What happened in the last call on this thread that failed: one line, valid until the next one fails; "" where none has.
const char *vgpu_detail(void);
// The library's version, as text.
const char *vgpu_version(void);

#ifdef __cplusplus
}
#endif

#endif
