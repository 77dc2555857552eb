// SPDX-License-Identifier: AGPL-3.0-or-later
// A region published from two streams: whoever awaits a generation waits for its work, even if the other stream publishes in the middle of
// that.
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "api.h"

static struct vgpu_region *written;
static vgpu_stream second;
static _Thread_local bool armed; // of the main thread alone: the service thread and the agent take locks at any time
static atomic_bool gate_open;

// The library's, too. Between reading what was published and waiting for it, the library takes a lock.
__attribute__((visibility("default"))) int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*lock)(pthread_mutex_t *);
    Dl_info info;
    if (!lock)
        lock = (__typeof__(lock))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (armed && dladdr(__builtin_return_address(0), &info) && strstr(info.dli_fname, "libvgpu.so")) {
        armed = false;
        DONE(vgpu_region_publish(written, second, NULL));
    }
    return lock(mutex);
}

static void wait_at_gate(void *unused)
{
    (void)unused;
    while (!atomic_load(&gate_open))
        usleep(100);
}

int main(void)
{
    struct vgpu *writer = api_create("writer", 32 * MIB, 0), *reader = api_create("reader", 32 * MIB, 0);
    struct vgpu_region *read;
    vgpu_stream first;
    uint64_t generation;
    start();
    DONE(vgpu_region_create(writer, "published", MIB, &written));
    DONE(vgpu_region_open(reader, "published", VGPU_REGION_READONLY, &read));
    DONE(vgpu_stream_create(writer, &first));
    DONE(vgpu_stream_create(writer, &second));
    OK(cuLaunchHostFunc(first, wait_at_gate, NULL));
    DONE(vgpu_region_publish(written, first, NULL));
    armed = true;
    DONE(vgpu_region_await(read, NULL, 0, 0, &generation));
    EQUAL(armed, false);
    EQUAL(generation, 1);
    // The newest generation is the other stream's alone, which has nothing to do.
    DONE(vgpu_stream_create(reader, &second));
    DONE(vgpu_region_await(read, second, 1, 0, &generation));
    EQUAL(generation, 2);
    DONE(vgpu_synchronize(reader, second));
    EXPECT(cuStreamQuery(vgpu_own_stream(reader)), CUDA_ERROR_NOT_READY);
    atomic_store(&gate_open, true);
    DONE(vgpu_synchronize(reader, NULL));
    DONE(vgpu_region_close(read));
    DONE(vgpu_region_close(written));
    DONE(vgpu_destroy(reader));
    DONE(vgpu_destroy(writer));
    puts("done");
    return 0;
}
