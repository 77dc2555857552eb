// SPDX-License-Identifier: AGPL-3.0-or-later
// The heap, step by step: what is given out, to whom freed memory goes and when, what goes back, and what wrong calls and failing
// drivers do.
#include <string.h>

#include "tests/unit/failing_malloc.h"
#include "tests/unit/fake_memory.h"
#include "tests/unit/tap.h"

// The heap under test is compiled into this file, so that its allocations can be made to fail.
#define malloc(bytes) failing_malloc(bytes)
#define calloc(count, bytes) failing_calloc(count, bytes)
#include "allocator/heap.c"
#include "allocator/heap_books.c"
#include "allocator/heap_check.c"
#include "allocator/heap_lanes.c"
#include "allocator/heap_physical.c"
#undef malloc
#undef calloc

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define BLOCK HEAP_BLOCK_BYTES
#define A fake_stream(0)
#define B fake_stream(1)

static struct fake_memory gpu;
static struct heap *heap;

static void start(uint64_t quota_blocks, uint64_t reserve_bytes)
{
    fake_begin(&gpu, quota_blocks * BLOCK);
    const struct heap_config config = {.ops = &fake_ops,
                                       .gpu = &gpu,
                                       .capacity_bytes = 1024 * BLOCK,
                                       .reserve_bytes = reserve_bytes};
    if (heap_create(&config, &heap))
        bail_out("no heap");
}

static void stop(void)
{
    is_str(heap_check(heap), NULL, "the books agree");
    heap_destroy(heap);
    is_str(fake_end(&gpu), NULL, "the GPU has nothing to complain about, and everything back");
}

// Allocates; 0 where that is refused.
static uint64_t get(uint64_t bytes, void *stream)
{
    uint64_t address = 0;
    return heap_alloc(heap, bytes, 0, stream, &address) ? 0 : address;
}

static uint64_t blocks(void)
{
    return gpu.taken_bytes / BLOCK;
}

static void test_sizes(void)
{
    uint64_t address, other;
    start(64, 0);
    is_int(blocks(), 0, "an empty heap has no memory");
    is_int(heap_alloc(heap, 0, 0, A, &address), -EINVAL, "no bytes are refused");
    is_int(heap_alloc(heap, 1, 3, A, &address), -EINVAL, "an alignment that is no power of two is refused");
    is_int(heap_alloc(heap, 1, 2 * BLOCK, A, &address), -EINVAL, "and one of more than a block");
    is_int(heap_alloc(heap, 1024 * BLOCK + 1, 0, A, &address), -ENOMEM, "more than there can be is out of memory");
    is_int(heap_alloc(heap, UINT64_MAX, 0, A, &address), -ENOMEM, "so are 2^64 bytes less one");
    is_int(gpu.creations, 0, "none of it asked the GPU for memory");
    address = get(1, A);
    other = get(1, A);
    is_int(blocks(), 1, "two bytes in two pieces take a block");
    is_int(other - address, 256, "and 256 bytes each");
    is_int(heap_alloc(heap, 1000, BLOCK, A, &address) || address % BLOCK, 0, "a piece can be aligned to a block");
    is_int(heap_alloc(heap, 1000, 4096, A, &address) || address % 4096, 0, "or to a page");
    uint64_t large = get(20 * MIB + 1, A);
    is_int(blocks(), 2 + 11, "a large piece takes the blocks it needs");
    struct heap_piece piece;
    is_int(heap_find(heap, large + 20 * MIB, &piece), 0, "an address inside it is found");
    is_int(piece.address, large, "with its beginning");
    is_int(piece.bytes, 20 * MIB + 1, "and its size as asked");
    is_int(heap_find(heap, large + 20 * MIB + 1, &piece), -EALREADY, "the byte behind it is not allocated");
    struct heap_stats stats = heap_look(heap);
    is_int(stats.live_bytes, 2 + 2000 + 20 * MIB + 1, "what is in use is counted as asked");
    is_int(stats.live_count, 5, "and piece by piece");
    is_int(stats.physical_bytes, 13 * BLOCK, "what is mapped in blocks");
    stop();
}

