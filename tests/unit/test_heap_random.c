// SPDX-License-Identifier: AGPL-3.0-or-later
// The heap under random calls: from one thread with the books verified all the time, and from several at once. The same seeds give the
// same calls.
#include <string.h>

#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#include "tests/unit/fake_memory.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW 8
#else
#define SLOW 1
#endif
#define STEPS (24000 / SLOW)
#define SEEDS 6
#define THREADS 4
#define SLOTS 64
#define BLOCK HEAP_BLOCK_BYTES

struct slot {
    uint64_t address, bytes;
};

static struct fake_memory gpu;
static struct heap *heap;

static void start(uint64_t quota_blocks)
{
    fake_begin(&gpu, quota_blocks * BLOCK);
    const struct heap_config config = {.ops = &fake_ops,
                                       .gpu = &gpu,
                                       .capacity_bytes = 1024 * BLOCK,
                                       .reserve_bytes = 8 * BLOCK};
    if (heap_create(&config, &heap))
        bail_out("no heap");
}

// Sizes from a byte to 32 MiB, each doubling as likely as the next.
static uint64_t random_bytes(uint64_t *state)
{
    uint64_t top = 1ull << random_next(state) % 25;
    return top + random_next(state) % top;
}

static void *random_stream(uint64_t *state, unsigned own)
{
    return random_next(state) % 4 ? fake_stream(own) : HEAP_ANY_STREAM;
}

// An allocation for all streams may be used on any; one for a stream on that.
static void use(uint64_t *state, const struct slot *slot, void *stream, unsigned own)
{
    unsigned number = stream == HEAP_ANY_STREAM ? (unsigned)(random_next(state) % FAKE_STREAMS) : own;
    fake_launch(&gpu, number, slot->address, slot->bytes);
}

static void random_alloc(uint64_t *state, struct slot *slot, unsigned own, bool mine)
{
    void *stream = random_stream(state, own);
    uint64_t bytes = random_bytes(state), alignment = random_next(state) % 8 ? 0 : 1ull << random_next(state) % 22;
    if (heap_alloc(heap, bytes, alignment, stream, &slot->address)) {
        slot->address = 0;
        return;
    }
    fake_note(&gpu, !alignment || slot->address % alignment == 0, "not aligned as asked");
    slot->bytes = bytes;
    if (mine)
        stream = fake_stream(own); // in the threads' test nobody else's stream is used
    use(state, slot, stream, own);
}

static void random_free(uint64_t *state, struct slot *slot, unsigned own)
{
    struct heap_piece piece;
    fake_note(&gpu,
              heap_find(heap, slot->address + random_next(state) % slot->bytes, &piece) == 0 &&
                  piece.address == slot->address && piece.bytes == slot->bytes,
              "an allocation that isn't found");
    if (slot->bytes > 1)
        fake_note(&gpu, heap_free(heap, slot->address + 1, fake_stream(own)) == -EFAULT, "an inner address freed");
    // Whoever frees has ordered the stream behind every use; the work of others is complete.
    void *stream = random_stream(state, own);
    if (stream != HEAP_ANY_STREAM)
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            if (i != own)
                fake_run(&gpu, i, 0);
    fake_note(&gpu, heap_free(heap, slot->address, stream) == 0, "an allocation that isn't freed");
    slot->address = 0;
}

// Ends a stream; where no mark can be put, after its work.
static void random_end(unsigned own)
{
    int rc = heap_stream_end(heap, fake_stream(own), false);
    if (rc == -EAGAIN) {
        fake_run(&gpu, own, 0);
        rc = heap_stream_end(heap, fake_stream(own), true);
    }
    fake_note(&gpu, rc == 0, "a stream that can't be let go");
}

