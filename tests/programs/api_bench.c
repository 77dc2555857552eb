// SPDX-License-Identifier: AGPL-3.0-or-later
// One figure of the C API a run, for scripts/benchmark/api.py: a line "result NAME=VALUE ...".
//
// usage: api_bench MODULE pairs BYTES              allocating and freeing, beside the driver's
//        api_bench MODULE mix MIB PERCENT COUNT    physical by live memory, with that much of a quota in use, over so many allocations
//        api_bench MODULE trace PERCENT FILE SEED  the same for a recorded program; a SEED above 0 gives it random sizes
//        api_bench MODULE region MIB               copying from a region of another process
//        api_bench MODULE tasks                    from submission to start
//        api_bench MODULE queues SECONDS           two queues of tasks, weights 1:3
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "tests/unit/mix.h"

#define BATCHES 21
#define BATCH_PAIRS 400
#define SUBMITS 1000
#define COPY_ROUNDS 7
#define COPIES 10
#define BLOCK (2 * MIB)

static CUfunction spin;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double *values, size_t count, unsigned percent)
{
    qsort(values, count, sizeof *values, ascending);
    return values[(count - 1) * percent / 100];
}

// --- allocating and freeing

typedef void pair_function(struct vgpu *vgpu, size_t bytes);

static void own_pair(struct vgpu *vgpu, size_t bytes)
{
    void *pointer;
    DONE(vgpu_malloc(vgpu, bytes, &pointer));
    DONE(vgpu_free(vgpu, pointer));
}

static void own_async_pair(struct vgpu *vgpu, size_t bytes)
{
    void *pointer;
    DONE(vgpu_malloc_async(vgpu, bytes, NULL, &pointer));
    DONE(vgpu_free_async(vgpu, pointer, NULL));
}

static void driver_pair(struct vgpu *vgpu, size_t bytes)
{
    CUdeviceptr address;
    (void)vgpu;
    OK(cuMemAlloc(&address, bytes));
    OK(cuMemFree(address));
}

static void driver_async_pair(struct vgpu *vgpu, size_t bytes)
{
    CUdeviceptr address;
    OK(cuMemAllocAsync(&address, bytes, vgpu_own_stream(vgpu)));
    OK(cuMemFreeAsync(address, vgpu_own_stream(vgpu)));
}

static void pairs(size_t bytes)
{
    static const struct {
        const char *name;
        pair_function *pair;
    } kinds[] = {{"own_ns", own_pair},
                 {"own_async_ns", own_async_pair},
                 {"driver_ns", driver_pair},
                 {"driver_async_ns", driver_async_pair}};
    static double ns[4][BATCHES];
    struct vgpu *vgpu = api_create("pairs", 8 * bytes + 512 * MIB, 0);
    // The first batch warms up.
    for (int batch = -1; batch < BATCHES; batch++)
        for (int kind = 0; kind < 4; kind++) {
            uint64_t begin = api_now_ns();
            for (int i = 0; i < BATCH_PAIRS; i++)
                kinds[kind].pair(vgpu, bytes);
            if (batch >= 0)
                ns[kind][batch] = (double)(api_now_ns() - begin) / BATCH_PAIRS;
        }
    printf("result");
    for (int kind = 0; kind < 4; kind++)
        printf(" %s=%.1f", kinds[kind].name, percentile(ns[kind], BATCHES, 50));
    putchar('\n');
    DONE(vgpu_destroy(vgpu));
}

// --- fragmentation

static struct vgpu *user;

static uint64_t allocate(uint64_t bytes)
{
    void *pointer;
    if (vgpu_malloc(user, bytes, &pointer))
        return 0;
    DONE(vgpu_memset_async(user, pointer, 1, 256, NULL));
    return (uintptr_t)pointer;
}

// Memory that queued work still uses is no fragmentation: as with cudaFree, the work is over.
static void release(uint64_t address)
{
    DONE(vgpu_synchronize(user, NULL));
    DONE(vgpu_free(user, (void *)(uintptr_t)address));
}

static uint64_t physical_bytes(void)
{
    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    DONE(vgpu_stats(user, &stats));
    return stats.heap_bytes;
}

static void fragmentation(const struct mix *mix, uint64_t quota_bytes, unsigned times)
{
    static const struct mix_user calls = {allocate, release, physical_bytes};
    user = api_create("mix", quota_bytes, 0);
    uint64_t begin = api_now_ns();
    struct mix_result result = mix_replay(mix, &calls, times);
    printf("result worst=%.3f mean=%.3f refused=%llu allocations=%u looks=%llu quota_mib=%llu seconds=%.2f\n",
           (double)result.worst / 1000, (double)result.mean / 1000, (unsigned long long)result.refused,
           mix->allocations * times, (unsigned long long)result.looks, (unsigned long long)(quota_bytes / MIB),
           (double)(api_now_ns() - begin) / 1e9);
    DONE(vgpu_destroy(user));
}

static void made_up(uint64_t quota_bytes, unsigned percent, unsigned allocations)
{
    static struct mix mix;
    mix_make(&mix, 1, allocations, quota_bytes / 100 * percent);
    fragmentation(&mix, quota_bytes, 1);
}

static void recorded(unsigned percent, const char *path, uint64_t seed)
{
    static struct mix mix;
    if (!mix_read(&mix, path, seed))
        fail("%s: nothing is recorded there", path);
    fragmentation(&mix, (mix.peak_bytes / percent * 100 + BLOCK) / BLOCK * BLOCK, 2);
}

