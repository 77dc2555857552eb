// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory that graphs allocate. Needs the API lock.
//
// An allocation node has an address from the start. Physical memory comes with the first launch or upload of an executable graph that
// has the node, and is kept for its later launches until cuDeviceGraphMemTrim finds it unused, or everything that refers to it is gone.
// Two graphs never share memory here.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_GRAPH_MEMORY_H
#define SIMGPU_DRIVER_GRAPH_MEMORY_H

#include "simgpu/driver/api.h"

struct CUgraphExec_st;
struct CUstream_st;
struct device;
struct graph_memory;
struct allocation;

// An address for `bytes` on a device, with one reference.
CUresult graph_memory_new(struct device *device, size_t bytes, struct graph_memory **memory);
void graph_memory_retain(struct graph_memory *memory);
void graph_memory_release(struct graph_memory *memory);
CUdeviceptr graph_memory_address(const struct graph_memory *memory);

// Gives physical memory to all allocations of a graph that have none. With `launch` they are in use afterwards: until the graph's own
// free node has run, or, where it has none, until the program frees them; one that is still the program's fails the launch.
CUresult graph_memory_back(struct CUgraphExec_st *exec, bool launch);

// A queued free has run.
void graph_memory_freed(struct graph_memory *memory);

// The program frees memory that a launch has left it: in stream order, or with `stream` NULL at once.
CUresult graph_memory_free(struct allocation *allocation, struct CUstream_st *stream);

// Takes everything back when the last context of the device is gone.
void graph_memory_reset_device(struct device *device);

#endif
