// SPDX-License-Identifier: AGPL-3.0-or-later
// A GPU for the heap's tests, made of books alone: physical memory up to a quota, mappings, and streams whose work is complete
// when the test says so. It notes whatever a real GPU would punish: mapping over a mapping, taking memory away that queued work
// still uses.
#ifndef VGPU_TESTS_FAKE_MEMORY_H
#define VGPU_TESTS_FAKE_MEMORY_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "allocator/heap.h"

#define FAKE_BASE 0x7f0000000000ull
#define FAKE_STREAMS 4

struct fake_handle {
    uint64_t bytes, address; // address 0: not mapped
    bool open;
};

// Work that uses memory: number `number` of a stream.
struct fake_use {
    uint64_t address, bytes, number;
    unsigned stream;
    struct fake_use *next;
};

struct fake_memory {
    pthread_mutex_t mutex;
    uint64_t quota_bytes, taken_bytes, peak_bytes;
    uint64_t handles, ranges, calls, creations;
    uint64_t given[FAKE_STREAMS], done[FAKE_STREAMS]; // work, by number
    int marks;
    int fail_in;        // the call after that many fails; -1: none
    bool marks_refused; // as during a capture
    bool tells_idle;    // and not only by marks
    bool advances;      // each question about a mark completes one piece of work of each stream
    const char *fault;
    struct fake_use *uses;
};

// Streams are their numbers, as pointers.
static inline void *fake_stream(unsigned number)
{
    return (void *)(uintptr_t)(number + 1);
}

struct fake_mark {
    uint64_t numbers[FAKE_STREAMS];
};

static inline void fake_note(struct fake_memory *gpu, bool good, const char *fault)
{
    if (!good && !gpu->fault)
        gpu->fault = fault;
}

static inline bool fake_fails(struct fake_memory *gpu)
{
    gpu->calls++;
    return gpu->fail_in >= 0 && gpu->fail_in-- == 0;
}

static int fake_range_reserve(void *context, uint64_t bytes, uint64_t *address)
{
    struct fake_memory *gpu = context;
    if (fake_fails(gpu))
        return -ENOMEM;
    gpu->ranges += bytes;
    *address = FAKE_BASE;
    return 0;
}

static void fake_range_release(void *context, uint64_t address, uint64_t bytes)
{
    struct fake_memory *gpu = context;
    fake_note(gpu, address == FAKE_BASE && bytes == gpu->ranges, "a range released that is not the one reserved");
    gpu->ranges -= bytes;
}

static bool fake_fits(void *context, uint64_t bytes)
{
    struct fake_memory *gpu = context;
    pthread_mutex_lock(&gpu->mutex);
    bool fits = bytes <= gpu->quota_bytes - gpu->taken_bytes;
    pthread_mutex_unlock(&gpu->mutex);
    return fits;
}

static int fake_create(void *context, uint64_t bytes, uint64_t *handle)
{
    struct fake_memory *gpu = context;
    int rc = -ENOMEM;
    pthread_mutex_lock(&gpu->mutex);
    fake_note(gpu, bytes && bytes % HEAP_BLOCK_BYTES == 0, "memory that is not whole blocks");
    if (!fake_fails(gpu) && bytes <= gpu->quota_bytes - gpu->taken_bytes) {
        struct fake_handle *made = calloc(1, sizeof *made);
        made->bytes = bytes;
        *handle = (uintptr_t)made;
        gpu->taken_bytes += bytes;
        if (gpu->taken_bytes > gpu->peak_bytes)
            gpu->peak_bytes = gpu->taken_bytes;
        gpu->handles++;
        gpu->creations++;
        rc = 0;
    }
    pthread_mutex_unlock(&gpu->mutex);
    return rc;
}