static void step(uint64_t *state, struct slot *slots)
{
    unsigned own = (unsigned)(random_next(state) % FAKE_STREAMS);
    struct slot *slot = &slots[random_next(state) % SLOTS];
    uint64_t choice = random_next(state) % 100;
    if (choice < 2)
        heap_trim(heap, random_next(state) % 8 * BLOCK);
    else if (choice < 4)
        gpu.marks_refused = !gpu.marks_refused;
    else if (choice < 6)
        random_end(own);
    else if (choice < 8)
        gpu.fail_in = (int)(random_next(state) % 20);
    else if (choice < 30)
        fake_run(&gpu, own, random_next(state) % 4);
    else if (slot->address)
        random_free(state, slot, own);
    else
        random_alloc(state, slot, own, false);
    // A single thread that waits for work that nobody completes would wait for ever.
    if (gpu.taken_bytes > gpu.quota_bytes / 2 || heap_look(heap).waiting_bytes > 6 * BLOCK)
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            fake_run(&gpu, i, 0);
}

static void test_one_thread(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t state = seed * 0x9e3779b97f4a7c15ull;
        struct slot slots[SLOTS] = {{0, 0}};
        const char *fault = NULL;
        int steps = 0;
        start(200);
        gpu.tells_idle = seed % 2;
        for (; steps < STEPS && !fault && !gpu.fault; steps++) {
            step(&state, slots);
            if (gpu.fail_in > 0 && steps % 50 == 49)
                gpu.fail_in = -1;
            if (steps % SLOW == 0)
                fault = heap_check(heap);
        }
        gpu.fail_in = -1;
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            fake_run(&gpu, i, 0);
        is_str(fault, NULL, "seed %d: the books agree after each of %d calls", (int)seed, steps);
        uint64_t most = gpu.peak_bytes, made = gpu.creations;
        heap_destroy(heap);
        is_str(fake_end(&gpu), NULL, "and nothing is given out under work, or lost");
        ok(most <= gpu.quota_bytes && made > (uint64_t)STEPS / 40, "(%d blocks at most, %d extents made)", (int)(most / BLOCK),
           (int)made);
    }
}

static atomic_bool stopping;

static void *worker(void *argument)
{
    unsigned own = (unsigned)(uintptr_t)argument;
    uint64_t state = (own + 1) * 0x9e3779b97f4a7c15ull;
    struct slot slots[SLOTS] = {{0, 0}};
    for (int i = 0; i < STEPS; i++) {
        struct slot *slot = &slots[random_next(&state) % SLOTS];
        if (random_next(&state) % 500 == 0)
            heap_trim(heap, 0);
        else if (random_next(&state) % 500 == 0)
            heap_stream_end(heap, fake_stream(own), false);
        else if (!slot->address)
            random_alloc(&state, slot, own, true);
        else if (heap_free(heap, slot->address, random_stream(&state, own)) == 0)
            slot->address = 0;
        else
            fake_note(&gpu, false, "an allocation that isn't freed");
    }
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].address)
            heap_free(heap, slots[i].address, fake_stream(own));
    return NULL;
}

// The GPU: work gets done after a while.
static void *runner(void *argument)
{
    while (!atomic_load(&stopping)) {
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            fake_run(&gpu, i, 2);
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        for (unsigned i = 0; i < FAKE_STREAMS; i++)
            fake_run(&gpu, i, 0);
    }
    return argument;
}

static void test_threads(void)
{
    pthread_t threads[THREADS], other;
    start(300);
    pthread_create(&other, NULL, runner, NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, worker, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&stopping, true);
    pthread_join(other, NULL);
    is_str(heap_check(heap), NULL, "after four threads at once the books agree");
    is_int(heap_look(heap).live_bytes, 0, "nothing is in use");
    for (unsigned i = 0; i < FAKE_STREAMS; i++)
        fake_run(&gpu, i, 0);
    heap_trim(heap, 0);
    is_int(gpu.taken_bytes, 0, "and everything can be given back");
    heap_destroy(heap);
    is_str(fake_end(&gpu), NULL, "nobody was given what another stream's work used");
}

int main(void)
{
    test_one_thread();
    test_threads();
    return done_testing();
}
