// SPDX-License-Identifier: AGPL-3.0-or-later
// The figures of the C API, one in a line: name, value, unit. For a real GPU that does nothing else.
//
// usage: api_bench MODULE [SECONDS]      how long the two queues run (5)
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"

#define PAIRS 2000
#define NATIVE_PAIRS 200
#define SUBMITS 2000
#define REGION_BYTES (1024 * MIB)
#define COPIES 20

static CUfunction spin;

static void figure(const char *name, double value, const char *unit)
{
    printf("%s\t%.6g\t%s\n", name, value, unit);
    fflush(stdout);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// How an allocation is made and freed; `vgpu` is NULL for the driver's.
static void pair(struct vgpu *vgpu, size_t bytes, CUstream stream)
{
    CUdeviceptr address;
    void *pointer;
    if (vgpu && stream) {
        DONE(vgpu_malloc_async(vgpu, bytes, stream, &pointer));
        DONE(vgpu_free_async(vgpu, pointer, stream));
    } else if (vgpu) {
        DONE(vgpu_malloc(vgpu, bytes, &pointer));
        DONE(vgpu_free(vgpu, pointer));
    } else if (stream) {
        OK(cuMemAllocAsync(&address, bytes, stream));
        OK(cuMemFreeAsync(address, stream));
    } else {
        OK(cuMemAlloc(&address, bytes));
        OK(cuMemFree(address));
    }
}

static void measure_pairs(const char *name, struct vgpu *vgpu, size_t bytes, CUstream stream)
{
    char text[80];
    int count = vgpu ? PAIRS : NATIVE_PAIRS;
    for (int i = 0; i < 20; i++)
        pair(vgpu, bytes, stream);
    uint64_t begin = api_now_ns();
    for (int i = 0; i < count; i++)
        pair(vgpu, bytes, stream);
    snprintf(text, sizeof text, "%s_%zu_bytes", name, bytes);
    figure(text, (double)(api_now_ns() - begin) / count, "ns");
}

static void allocations(void)
{
    struct vgpu *vgpu = api_create("allocations", 1024 * MIB, 0);
    for (size_t bytes = 4096; bytes <= 64 * MIB; bytes *= 4) {
        measure_pairs("vgpu_malloc+vgpu_free", vgpu, bytes, NULL);
        measure_pairs("vgpu_malloc_async+vgpu_free_async", vgpu, bytes, vgpu_own_stream(vgpu));
        measure_pairs("cuMemAlloc+cuMemFree", NULL, bytes, NULL);
        measure_pairs("cuMemAllocAsync+cuMemFreeAsync", NULL, bytes, vgpu_own_stream(vgpu));
    }
    DONE(vgpu_destroy(vgpu));
}

static int note_start(struct vgpu *vgpu, void *argument)
{
    (void)vgpu;
    *(uint64_t *)argument = api_now_ns();
    return 0;
}

static void submissions(void)
{
    static double us[SUBMITS];
    struct vgpu *vgpu = api_create("submissions", 0, 0);
    for (int i = 0; i < SUBMITS; i++) {
        struct vgpu_task *task;
        uint64_t started = 0, begin = api_now_ns();
        DONE(vgpu_submit(vgpu, note_start, &started, &task));
        DONE(vgpu_task_wait(task, -1, NULL));
        vgpu_task_release(task);
        us[i] = (double)(started - begin) / 1000;
        usleep(200); // the worker sleeps again
    }
    qsort(us, SUBMITS, sizeof us[0], ascending);
    figure("task_submit_to_start_median", us[SUBMITS / 2], "us");
    figure("task_submit_to_start_p99", us[SUBMITS * 99 / 100], "us");
    DONE(vgpu_destroy(vgpu));
}

static double copy_rate(struct vgpu *vgpu, void *to, const void *from)
{
    DONE(vgpu_memcpy(vgpu, to, from, REGION_BYTES));
    uint64_t begin = api_now_ns();
    for (int i = 0; i < COPIES; i++)
        DONE(vgpu_memcpy_async(vgpu, to, from, REGION_BYTES, NULL));
    DONE(vgpu_synchronize(vgpu, NULL));
    return (double)REGION_BYTES * COPIES / (double)(api_now_ns() - begin);
}

// The other process: reads what the first one wrote.
static void read_region(void)
{
    struct vgpu *vgpu = api_create("reader", 3 * REGION_BYTES, 0);
    struct vgpu_region *region;
    void *a, *b;
    DONE(vgpu_region_open(vgpu, "bench", VGPU_REGION_READONLY, &region));
    DONE(vgpu_region_await(region, NULL, 0, -1, NULL));
    DONE(vgpu_malloc(vgpu, REGION_BYTES, &a));
    DONE(vgpu_malloc(vgpu, REGION_BYTES, &b));
    double plain = copy_rate(vgpu, a, b), shared = copy_rate(vgpu, a, vgpu_region_pointer(region));
    figure("copy_device_to_device", plain, "GB/s");
    figure("copy_region_of_another_process", shared, "GB/s");
    figure("copy_region_to_plain", shared / plain * 100, "%");
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

static void regions(char **argv)
{
    struct vgpu *vgpu = api_create("writer", 2 * REGION_BYTES, 0);
    struct vgpu_region *region;
    int status;
    DONE(vgpu_region_create(vgpu, "bench", REGION_BYTES, &region));
    DONE(vgpu_memset_async(vgpu, vgpu_region_pointer(region), 1, REGION_BYTES, NULL));
    DONE(vgpu_region_publish(region, NULL, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], argv[1], "reader", (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    EQUAL(status, 0);
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

static atomic_bool stop;

static int step(struct vgpu *vgpu, void *argument)
{
    (void)argument;
    api_spin(vgpu, spin, 500000);
    return vgpu_synchronize(vgpu, NULL);
}

static void *feed(void *vgpu)
{
    while (!atomic_load(&stop))
        DONE(vgpu_submit(vgpu, step, NULL, NULL));
    return NULL;
}

static void queues(double seconds)
{
    struct vgpu *vgpus[2];
    struct vgpu_instance_stats before[2] = {VGPU_STATS_INIT, VGPU_STATS_INIT}, after[2] = {VGPU_STATS_INIT, VGPU_STATS_INIT};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        struct vgpu_config config = VGPU_CONFIG_INIT;
        config.name = i ? "three" : "one";
        config.weight = i ? 300 : 100;
        config.queue_tasks = 8;
        DONE(vgpu_create(&config, &vgpus[i]));
        pthread_create(&threads[i], NULL, feed, vgpus[i]);
    }
    usleep(500000); // until both queues are full and turns alternate
    for (int i = 0; i < 2; i++)
        DONE(vgpu_stats(vgpus[i], &before[i]));
    usleep((useconds_t)(seconds * 1e6));
    for (int i = 0; i < 2; i++)
        DONE(vgpu_stats(vgpus[i], &after[i]));
    atomic_store(&stop, true);
    double held[2], done[2];
    for (int i = 0; i < 2; i++) {
        held[i] = (double)(after[i].held_ns - before[i].held_ns);
        done[i] = (double)(after[i].tasks_finished - before[i].tasks_finished);
        pthread_join(threads[i], NULL);
        DONE(vgpu_destroy(vgpus[i]));
    }
    figure("queues_1_to_3_time_share_of_one", held[0] / (held[0] + held[1]) * 100, "%");
    figure("queues_1_to_3_task_share_of_one", done[0] / (done[0] + done[1]) * 100, "%");
}

int main(int argc, char **argv)
{
    if (argc < 2)
        fail("usage: api_bench MODULE [SECONDS]");
    bool reader = argc > 2 && strcmp(argv[2], "reader") == 0;
    struct vgpu *first = api_create(NULL, 0, 0);
    start();
    spin = api_kernel(argv[1], "spin_ns");
    if (reader) {
        read_region();
    } else {
        allocations();
        submissions();
        regions(argv);
        queues(argc > 2 ? atof(argv[2]) : 5);
    }
    DONE(vgpu_destroy(first));
    return 0;
}
