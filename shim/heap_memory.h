// SPDX-License-Identifier: AGPL-3.0-or-later
// VGPU_ALLOCATOR=chunk: cuMemAlloc and cuMemAllocPitch are served by this library's own heap (allocator/heap.h), one per
// context, rather than by the driver.
//
// What the program can notice
//  - cuMemFree does not wait for the GPU. It is safe all the same: the memory is reused only when the work that was queued at
//    the free is done.
//  - The memory cannot be exported by cuIpcGetMemHandle, and peers have no access to it.
//  - cuMemRetainAllocationHandle does not hand out the handles that it is mapped from: a program that kept one would keep the
//    memory on the GPU after the heap has given it back.
//  - While a stream is being captured, allocations are the driver's.
// If a heap cannot work at all (no address space, a driver that lacks what it needs), the context is left to the driver, with
// one warning.
//
// Thread safe. Lock order: the table's lock here, then the heap's, then the streams', contexts' and holdings'. The table's lock
// is held for reading while a heap is used.
#ifndef VGPU_SHIM_HEAP_MEMORY_H
#define VGPU_SHIM_HEAP_MEMORY_H

#include "allocator/heap.h"
#include "shim/device.h"

// Called by attach, before anything is allocated.
void heap_memory_enable(bool enable);

// Serves an allocation in the current context. false: the driver must serve it.
bool heap_memory_alloc(CUdeviceptr *pointer, size_t bytes, const char *function, CUresult *result);
// Frees an allocation. false: the address is not in a heap.
bool heap_memory_free(CUdeviceptr address, CUresult *result);

// An address that the driver does not know, put in place of one that is not allocated (any more) or that the driver did not
// allocate itself, so that its answer is the right one.
#define HEAP_MEMORY_NOWHERE ((CUdeviceptr)4096)

// Looks an address up. Returns -ENOENT if it is not in a heap, -EALREADY if nothing is allocated there now, or 0.
int heap_memory_find(CUdeviceptr address, struct heap_piece *piece, CUcontext *context);

// What the tenant is told: as device_view, but what the heaps hold without using it counts as free. *spare_bytes is how much
// that is; to the driver it is in use.
struct holdings_view heap_memory_view(const struct device *device, uint64_t *spare_bytes);
// Gives those spare bytes back. Returns whether anything came free.
bool heap_memory_reclaim(struct device *device);

// After the end of a context: drops its heap.
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
