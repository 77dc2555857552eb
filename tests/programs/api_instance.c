// SPDX-License-Identifier: AGPL-3.0-or-later
// Two virtual GPUs in one process: memory, copies, launches, and nothing left of either when it is gone.
//
// usage: api_instance MODULE
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "api.h"

#define WORDS 1000u

static CUfunction spin;

static void compute(struct vgpu *vgpu, CUfunction add, uint32_t value)
{
    void *memory;
    uint64_t count = WORDS;
    uint32_t result[WORDS];
    DONE(vgpu_malloc(vgpu, sizeof result, &memory));
    DONE(vgpu_memset(vgpu, memory, 0, sizeof result));
    CUdeviceptr address = (uintptr_t)memory;
    void *args[] = {&address, &value, &count};
    for (int i = 0; i < 10; i++)
        DONE(api_launch(vgpu, add, NULL, args));
    DONE(vgpu_synchronize(vgpu, NULL));
    DONE(vgpu_memcpy(vgpu, result, memory, sizeof result));
    for (unsigned i = 0; i < WORDS; i++)
        EQUAL(result[i], value * 10);
    DONE(vgpu_free(vgpu, memory));
}

static void allocate(struct vgpu *vgpu)
{
    void *memory, *other;
    size_t whole, total;
    DONE(vgpu_mem_info(vgpu, &whole, &total));
    EQUAL(total, 64 * MIB);
    EQUAL(whole, 64 * MIB);
    DONE(vgpu_malloc(vgpu, 48 * MIB, &memory));
    if (api_free_bytes(vgpu) > 16 * MIB)
        fail("48 of 64 MiB are in use and %zu bytes are free", api_free_bytes(vgpu));
    REFUSED(vgpu_malloc(vgpu, 32 * MIB, &other), -ENOMEM, "do not fit");
    REFUSED(vgpu_malloc(vgpu, 0, &other), -EINVAL, "allowed is 1 byte or more");
    REFUSED(vgpu_malloc_aligned(vgpu, 512, 3000, &other), -EINVAL, "power of two");
    DONE(vgpu_malloc_aligned(vgpu, 512, MIB, &other));
    EQUAL((uintptr_t)other % MIB, 0);
    REFUSED(vgpu_free(vgpu, (char *)memory + 256), -EFAULT, "inside an allocation");
    DONE(vgpu_free(vgpu, other));
    DONE(vgpu_free(vgpu, memory));
    REFUSED(vgpu_free(vgpu, memory), -EALREADY, "freed already");
    REFUSED(vgpu_free(vgpu, &whole), -ENOENT, "not memory of this virtual GPU");
    DONE(vgpu_free(vgpu, NULL));
    EQUAL(api_free_bytes(vgpu), whole);
}

// What cannot fit is refused before anything is taken for it, which others of the same quota would lack meanwhile.
static void refuse_at_once(void)
{
    struct vgpu *vgpu = api_create(NULL, 64 * MIB, 0);
    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    void *memory;
    DONE(vgpu_malloc(vgpu, 8 * MIB, &memory));
    REFUSED(vgpu_malloc(vgpu, 100 * MIB, &memory), -ENOMEM, "do not fit");
    DONE(vgpu_stats(vgpu, &stats));
    EQUAL(stats.peak_bytes, 8 * MIB);
    DONE(vgpu_destroy(vgpu));
}

static atomic_bool ended;

static void *synchronize_all(void *vgpu)
{
    while (!atomic_load(&ended))
        DONE(vgpu_synchronize(vgpu, NULL));
    return NULL;
}