static void fake_release(void *context, uint64_t handle, uint64_t bytes)
{
    struct fake_memory *gpu = context;
    struct fake_handle *made = (struct fake_handle *)(uintptr_t)handle;
    pthread_mutex_lock(&gpu->mutex);
    fake_note(gpu, made->bytes == bytes && !made->address, "memory released while mapped, or by another size");
    gpu->taken_bytes -= made->bytes;
    gpu->handles--;
    free(made);
    pthread_mutex_unlock(&gpu->mutex);
}

// The mappings by block, for as many blocks as the tests' heaps have addresses.
#define FAKE_BLOCKS (1u << 20)
static struct fake_handle *fake_map_of[FAKE_BLOCKS];

static inline struct fake_handle **fake_block(uint64_t address)
{
    return &fake_map_of[(address - FAKE_BASE) / HEAP_BLOCK_BYTES];
}

static int fake_map(void *context, uint64_t address, uint64_t bytes, uint64_t handle)
{
    struct fake_memory *gpu = context;
    struct fake_handle *made = (struct fake_handle *)(uintptr_t)handle;
    pthread_mutex_lock(&gpu->mutex);
    bool fails = fake_fails(gpu);
    if (!fails) {
        fake_note(gpu, made->bytes == bytes && !made->address, "mapped twice, or in part");
        made->address = address;
        made->open = false;
        for (uint64_t at = address; at < address + bytes; at += HEAP_BLOCK_BYTES) {
            fake_note(gpu, !*fake_block(at), "mapped over a mapping");
            *fake_block(at) = made;
        }
    }
    pthread_mutex_unlock(&gpu->mutex);
    return fails ? -EIO : 0;
}

static int fake_map_open(void *context, uint64_t address, uint64_t bytes)
{
    struct fake_memory *gpu = context;
    pthread_mutex_lock(&gpu->mutex);
    bool fails = fake_fails(gpu);
    for (uint64_t at = address; !fails && at < address + bytes; at += HEAP_BLOCK_BYTES) {
        fake_note(gpu, *fake_block(at), "access to what is not mapped");
        if (*fake_block(at))
            (*fake_block(at))->open = true;
    }
    pthread_mutex_unlock(&gpu->mutex);
    return fails ? -EIO : 0;
}

// Notes a fault where work that is not complete uses part of a range, but for work of `except`. Forgets what is complete.
static inline void fake_unused(struct fake_memory *gpu, uint64_t address, uint64_t bytes, unsigned except, const char *fault)
{
    struct fake_use **link = &gpu->uses;
    while (*link) {
        struct fake_use *use = *link;
        if (use->number <= gpu->done[use->stream]) {
            *link = use->next;
            free(use);
            continue;
        }
        fake_note(gpu, use->stream == except || use->address >= address + bytes || address >= use->address + use->bytes, fault);
        link = &use->next;
    }
}

static int fake_unmap(void *context, uint64_t address, uint64_t bytes)
{
    struct fake_memory *gpu = context;
    pthread_mutex_lock(&gpu->mutex);
    bool fails = fake_fails(gpu);
    if (!fails) {
        struct fake_handle *made = *fake_block(address);
        fake_note(gpu, made && made->address == address && made->bytes == bytes, "unmapped what is not one mapping");
        fake_unused(gpu, address, bytes, FAKE_STREAMS, "unmapped under work");
        for (uint64_t at = address; at < address + bytes; at += HEAP_BLOCK_BYTES)
            *fake_block(at) = NULL;
        if (made)
            made->address = 0;
    }
    pthread_mutex_unlock(&gpu->mutex);
    return fails ? -EIO : 0;
}

static void *fake_mark_put(void *context, void *stream)
{
    struct fake_memory *gpu = context;
    struct fake_mark *mark = NULL;
    pthread_mutex_lock(&gpu->mutex);
    if (!gpu->marks_refused && !fake_fails(gpu)) {
        mark = calloc(1, sizeof *mark);
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            if (stream == HEAP_ANY_STREAM || stream == fake_stream(i))
                mark->numbers[i] = gpu->given[i];
        gpu->marks++;
    }
    pthread_mutex_unlock(&gpu->mutex);
    return mark;
}

