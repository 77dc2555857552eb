// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory pools: stream-ordered allocation. Needs the API lock.
//
// A pool holds physical memory in segments of whole 32 MiB steps and cuts blocks out of them. A block that was freed in a
// stream is free for that stream's later allocations at once, since they come after it in stream order, and for everybody else
// when the stream has got there. What lies in wholly free segments above the release threshold goes back at synchronisation.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_POOL_H
#define SIMGPU_DRIVER_POOL_H

#include "simgpu/driver/api.h"

struct CUstream_st;
struct allocation;
struct device;

// A pool with one reference, in the device's list. NULL when memory is short.
struct CUmemPoolHandle_st *pool_new(struct device *device);
void pool_retain(struct CUmemPoolHandle_st *pool);
void pool_release(struct CUmemPoolHandle_st *pool);

CUresult pool_alloc(struct CUmemPoolHandle_st *pool, struct CUstream_st *stream, size_t bytes, CUdeviceptr *ptr);

// Frees an allocation of a pool in stream order, or at once when nothing uses it any more.
CUresult pool_free_async(struct allocation *allocation, struct CUstream_st *stream);
void pool_free_now(struct allocation *allocation);

// The stream has reached the free that was queued with this sequence number.
void pool_free_reached(struct CUmemPoolHandle_st *pool, struct CUstream_st *stream, uint64_t sequence);

// Gives back what the pools of a device hold above their thresholds; or everything, allocations included.
void pool_trim_device(struct device *device);
void pool_reset_device(struct device *device);

#endif
