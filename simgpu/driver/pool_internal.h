// The inside of a memory pool, shared by pool.c and pool_api.c.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_POOL_INTERNAL_H
#define SIMGPU_DRIVER_POOL_INTERNAL_H

#include "simgpu/driver/pool.h"

enum pool_state {
    POOL_FREE,
    POOL_USED,
    POOL_PENDING, // freed in a stream that has not got there
};

struct pool_block {
    struct pool_block *next; // in order of offset, without gaps
    size_t offset, bytes;
    enum pool_state state;
    struct CUstream_st *stream; // of a pending block
    uint64_t sequence;
};

struct pool_segment {
    struct pool_segment *next;
    uintptr_t base;
    size_t bytes;
    struct pool_block *blocks;
};

struct CUmemPoolHandle_st {
    struct CUmemPoolHandle_st *next; // in device->pools
    struct device *device;
    unsigned references; // the handle, every allocation, every queued free
    bool destroyed;
    bool shareable; // may be exported
    bool imported;  // another process's: nothing is allocated from it
    int reuse[3];   // the reuse policies, kept for who asks
    uint64_t release_threshold, max_bytes;
    uint64_t reserved, reserved_high, used, used_high;
    struct pool_segment *segments;
};

// Gives wholly free segments back until at most `keep` bytes are reserved.
void pool_trim(struct CUmemPoolHandle_st *pool, uint64_t keep);

#endif