static bool fake_mark_done(void *context, void *mark)
{
    struct fake_memory *gpu = context;
    bool done = true;
    pthread_mutex_lock(&gpu->mutex);
    for (unsigned i = 0; i < FAKE_STREAMS; i++) {
        gpu->done[i] += gpu->advances && gpu->done[i] < gpu->given[i];
        done = done && gpu->done[i] >= ((struct fake_mark *)mark)->numbers[i];
    }
    pthread_mutex_unlock(&gpu->mutex);
    return done;
}

static void fake_mark_drop(void *context, void *mark)
{
    struct fake_memory *gpu = context;
    pthread_mutex_lock(&gpu->mutex);
    gpu->marks--;
    free(mark);
    pthread_mutex_unlock(&gpu->mutex);
}

static bool fake_is_idle(void *context)
{
    struct fake_memory *gpu = context;
    pthread_mutex_lock(&gpu->mutex);
    bool idle = gpu->tells_idle;
    for (unsigned i = 0; i < FAKE_STREAMS; i++)
        idle = idle && gpu->done[i] == gpu->given[i];
    pthread_mutex_unlock(&gpu->mutex);
    return idle;
}

static const struct heap_gpu fake_ops = {
    .range_reserve = fake_range_reserve,
    .range_release = fake_range_release,
    .memory_fits = fake_fits,
    .memory_create = fake_create,
    .memory_release = fake_release,
    .map = fake_map,
    .map_open = fake_map_open,
    .unmap = fake_unmap,
    .mark_put = fake_mark_put,
    .mark_done = fake_mark_done,
    .mark_drop = fake_mark_drop,
    .is_idle = fake_is_idle,
};

static inline void fake_begin(struct fake_memory *gpu, uint64_t quota_bytes)
{
    *gpu = (struct fake_memory){.quota_bytes = quota_bytes, .fail_in = -1};
    pthread_mutex_init(&gpu->mutex, NULL);
}

// Gives a stream work that uses memory: it must be mapped and open, and no other stream's work may still use it.
static inline void fake_launch(struct fake_memory *gpu, unsigned stream, uint64_t address, uint64_t bytes)
{
    pthread_mutex_lock(&gpu->mutex);
    for (uint64_t at = address & -HEAP_BLOCK_BYTES; at < address + bytes; at += HEAP_BLOCK_BYTES)
        fake_note(gpu, *fake_block(at) && (*fake_block(at))->open, "work on memory that is not there");
    fake_unused(gpu, address, bytes, stream, "given out while another stream's work uses it");
    struct fake_use *use = calloc(1, sizeof *use);
    *use = (struct fake_use){address, bytes, ++gpu->given[stream], stream, gpu->uses};
    gpu->uses = use;
    pthread_mutex_unlock(&gpu->mutex);
}

// Completes a stream's work, all but the last `keep`.
static inline void fake_run(struct fake_memory *gpu, unsigned stream, uint64_t keep)
{
    pthread_mutex_lock(&gpu->mutex);
    uint64_t number = gpu->given[stream] > keep ? gpu->given[stream] - keep : 0;
    if (number > gpu->done[stream])
        gpu->done[stream] = number;
    pthread_mutex_unlock(&gpu->mutex);
}

// Everything is back; else what is not.
static inline const char *fake_end(struct fake_memory *gpu)
{
    for (unsigned i = 0; i < FAKE_STREAMS; i++)
        fake_run(gpu, i, 0);
    fake_unused(gpu, 0, 0, 0, NULL);
    fake_note(gpu, gpu->taken_bytes == 0 && gpu->handles == 0, "memory was not given back");
    fake_note(gpu, gpu->ranges == 0, "addresses were not given back");
    fake_note(gpu, gpu->marks == 0, "marks were not given back");
    return gpu->fault;
}

#endif
