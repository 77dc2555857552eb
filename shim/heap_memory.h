// SPDX-License-Identifier: AGPL-3.0-or-later
// VGPU_ALLOCATOR=chunk: cuMemAlloc and cuMemAllocPitch are served from a heap of this library's own (allocator/heap.h), one for
// each context, rather than by the driver.
//
// What the program can tell of it
//  - cuMemFree does not wait for the GPU. It is safe all the same: the memory is given out again only when the work that was
//    queued at the free is done.
//  - The memory cannot be exported by cuIpcGetMemHandle, and peers have no access to it. That it is mapped from handles is not told: it would
//    stay with the GPU after the heap has given it back.
//  - While a stream is being captured, allocations are the driver's.
// Anything that goes wrong with a heap as such (no address space, a driver without what it takes) leaves the context to the
// driver, with one warning.
//
// Thread safe. Lock order: the table's lock here, then the heap's, then the streams', contexts' and holdings'. It is held for
// reading while a heap is used.
#ifndef VGPU_SHIM_HEAP_MEMORY_H
#define VGPU_SHIM_HEAP_MEMORY_H

#include "allocator/heap.h"
#include "shim/device.h"

// Called by attach, before anything is allocated.
void heap_memory_enable(bool enable);

// Serves an allocation in the current context. false: it is the driver's.
bool heap_memory_alloc(CUdeviceptr *pointer, size_t bytes, const char *function, CUresult *result);
// Frees one. false: the address is none of a heap's.
bool heap_memory_free(CUdeviceptr address, CUresult *result);

// An address that the driver knows nothing of: by this one it is asked about what is not allocated (any more), or not by itself.
#define HEAP_MEMORY_NOWHERE ((CUdeviceptr)4096)

// What a heap knows of an address. Returns -ENOENT where it is none of a heap's, -EALREADY where nothing is allocated there
// now, or 0.
int heap_memory_find(CUdeviceptr address, struct heap_piece *piece, CUcontext *context);

// What the tenant is told: as device_view, but what the heaps hold without using it is free. *spare_bytes is how much that is; to the
// driver it is in use.
struct holdings_view heap_memory_view(const struct device *device, uint64_t *spare_bytes);
// Gives that back. Returns whether anything came free.
bool heap_memory_reclaim(struct device *device);

// After the end of a context: its heap goes with it.
void heap_memory_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void heap_memory_reset(void);

// The heap's view of a context on a device; shim/heap_gpu.c.
struct heap_place {
    CUcontext context;
    struct device *device;
};
extern const struct heap_gpu heap_gpu_cuda __attribute__((visibility("hidden")));

#endif
