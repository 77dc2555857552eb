// SPDX-License-Identifier: AGPL-3.0-or-later
// Arrays and mipmapped arrays. Needs the API lock.
//
// An array has a capacity and no contents: its elements one after the other, and those of all its levels. Sparse arrays and those
// with deferred mapping take no memory; what is mapped into them lives at least until it is unmapped or they are destroyed.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_ARRAY_H
#define SIMGPU_DRIVER_ARRAY_H

#include "simgpu/driver/api.h"
#include "simgpu/driver/handle.h"

struct CUctx_st;
struct physical;

// A region of an array that has memory.
struct tile {
    struct tile *next;
    CUarrayMapInfo info;
    struct physical *physical;
};

struct array_memory {
    size_t bytes;
    uintptr_t base; // of the allocation that pays for it; 0: none
    uint64_t allocation_id;
    bool deferred; // mapped as a whole
    struct tile *tiles;
};

struct CUarray_st {
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    struct array_memory memory;
};

struct CUmipmappedArray_st {
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    unsigned levels;
    struct array_memory memory;
    struct CUarray_st *level[16]; // made on demand, without memory of their own
};

// The size of one level; CUDA_ERROR_INVALID_VALUE for a description that makes no sense.
CUresult array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, size_t *bytes);

// Gives a new array its memory and lists it as a handle of that kind, or leaves nothing.
CUresult array_memory_take(struct CUctx_st *ctx, unsigned flags, struct array_memory *memory, void *array,
                           enum handle_kind kind);
void array_memory_free(struct array_memory *memory);

// What an array with deferred mapping needs; CUDA_ERROR_INVALID_VALUE for others.
CUresult array_requirements(const struct array_memory *memory, unsigned flags, CUDA_ARRAY_MEMORY_REQUIREMENTS *out);

#endif
