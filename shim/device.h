// SPDX-License-Identifier: AGPL-3.0-or-later
// The GPUs that this process sees: for each, what the process holds of its memory, and the process's gate to it.
//
// Invariants
//  - Attach fills the table once and publishes it whole; it then stays unchanged until the process ends. A forked child starts
//    with an empty one: its head is on a page that the kernel wipes in a child (Linux 4.14), since no fork handler runs in a
//    child made by _Fork or a bare system call, and the pool that the devices point into is not mapped there.
//  - An empty table means: not attached. Then nothing may be allocated or launched, whether cuInit was refused or never called.
//  - `device_of_thread` is the device of the thread's current context, or NULL: not known. Every hook that changes the current
//    context resets it. With one visible device it is not used.
// Thread safe, except device_table_publish and device_table_reset, which belong to attach.
#ifndef VGPU_SHIM_DEVICE_H
#define VGPU_SHIM_DEVICE_H

#include "shim/hooks.h"

#include "allocator/holdings.h"
#include "options/options.h"
#include "scheduler/gate.h"

#define DEVICE_MAX OPTIONS_MAX_DEVICES

struct mark;

struct device {
    CUdevice ordinal;
    uint8_t uuid[POOL_UUID_BYTES];
    char name[POOL_NAME_BYTES];
    uint64_t physical_bytes;
    struct holdings holdings;
    struct gate gate;
    struct mark *fence; // marks not yet seen complete; see shim/gpu_ops.c
};

// The architecture's largest page size: the alignment of data that must be alone on its pages.
#ifdef __x86_64__
#define DEVICE_PAGE_BYTES 4096
#else
#define DEVICE_PAGE_BYTES 65536
#endif

struct device_table {
    _Alignas(DEVICE_PAGE_BYTES) struct device *_Atomic only; // the device if exactly one is visible, else NULL
    _Atomic int count;                                       // 0: not attached
    _Alignas(DEVICE_PAGE_BYTES) struct device devices[DEVICE_MAX];
};

extern struct device_table device_table;
extern __thread struct device *device_of_thread;

// Makes the first `count` devices visible to the hooks. Pairs with the acquire loads of the readers.
void device_table_publish(int count);

// Back to not attached, for a forked child.
void device_table_reset(void);

static inline bool device_attached(void)
{
    return atomic_load_explicit(&device_table.count, memory_order_acquire) > 0;
}

static inline bool device_several(void)
{
    return atomic_load_explicit(&device_table.count, memory_order_relaxed) > 1;
}

// The device with this ordinal; NULL if there is none or the process is not attached.
struct device *device_of(CUdevice ordinal);

// Asks the driver for the device of the current context. NULL: none is current.
struct device *device_find_current(void);

// The error for a call that needs a device when device_current() found none: CUDA_ERROR_NOT_INITIALIZED while not attached,
// else the driver's error for the missing context.
CUresult device_absent(void);

// The device of the current context, or NULL. No lock, and with one visible device no driver call.
static inline struct device *device_current(void)
{
    struct device *device = atomic_load_explicit(&device_table.only, memory_order_acquire);
    if (__builtin_expect(device != NULL, 1))
        return device;
    device = device_attached() ? device_of_thread : NULL;
    return device ? device : device_find_current();
}

// To be called when the current context of this thread has changed.
static inline void device_forget_current(void)
{
    device_of_thread = NULL;
}

// The device of a stream; NULL: unknown, as the driver will say. Leaves the thread's current context as it was.
struct device *device_of_stream(CUstream stream);

// The device on which a graph that is launched into a stream runs, and whose current pool cuMemAllocAsync means: the stream's,
// whatever context is current. NULL: neither is known.
static inline struct device *device_behind(CUstream stream)
{
    struct device *device = __builtin_expect(device_several(), 0) ? device_of_stream(stream) : NULL;
    return device ? device : device_current();
}

// Returns to the driver what stream-ordered pools and the heaps of VGPU_ALLOCATOR=chunk hold without using it. Returns whether
// anything came free. Takes their locks.
bool device_reclaim(struct device *device);

// Takes `bytes` of the quota. Before it refuses, it calls device_reclaim. Returns 0 or -ENOMEM.
int device_take(struct device *device, uint64_t bytes);

// Counts and logs a refused request; returns CUDA_ERROR_OUT_OF_MEMORY.
CUresult device_refuse(struct device *device, uint64_t bytes, const char *function);

// Whether no quota could be enough: then the driver refuses as well, with its own error for sizes that make no sense.
bool device_exceeded(const struct device *device, uint64_t bytes);

// For a request that the ledger has granted but for which the driver is out of memory. If the memory may be that of a process
// that died a moment ago and is still on its way back, sleeps a little and returns true: ask again. *deadline_ns starts at 0.
bool device_retry(const struct device *device, CUresult result, uint64_t *deadline_ns);

// The value of `call`, which asks the driver for memory that the ledger has granted on the device. The call is repeated while
// device_retry says so; without a device it is made once.
#define DEVICE_ASK(device, call)                                                                                               \
    (__extension__({                                                                                                           \
        uint64_t ask_deadline_ns = 0;                                                                                          \
        CUresult ask_rc;                                                                                                       \
        do                                                                                                                     \
            ask_rc = (call);                                                                                                   \
        while ((device) && device_retry((device), ask_rc, &ask_deadline_ns));                                                  \
        ask_rc;                                                                                                                \
    }))

// What the tenant is told: total and free bytes of the quota. The driver may have less free.
struct holdings_view device_view(const struct device *device);

// What one context takes on this device.
uint64_t device_context_bytes(const struct device *device);

#endif