static void test_wrong_pointers(void)
{
    start(64, 0);
    uint64_t address = get(10 * KIB, A), other = get(3 * MIB, A);
    is_int(heap_free(heap, 4096, A), -ENOENT, "an address from elsewhere is not the heap's");
    is_int(heap_free(heap, FAKE_BASE - 256, A), -ENOENT, "nor is one below its addresses");
    ok(!heap_owns(heap, FAKE_BASE - 1) && heap_owns(heap, address), "which can be asked without freeing");
    is_int(heap_free(heap, address + 256, A), -EFAULT, "an address inside a piece is refused");
    is_int(heap_free(heap, address + 10 * KIB, A), -EALREADY, "so is free memory");
    is_int(heap_free(heap, other + 512 * MIB, A), -EALREADY, "and an address where nothing is mapped");
    is_int(heap_look(heap).live_count, 2, "nothing was lost");
    is_int(heap_free(heap, address, A), 0, "the right address is freed");
    is_int(heap_free(heap, address, A), -EALREADY, "once");
    is_int(get(10 * KIB, A), address, "and can be had again");
    is_int(heap_free(heap, other, A), 0, "the other one too");
    stop();
}

static void test_streams(void)
{
    start(64, 0);
    uint64_t address = get(30 * MIB, A);
    fake_launch(&gpu, 0, address, 30 * MIB);
    heap_free(heap, address, A);
    is_int(get(30 * MIB, A), address, "memory freed on a stream is there for the same stream at once");
    fake_launch(&gpu, 0, address, 30 * MIB);
    heap_free(heap, address, A);
    uint64_t other = get(30 * MIB, B);
    ok(other && other != address, "another stream gets other memory while the work goes on");
    fake_run(&gpu, 0, 0);
    is_int(get(30 * MIB, B), address, "and this memory once it is done");
    heap_free(heap, other, B);
    heap_free(heap, address, B);
    stop();
}

static void test_all_streams(void)
{
    start(64, 0);
    uint64_t address = get(30 * MIB, HEAP_ANY_STREAM);
    fake_launch(&gpu, 1, address, 30 * MIB);
    heap_free(heap, address, HEAP_ANY_STREAM);
    uint64_t other = get(30 * MIB, HEAP_ANY_STREAM);
    ok(other && other != address, "memory freed behind all work is not given out while some goes on");
    fake_run(&gpu, 1, 0);
    is_int(get(30 * MIB, HEAP_ANY_STREAM), address, "and is when it is done");
    heap_free(heap, address, HEAP_ANY_STREAM);
    gpu.marks_refused = true;
    uint64_t third = get(30 * MIB, HEAP_ANY_STREAM);
    ok(third && third != address, "without a mark, as during a capture, the heap grows rather than to guess");
    gpu.marks_refused = false;
    is_int(get(30 * MIB, HEAP_ANY_STREAM), address, "and finds the memory later");
    stop();
}

static void test_few_marks(void)
{
    start(64, 8 * BLOCK);
    for (int i = 0; i < 3; i++) {
        uint64_t address = get(BLOCK, HEAP_ANY_STREAM);
        is_int(gpu.marks, i == 2, "a mark is put only once more than a quarter of the reserve would wait without it");
        fake_launch(&gpu, 0, address, BLOCK);
        heap_free(heap, address, HEAP_ANY_STREAM);
    }
    fake_run(&gpu, 0, 1);
    ok(get(BLOCK, HEAP_ANY_STREAM) && get(BLOCK, HEAP_ANY_STREAM),
       "what it covers serves once its work is done, though its neighbour was freed behind it");
    is_int(blocks(), 3, "without growth");
    fake_run(&gpu, 0, 0);
    stop();
}

