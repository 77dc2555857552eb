// SPDX-License-Identifier: AGPL-3.0-or-later
// A heap in GPU memory: physical memory in whole blocks of 2 MiB, mapped into address ranges of the heap's own and handed out
// in pieces from 256 bytes up. Knows no CUDA: it sees a GPU through struct heap_gpu.
//
// Addresses and physical memory are separate. Addresses are plentiful: many times the GPU's memory is reserved once. Physical
// memory is scarce: it comes in extents, each one handle of the driver, mapped where the heap wants to grow, and goes back when
// no piece of it is in use. So a hole between two pieces is not lost: its whole extents serve elsewhere. Small, medium and
// large sizes each have a range of addresses, a zone, so that long-lived small pieces don't keep the extents of large ones from
// going back. Inside a zone: good fit, to within a sixteenth, by size classes, with immediate coalescing. If nothing fits, the
// zone grows at the hole that needs the fewest new blocks.
//
// Order of GPU work. An allocation is for one stream or, with HEAP_ANY_STREAM, for all. A free names the stream behind whose
// work the piece is free. Allocations for the same stream get it at once, since their work comes later in the stream; all
// others, and extents that go back, only once a mark put behind that work is done. Marks are put when the memory is needed, not
// at every free: a later mark stands behind more. Nor are they put for little memory: a mark costs as much as four allocations
// (1.1 us on an H100, where it is done at once if the GPU is idle), so the heap rather grows by a part of its reserve. A free
// for HEAP_ANY_STREAM waits for a mark behind all work of the GPU's context, or for nothing while that is known to be idle.
//
// Invariants (heap_check verifies those that concern the books)
//  - Every address of a zone is in exactly one piece: used, free (mapped) or a hole (not mapped). Extents cover the used and
//    free ones, and nothing else. Neighbours of one kind and stream are one piece, except used ones and those that were freed
//    for HEAP_ANY_STREAM before and after a mark.
//  - Nothing is kept in GPU memory: what a kernel overwrites can't harm the books.
//  - Physical memory is charged by memory_create before it exists and given back by memory_release after it is gone.
//  - After each free, what lies free in whole extents or waits for work is at most the reserve, as far as the work is done: a
//    sixteenth of what is in use, less what is stuck in partly used extents; or the floor of the configuration, if that is
//    more. heap_trim gives it back earlier.
//  - A refused or wrong call changes nothing.
// Thread safe, except heap_destroy. Lock order: grow, then books; both are the heap's own. The operations for physical memory
// and mark_put are called under `grow`, is_idle under books, mark_done and mark_drop under both: none of them may call the
// heap. No thread waits for the GPU under a lock. Host memory: about 100 bytes for each piece.
#ifndef VGPU_ALLOCATOR_HEAP_H
#define VGPU_ALLOCATOR_HEAP_H

#include <stdbool.h>
#include <stdint.h>

// The unit of physical memory, and of what the driver maps.
#define HEAP_BLOCK_BYTES (2ull << 20)
// The unit of sizes, and the least alignment.
#define HEAP_UNIT_BYTES 256ull
// The floor of the reserve if the configuration says 0: two allocations of the largest size that should be quick, 64 MiB.
#define HEAP_RESERVE_BYTES (128ull << 20)

// As a stream: any of them, or all.
#define HEAP_ANY_STREAM ((void *)-1)

// What the heap needs from a GPU. Functions that can fail return 0 or -errno. Sizes and addresses are whole blocks.
struct heap_gpu {
    // Address space. Asked for once, when the heap is made.
    int (*range_reserve)(void *gpu, uint64_t bytes, uint64_t *address);
    void (*range_release)(void *gpu, uint64_t address, uint64_t bytes);

    // Whether there is room for `bytes` more, as far as is known: avoids taking most of a large growth only to give it back.
    // May be NULL.
    bool (*memory_fits)(void *gpu, uint64_t bytes);
    // Physical memory: charges it and makes it. -ENOMEM: the quota or the GPU has no room.
    int (*memory_create)(void *gpu, uint64_t bytes, uint64_t *handle);
    void (*memory_release)(void *gpu, uint64_t handle, uint64_t bytes);

    // Maps a handle, whole. map_open, called once for several mappings side by side, lets the GPU read and write them.
    // Unmapping is asked for mapping by mapping.
    int (*map)(void *gpu, uint64_t address, uint64_t bytes, uint64_t handle);
    int (*map_open)(void *gpu, uint64_t address, uint64_t bytes);
    int (*unmap)(void *gpu, uint64_t address, uint64_t bytes);