// Who waits for all streams does not mind that one of them goes.
static void streams_that_go(struct vgpu *vgpu)
{
    uint64_t ns = 20000;
    void *args[] = {&ns};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, synchronize_all, vgpu);
    for (int i = 0; i < 1000; i++) {
        vgpu_stream stream;
        DONE(vgpu_stream_create(vgpu, &stream));
        DONE(api_launch(vgpu, spin, stream, args));
        DONE(vgpu_stream_destroy(vgpu, stream));
    }
    atomic_store(&ended, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

// One more than there may be is refused.
static void most_streams(struct vgpu *vgpu)
{
    vgpu_stream all[VGPU_MAX_STREAMS - 1], more = NULL;
    for (int i = 0; i < VGPU_MAX_STREAMS - 1; i++)
        DONE(vgpu_stream_create(vgpu, &all[i]));
    REFUSED(vgpu_stream_create(vgpu, &more), -ENOSPC, "at most 64 streams");
    EQUAL(more, NULL);
    for (int i = 0; i < VGPU_MAX_STREAMS - 1; i++)
        DONE(vgpu_stream_destroy(vgpu, all[i]));
}

static void streams(struct vgpu *vgpu, struct vgpu *other)
{
    vgpu_stream stream, foreign = vgpu_own_stream(other);
    uint64_t ns = 20000000;
    void *args[] = {&ns}, *memory, *again, *third;
    DONE(vgpu_stream_create(vgpu, &stream));
    REFUSED(api_launch(vgpu, spin, foreign, args), -EINVAL, "not one of this virtual GPU's");
    REFUSED(vgpu_stream_destroy(vgpu, foreign), -EINVAL, "not one of this virtual GPU's");
    REFUSED(vgpu_stream_destroy(vgpu, vgpu_own_stream(vgpu)), -EINVAL, "own stream");
    // What is freed behind work of one stream serves that stream at once, and another only when the work is over; by whatever calls the work
    // was given.
    for (int plain = 0; plain < 2; plain++) {
        size_t bytes = plain ? 8192 : 4096; // what the first round has freed is too small for the second
        DONE(vgpu_synchronize(vgpu, NULL));
        DONE(vgpu_malloc_async(vgpu, bytes, stream, &memory));
        if (plain)
            OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, args, NULL));
        else
            DONE(api_launch(vgpu, spin, stream, args));
        DONE(vgpu_free_async(vgpu, memory, stream));
        DONE(vgpu_malloc_async(vgpu, bytes, NULL, &again));
        if (again == memory)
            fail("memory was given to another stream while work on it was under way");
        DONE(vgpu_malloc_async(vgpu, bytes, stream, &third));
        if (third != memory)
            fail("memory freed in a stream's order was not given to the same stream");
        EXPECT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
        DONE(vgpu_synchronize(vgpu, stream));
        OK(cuStreamQuery(stream));
        DONE(vgpu_free_async(vgpu, third, stream));
        DONE(vgpu_free_async(vgpu, again, NULL));
    }
    DONE(vgpu_stream_destroy(vgpu, stream));
    REFUSED(vgpu_synchronize(vgpu, stream), -EINVAL, "not one of this virtual GPU's");
}

// vgpu_free gives memory on only when the work that was there is done, also what a turn launched by other calls. Most of the quota is in
// question, so that there is no other memory to give.
static void reuse(struct vgpu *vgpu)
{
    uint64_t ns = 20000000;
    void *args[] = {&ns}, *memory;
    vgpu_stream stream;
    DONE(vgpu_stream_create(vgpu, &stream));
    for (int plain = 0; plain < 2; plain++) {
        DONE(vgpu_malloc(vgpu, 60 * MIB, &memory));
        if (plain) {
            DONE(vgpu_enter(vgpu));
            OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, args, NULL));
            DONE(vgpu_leave(vgpu));
        } else {
            DONE(api_launch(vgpu, spin, stream, args));
        }
        EXPECT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
        DONE(vgpu_free(vgpu, memory));
        DONE(vgpu_malloc(vgpu, 60 * MIB, &memory));
        OK(cuStreamQuery(stream));
        DONE(vgpu_free(vgpu, memory));
    }
    DONE(vgpu_stream_destroy(vgpu, stream));
}

static void *spin_briefly(void *vgpu)
{
    api_spin(vgpu, spin, 1000);
    return NULL;
}

// A launch of one waits while another is in its turn.
static void turns(struct vgpu *vgpu, struct vgpu *other)
{
    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    for (int tries = 0; stats.waits == 0; tries++) {
        pthread_t thread;
        if (tries == 100)
            fail("no launch has waited for the other's turn");
        DONE(vgpu_enter(vgpu));
        pthread_create(&thread, NULL, spin_briefly, other);
        usleep(10000); // so that it comes to its launch; where it does not, it is tried again
        DONE(vgpu_leave(vgpu));
        pthread_join(thread, NULL);
        DONE(vgpu_stats(other, &stats));
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        fail("usage: api_instance MODULE");
    struct vgpu *a = api_create("a", 64 * MIB, 100), *b = api_create(NULL, 64 * MIB, 0);
    start();
    CUfunction add = api_kernel(argv[1], "add_u32");
    spin = api_kernel(argv[1], "spin_ns");
    compute(a, add, 3);
    compute(b, add, 7);
    allocate(a);
    refuse_at_once();
    most_streams(a);
    streams(a, b);
    streams_that_go(a);
    reuse(a);
    turns(a, b);
    void *memory;
    DONE(vgpu_malloc(b, 60 * MIB, &memory));
    errno = 77;
    DONE(vgpu_destroy(b));
    EQUAL(errno, 77);
    // All of it came back: another one of the whole size fits again, and again.
    for (int i = 0; i < 3; i++) {
        b = api_create("b", 64 * MIB, 0);
        DONE(vgpu_malloc(b, 64 * MIB, &memory));
        DONE(vgpu_destroy(b));
    }
    compute(a, add, 11);
    DONE(vgpu_destroy(a));
    puts("done");
    return 0;
}