static void test_idle(void)
{
    start(64, 0);
    gpu.tells_idle = gpu.marks_refused = true;
    uint64_t address = get(30 * MIB, A);
    heap_free(heap, address, HEAP_ANY_STREAM);
    is_int(get(30 * MIB, B), address, "what is freed while nothing is under way serves everybody at once, without a mark");
    fake_launch(&gpu, 0, address, 30 * MIB);
    heap_free(heap, address, HEAP_ANY_STREAM);
    ok(get(30 * MIB, B) != address, "and while something is, it does not");
    fake_run(&gpu, 0, 0);
    stop();
}

static void test_freed_last(void)
{
    struct heap_piece piece;
    start(64, 2 * BLOCK);
    uint64_t first = get(10 * KIB, A), second = get(10 * KIB, A);
    heap_free(heap, first, A);
    is_int(heap_free(heap, first, A), -EALREADY, "what was freed last is freed");
    is_int(heap_find(heap, first, &piece), -EALREADY, "and is no allocation");
    is_int(heap_look(heap).live_bytes, 10 * KIB, "nor counted as one");
    heap_free(heap, second, A);
    ok(get(10 * KIB, B) != second, "another stream does not get it");
    is_int(get(20 * KIB, A), first, "it is one with the free memory beside it for who wants more");
    uint64_t odd = get(BLOCK / 2 - 256, A), other;
    heap_free(heap, odd, A);
    is_int(heap_alloc(heap, BLOCK / 2 - 256, BLOCK, A, &other) || other % BLOCK, 0,
           "nor does it go to who wants it aligned to more than it is");
    stop();

    start(64, 2 * BLOCK);
    gpu.tells_idle = true;
    first = get(BLOCK / 2, A);
    second = get(BLOCK / 2, A);
    other = get(2 * BLOCK, A);
    heap_free(heap, other, HEAP_ANY_STREAM);
    heap_free(heap, first, HEAP_ANY_STREAM);
    is_int(blocks(), 3, "half a block more does not exceed the reserve");
    heap_free(heap, second, HEAP_ANY_STREAM);
    ok(blocks() <= 2, "and the other half does, at once");
    stop();
}

static void test_stream_end(void)
{
    start(64, 0);
    uint64_t address = get(30 * MIB, A);
    fake_launch(&gpu, 0, address, 30 * MIB);
    heap_free(heap, address, A);
    gpu.marks_refused = true;
    is_int(heap_stream_end(heap, A, false), -EAGAIN, "a stream can't be let go where no mark can be put behind it");
    gpu.marks_refused = false;
    is_int(heap_stream_end(heap, A, false), 0, "and can where one is");
    uint64_t other = get(30 * MIB, A);
    ok(other && other != address, "a new stream of the same handle doesn't get the old one's memory");
    fake_run(&gpu, 0, 0);
    is_int(get(30 * MIB, A), address, "until the old one's work is done");
    heap_free(heap, address, A);
    gpu.marks_refused = true;
    is_int(heap_stream_end(heap, A, true), 0, "a stream known to be idle needs no mark");
    is_int(get(30 * MIB, B), address, "and its memory is free for all");
    is_int(heap_stream_end(heap, A, false), 0, "a stream that has freed nothing can always be let go");
    gpu.marks_refused = false;
    stop();
}

static void *run_later(void *argument)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    fake_run(argument, 0, 0);
    return NULL;
}

static void test_waiting(void)
{
    pthread_t thread;
    start(16, 0);
    uint64_t address = get(16 * BLOCK, A);
    fake_launch(&gpu, 0, address, 16 * BLOCK);
    heap_free(heap, address, A);
    pthread_create(&thread, NULL, run_later, &gpu);
    uint64_t other = get(16 * BLOCK, B);
    ok(other, "with the quota full of memory that work still uses, an allocation waits for the work");
    fake_launch(&gpu, 1, other, 16 * BLOCK);
    pthread_join(thread, NULL);
    is_int(get(1, B), 0, "and with the quota full of memory in use it is refused");
    is_int(gpu.creations, 8, "without taking anything only to give it back");
    heap_free(heap, other, B);
    fake_run(&gpu, 1, 0);

    stop();
    start(16, 2 * BLOCK);
    for (int i = 0; i < 3; i++) {
        address = get(BLOCK, HEAP_ANY_STREAM);
        fake_launch(&gpu, 0, address, BLOCK);
        heap_free(heap, address, HEAP_ANY_STREAM);
    }
    is_int(blocks(), 3, "memory freed behind all work makes the heap grow");
    pthread_create(&thread, NULL, run_later, &gpu);
    ok(get(BLOCK, HEAP_ANY_STREAM), "but once more than the reserve waits, an allocation waits too");
    is_int(blocks(), 3, "and the heap does not grow");
    pthread_join(thread, NULL);
    stop();
}

