// SPDX-License-Identifier: AGPL-3.0-or-later
// Calls of the C API while another thread captures a stream in global mode, which forbids it much and would be invalidated by it.
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "api.h"

#define BYTES (1 * MIB)

static struct vgpu *vgpu, *other;

static int set(struct vgpu *own, void *memory)
{
    return vgpu_memset_async(own, memory, 7, BYTES, NULL);
}

static void *everything(void *unused)
{
    static unsigned char back[BYTES];
    struct vgpu_region *region;
    struct vgpu_task *task;
    vgpu_stream stream;
    uint64_t generation;
    void *memory, *more;
    int result;
    (void)unused;
    DONE(vgpu_malloc(vgpu, BYTES, &memory));
    DONE(vgpu_malloc_async(vgpu, BYTES, NULL, &more));
    DONE(vgpu_memset(vgpu, memory, 42, BYTES));
    DONE(vgpu_memcpy(vgpu, back, memory, BYTES));
    EQUAL(back[BYTES - 1], 42);
    DONE(vgpu_submit(vgpu, set, memory, &task));
    DONE(vgpu_task_wait(task, -1, &result));
    EQUAL(result, 0);
    DONE(vgpu_stream_create(vgpu, &stream));
    DONE(vgpu_memcpy_async(vgpu, back, memory, BYTES, stream));
    DONE(vgpu_synchronize(vgpu, stream));
    DONE(vgpu_synchronize(vgpu, NULL));
    DONE(vgpu_stream_destroy(vgpu, stream));
    DONE(vgpu_region_create(vgpu, "captured", BYTES, &region));
    DONE(vgpu_region_publish(region, NULL, &generation));
    DONE(vgpu_region_await(region, NULL, 0, 0, &generation));
    DONE(vgpu_region_unlink(vgpu, "captured"));
    DONE(vgpu_region_close(region));
    DONE(vgpu_free_async(vgpu, more, NULL));
    DONE(vgpu_free(vgpu, memory));
    DONE(vgpu_destroy(other));
    return NULL;
}

static atomic_bool open_gate;

static void wait_at_gate(void *unused)
{
    (void)unused;
    while (!atomic_load(&open_gate))
        usleep(100);
}

// What a stream was given before it is captured is waited for all the same: nobody gets the memory meanwhile.
static void work_before_capture(void)
{
    vgpu_stream stream;
    CUgraph graph;
    void *memory, *more;
    DONE(vgpu_malloc(vgpu, 40 * MIB, &memory));
    DONE(vgpu_stream_create(vgpu, &stream));
    DONE(vgpu_enter(vgpu));
    OK(cuLaunchHostFunc(stream, wait_at_gate, NULL));
    DONE(vgpu_memset_async(vgpu, memory, 1, 40 * MIB, stream));
    DONE(vgpu_leave(vgpu));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    DONE(vgpu_free(vgpu, memory));
    REFUSED(vgpu_malloc(vgpu, 40 * MIB, &more), -ENOMEM, "do not fit");
    OK(cuStreamEndCapture(stream, &graph));
    EXPECT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    atomic_store(&open_gate, true);
    DONE(vgpu_malloc(vgpu, 40 * MIB, &more));
    OK(cuStreamQuery(stream));
    DONE(vgpu_free(vgpu, more));
    DONE(vgpu_stream_destroy(vgpu, stream));
}

int main(void)
{
    CUcontext context;
    CUstream stream;
    CUgraph graph;
    pthread_t thread;
    vgpu = api_create("vgpu", 64 * MIB, 0);
    other = api_create("other", 64 * MIB, 0);
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    if (pthread_create(&thread, NULL, everything, NULL) || pthread_join(thread, NULL))
        fail("there is no thread");
    OK(cuStreamEndCapture(stream, &graph));
    work_before_capture();
    DONE(vgpu_destroy(vgpu));
    return 0;
}