    // A mark behind all work given to `stream` so far, or with HEAP_ANY_STREAM to the whole context. Called on any thread.
    // NULL: cannot now (a capture is under way, out of memory).
    void *(*mark_put)(void *gpu, void *stream);
    // Whether everything before the mark is complete. An error counts as complete: work that failed is over.
    bool (*mark_done)(void *gpu, void *mark);
    void (*mark_drop)(void *gpu, void *mark);
    // Whether all work of the GPU's context is known to be complete, without asking the driver: what is then freed for
    // HEAP_ANY_STREAM is free for all. Leaves errno as it is, as the heap's functions do. May be NULL.
    bool (*is_idle)(void *gpu);
};

struct heap_config {
    const struct heap_gpu *ops;
    void *gpu;               // passed to the operations
    uint64_t capacity_bytes; // the most physical memory that the heap can ever have: the GPU's, not the quota
    uint64_t reserve_bytes;  // the floor of the reserve; 0: HEAP_RESERVE_BYTES
};

struct heap_stats {
    uint64_t live_bytes;        // in use, as asked for
    uint64_t live_count;        // allocations
    uint64_t physical_bytes;    // mapped, all of it charged
    uint64_t idle_bytes;        // the part of these in whole extents that are free
    uint64_t waiting_bytes;     // freed, with work not yet known to be complete for all
    uint64_t created, released; // extents, since the heap was made
};

struct heap_piece {
    uint64_t address;
    uint64_t bytes; // as asked for
    uint64_t id;    // of the allocation, never reused in this process
};

struct heap;

// Makes an empty heap. Reserves address space, but takes no GPU memory. Returns 0, -EINVAL or -ENOMEM, or what range_reserve
// says.
int heap_create(const struct heap_config *config, struct heap **heap);

// Gives everything back at once: physical memory, address space, books. No work that uses the memory may be under way, and no
// other call.
void heap_destroy(struct heap *heap);

// Allocates `bytes` for work on `stream`. `alignment` is a power of two up to HEAP_BLOCK_BYTES; 0 means HEAP_UNIT_BYTES.
// Returns 0, -EINVAL (no bytes, wrong alignment), -ENOMEM, or another error of the GPU's operations. Before it refuses, it gives back what is free, and waits for work
// behind which memory was freed before the call. Before it grows, it waits some microseconds for such work if half of the
// reserve waits; an allocation for HEAP_ANY_STREAM waits as long as it takes if more than the reserve was freed for
// HEAP_ANY_STREAM and waits, as a synchronous free would have. Don't call it with a lock that this work needs.
int heap_alloc(struct heap *heap, uint64_t bytes, uint64_t alignment, void *stream, uint64_t *address);

// Frees an allocation behind the work given to `stream` until now (a stream that the caller has ordered behind every use).
// Returns 0, or
//     -ENOENT    the address is not in this heap
//     -EFAULT    it is inside an allocation, not its beginning
//     -EALREADY  nothing is allocated there (now)
int heap_free(struct heap *heap, uint64_t address, void *stream);

// The allocation that contains an address: same results as heap_free, except -EFAULT.
int heap_find(struct heap *heap, uint64_t address, struct heap_piece *piece);

// Whether an address is one of the heap's. No lock, a few instructions.
bool heap_owns(const struct heap *heap, uint64_t address);

// Before a stream is destroyed (its handle may then mean another stream): what was freed on it waits for a mark put now.
// `idle`: all work of the stream is known to be complete; then no mark is needed. Returns 0, or -EAGAIN if no mark can be put
// now: synchronise the stream, then call with `idle`.
int heap_stream_end(struct heap *heap, void *stream, bool idle);

// Gives free extents back, all but `keep_bytes`. Does not wait for work. Returns the bytes given back.
uint64_t heap_trim(struct heap *heap, uint64_t keep_bytes);

struct heap_stats heap_look(struct heap *heap);

// The physical bytes of wholly unused extents, waiting or not: what could be given back, or allocated in any size. Takes a few
// nanoseconds for each piece.
uint64_t heap_unused(struct heap *heap);

// For tests: verifies every invariant of the books. NULL, or what is wrong, in words. No other call may be under way.
const char *heap_check(struct heap *heap);

#endif