#define PIECES 64
static uint64_t pieces[PIECES];
static int freed;

// Another thread frees a piece while a mark is put: a mark that comes later stands behind that one, and so on.
static void *mark_put_and_free(void *context, void *stream)
{
    if (freed < PIECES)
        heap_free(heap, pieces[freed++], A);
    return fake_mark_put(context, stream);
}

static void test_going_on(void)
{
    struct heap_gpu ops = fake_ops;
    ops.mark_put = mark_put_and_free;
    start(16, 0);
    for (int i = 0; i < PIECES; i++)
        pieces[i] = get(KIB, A);
    heap->ops = &ops;
    heap_free(heap, get(KIB, A), A);
    is_int(get(17 * BLOCK, B), 0, "what cannot fit is refused");
    ok(freed > 0 && freed < 8, "although others go on freeing: %d times", freed);
    freed = 0;
    for (int i = 0; i < PIECES; i++)
        pieces[i] = get(KIB, A);
    heap_free(heap, get(KIB, A), A);
    heap_trim(heap, 0);
    ok(freed > 0 && freed < 8, "nor does giving back go on as long as they do: %d times", freed);
    heap->ops = &fake_ops;
    stop();
}

static void test_return(void)
{
    uint64_t addresses[40];
    start(64, 4 * BLOCK);
    for (int i = 0; i < 40; i++)
        addresses[i] = get(BLOCK, A);
    is_int(blocks(), 40, "forty pieces of a block take forty");
    for (int i = 0; i < 40; i++)
        heap_free(heap, addresses[i], A);
    is_int(heap_unused(heap), blocks() * BLOCK, "what is left is known to be unused");
    ok(blocks() <= 5, "free blocks go back, all but a reserve (%d kept)", (int)blocks());
    is_int(heap_trim(heap, BLOCK) > 0 ? blocks() : 0, 1, "trimming leaves what it is told to");
    is_int(heap_trim(heap, 0) > 0 ? blocks() : 1, 0, "or nothing");
    is_int(heap_trim(heap, 0), 0, "and then there is nothing to trim");
    uint64_t address = get(10, A);
    heap_trim(heap, 0);
    is_int(blocks(), 1, "memory in use stays");
    heap_free(heap, address, A);
    fake_launch(&gpu, 0, address, 10);
    is_int(heap_trim(heap, 0), 0, "so does memory that queued work uses");
    fake_run(&gpu, 0, 0);
    is_int(heap_trim(heap, 0), BLOCK, "until it is done");
    stop();
}

static void test_full_reserve(void)
{
    uint64_t addresses[80];
    start(100, 64 * BLOCK);
    get(4 * KIB, A); // the rest of its block is nobody's soon
    for (int i = 0; i < 80; i++)
        addresses[i] = get(BLOCK, A);
    for (int i = 0; i < 80; i++)
        heap_free(heap, addresses[i], A);
    uint64_t calls = gpu.calls;
    for (int i = 0; i < 100; i++)
        heap_free(heap, get(4 * KIB, A), A);
    ok(gpu.calls - calls < 10, "with the reserve full, small pieces come and go without calling the driver (%d calls)",
       (int)(gpu.calls - calls));
    stop();
}