// --- regions

static double copy_rate(struct vgpu *vgpu, void *to, const void *from, size_t bytes)
{
    uint64_t begin = api_now_ns();
    for (int i = 0; i < COPIES; i++)
        DONE(vgpu_memcpy_async(vgpu, to, from, bytes, NULL));
    DONE(vgpu_synchronize(vgpu, NULL));
    return (double)bytes * COPIES / (double)(api_now_ns() - begin);
}

// The other process: reads what the first one wrote, and by turns memory of its own.
static void read_region(size_t bytes)
{
    static double plain[COPY_ROUNDS], shared[COPY_ROUNDS];
    struct vgpu *vgpu = api_create("reader", 2 * bytes + 64 * MIB, 0);
    struct vgpu_region *region;
    void *to, *from;
    DONE(vgpu_region_open(vgpu, "bench", VGPU_REGION_READONLY, &region));
    DONE(vgpu_region_await(region, NULL, 0, -1, NULL));
    DONE(vgpu_malloc(vgpu, bytes, &to));
    DONE(vgpu_malloc(vgpu, bytes, &from));
    for (int i = -1; i < COPY_ROUNDS; i++) {
        double own = copy_rate(vgpu, to, from, bytes), other = copy_rate(vgpu, to, vgpu_region_pointer(region), bytes);
        if (i >= 0)
            plain[i] = own, shared[i] = other;
    }
    double own = percentile(plain, COPY_ROUNDS, 50), other = percentile(shared, COPY_ROUNDS, 50);
    printf("result plain_gbs=%.1f region_gbs=%.1f percent=%.2f\n", own, other, other / own * 100);
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

static void regions(char **argv, size_t bytes)
{
    struct vgpu *vgpu = api_create("writer", bytes + 64 * MIB, 0);
    struct vgpu_region *region;
    int status;
    DONE(vgpu_region_create(vgpu, "bench", bytes, &region));
    DONE(vgpu_memset_async(vgpu, vgpu_region_pointer(region), 1, bytes, NULL));
    DONE(vgpu_region_publish(region, NULL, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], argv[1], "reader", argv[3], (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    EQUAL(status, 0);
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

// --- tasks

static int note_start(struct vgpu *vgpu, void *argument)
{
    (void)vgpu;
    *(uint64_t *)argument = api_now_ns();
    return 0;
}

static void tasks(void)
{
    static double us[SUBMITS];
    struct vgpu *vgpu = api_create("tasks", 0, 0);
    for (int i = 0; i < SUBMITS; i++) {
        struct vgpu_task *task;
        uint64_t started = 0, begin = api_now_ns();
        DONE(vgpu_submit(vgpu, note_start, &started, &task));
        DONE(vgpu_task_wait(task, -1, NULL));
        vgpu_task_release(task);
        us[i] = (double)(started - begin) / 1000;
        usleep(200); // the worker sleeps again
    }
    printf("result submit_us=%.2f submit_p99_us=%.2f\n", percentile(us, SUBMITS, 50), percentile(us, SUBMITS, 99));
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

static void read_both(struct vgpu *const vgpus[2], struct vgpu_instance_stats stats[2])
{
    for (int i = 0; i < 2; i++) {
        stats[i] = (struct vgpu_instance_stats)VGPU_STATS_INIT;
        DONE(vgpu_stats(vgpus[i], &stats[i]));
    }
}

static void queues(double seconds)
{
    struct vgpu *vgpus[2];
    struct vgpu_instance_stats before[2], after[2];
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
    read_both(vgpus, before);
    usleep((useconds_t)(seconds * 1e6));
    read_both(vgpus, after);
    atomic_store(&stop, true);
    double held[2], done[2];
    for (int i = 0; i < 2; i++) {
        held[i] = (double)(after[i].held_ns - before[i].held_ns);
        done[i] = (double)(after[i].tasks_finished - before[i].tasks_finished);
        pthread_join(threads[i], NULL);
        DONE(vgpu_destroy(vgpus[i]));
    }
    printf("result task_percent=%.2f time_percent=%.2f\n", done[0] / (done[0] + done[1]) * 100,
           held[0] / (held[0] + held[1]) * 100);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";
    struct vgpu *first = api_create(NULL, 0, 0);
    start();
    spin = argc > 1 ? api_kernel(argv[1], "spin_ns") : NULL;
    if (argc == 4 && strcmp(what, "pairs") == 0)
        pairs(strtoull(argv[3], NULL, 10));
    else if (argc == 6 && strcmp(what, "mix") == 0)
        made_up(strtoull(argv[3], NULL, 10) * MIB, (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
    else if (argc == 6 && strcmp(what, "trace") == 0)
        recorded((unsigned)atoi(argv[3]), argv[4], strtoull(argv[5], NULL, 10));
    else if (argc == 4 && strcmp(what, "region") == 0)
        regions(argv, strtoull(argv[3], NULL, 10) * MIB);
    else if (argc == 4 && strcmp(what, "reader") == 0)
        read_region(strtoull(argv[3], NULL, 10) * MIB);
    else if (argc == 3 && strcmp(what, "tasks") == 0)
        tasks();
    else if (argc == 4 && strcmp(what, "queues") == 0)
        queues(atof(argv[3]));
    else
        fail("usage: api_bench MODULE pairs|mix|trace|region|tasks|queues ...");
    DONE(vgpu_destroy(first));
    return 0;
}