static void test_remapping(void)
{
    uint64_t addresses[64];
    start(64, 64 * BLOCK);
    for (int i = 0; i < 64; i++)
        addresses[i] = get(BLOCK, A);
    is_int(get(1, A), 0, "a full quota refuses a byte more");
    for (int i = 0; i < 64; i += 2)
        heap_free(heap, addresses[i], A);
    uint64_t address = get(32 * BLOCK, A);
    ok(address, "every second block of a full quota, freed, makes one piece");
    is_int(blocks(), 64, "of the same physical memory");
    is_int(heap_free(heap, address, A), 0, "that can be freed");
    for (int i = 1; i < 64; i += 2)
        heap_free(heap, addresses[i], A);
    ok(heap_alloc(heap, 64 * BLOCK, 4096, B, &address) == 0, "and all of it together one more, aligned or not");
    stop();

    start(64, 0);
    address = get(3 * MIB, A);
    ok(get(1 * MIB, A) && blocks() == 2, "a smaller piece goes into the rest of a block");
    ok(get(3 * MIB, A) && get(5 * MIB, A) && blocks() == 6, "and growth goes on from what is left of the last one");
    stop();
}

static void test_errors(void)
{
    uint64_t address;
    start(64, 0);
    gpu.fail_in = 1; // the second call, which maps
    ok(heap_alloc(heap, MIB, 0, A, &address) == -EIO, "an error of the driver's is no lack of room");
    ok(blocks() == 0 && get(MIB, A), "and leaves nothing behind");
    ok(heap_alloc(heap, 65 * BLOCK, 0, A, &address) == -ENOMEM, "while what does not fit is that");
    stop();
}

// A life that touches everything; what fails of it is no matter, as long as nothing is lost.
static void live(void)
{
    static const uint64_t sizes[] = {100, 5 * MIB, 300 * KIB, 40 * MIB, 17 * MIB, 64, 2 * MIB};
    uint64_t addresses[7] = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 7; i++) {
            addresses[i] = get(sizes[i], i % 2 ? A : HEAP_ANY_STREAM);
            if (addresses[i])
                fake_launch(&gpu, 0, addresses[i], sizes[i]);
        }
        for (int i = round; i < 7 + round; i++) {
            if (i == round + 3)
                fake_run(&gpu, 0, 0);
            if (addresses[i % 7])
                heap_free(heap, addresses[i % 7], i % 3 ? A : HEAP_ANY_STREAM);
        }
        if (round == 1)
            heap_trim(heap, 0);
        fake_run(&gpu, 0, 0);
        heap_stream_end(heap, A, false);
    }
}

// Runs `live` again and again, with the first, the second, ... thing of a kind failing, until nothing does.
static int survive(int *countdown, const char **fault)
{
    int runs = 0;
    for (bool failed = true; failed && !*fault && runs < 10000; runs++) {
        fake_begin(&gpu, 40 * BLOCK);
        const struct heap_config config = {.ops = &fake_ops,
                                           .gpu = &gpu,
                                           .capacity_bytes = 1024 * BLOCK,
                                           .reserve_bytes = 2 * BLOCK};
        *countdown = runs;
        heap = NULL;
        if (heap_create(&config, &heap) == 0)
            live();
        failed = *countdown < 0;
        *countdown = -1;
        if (heap) {
            *fault = heap_check(heap);
            heap_destroy(heap);
        }
        if (!*fault)
            *fault = fake_end(&gpu);
    }
    return runs;
}

static void test_failures(void)
{
    const char *fault = NULL;
    int runs = survive(&gpu.fail_in, &fault);
    is_str(fault, NULL, "whichever of the driver's calls fails, nothing is lost");
    ok(runs > 100 && runs < 10000, "(%d calls)", runs);
    runs = survive(&fail_after, &fault);
    is_str(fault, NULL, "nor where memory for the books runs out");
    ok(runs > 10 && runs < 10000, "(%d allocations)", runs);
}

int main(void)
{
    test_sizes();
    test_wrong_pointers();
    test_streams();
    test_all_streams();
    test_few_marks();
    test_idle();
    test_freed_last();
    test_stream_end();
    test_waiting();
    test_going_on();
    test_return();
    test_full_reserve();
    test_remapping();
    test_errors();
    test_failures();
    return done_testing();
}
