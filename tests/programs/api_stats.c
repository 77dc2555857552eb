// SPDX-License-Identifier: AGPL-3.0-or-later
// Changing virtual GPUs, and reading figures: of one, of all in the pool, of the GPU.
//
// usage: api_stats MODULE
#include "api.h"

struct seen {
    unsigned count;
    struct vgpu_instance_stats named;
    struct vgpu_gpu_stats gpu;
};

static int look(const struct vgpu_instance_stats *stats, void *argument)
{
    struct seen *seen = argument;
    seen->count++;
    if (strcmp(stats->name, "figures") == 0)
        seen->named = *stats;
    return 0;
}

static int look_once(const struct vgpu_instance_stats *stats, void *argument)
{
    (void)stats;
    ++*(int *)argument;
    return 7;
}

static int look_gpu(const struct vgpu_gpu_stats *stats, void *argument)
{
    struct seen *seen = argument;
    seen->gpu = *stats;
    return 0;
}

static struct vgpu_instance_stats figures(struct vgpu *vgpu)
{
    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    DONE(vgpu_stats(vgpu, &stats));
    return stats;
}

static int nothing(struct vgpu *vgpu, void *argument)
{
    (void)vgpu, (void)argument;
    return 0;
}

static void change(struct vgpu *vgpu)
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *open = api_create("open", 0, 0);
    void *memory;
    DONE(vgpu_change(vgpu, &config));
    EQUAL(figures(vgpu).weight, 100);
    EQUAL(figures(vgpu).priority, VGPU_PRIORITY_NORMAL);
    config.weight = 250;
    config.quantum_us = 5000;
    config.limit_percent = 40;
    config.priority = VGPU_PRIORITY_HIGH;
    config.memory_bytes = 128 * MIB;
    config.concurrency = 2;
    DONE(vgpu_change(vgpu, &config));
    // The figures do not tell the concurrency; who joins has to agree with it.
    struct vgpu_config join = VGPU_CONFIG_INIT;
    struct vgpu *joined;
    join.name = "figures";
    join.concurrency = 3;
    REFUSED(vgpu_open(&join, &joined), -EEXIST, "VGPU_CONCURRENCY asks for 3");
    join.concurrency = 2;
    DONE(vgpu_open(&join, &joined));
    DONE(vgpu_destroy(joined));
    struct vgpu_instance_stats stats = figures(vgpu);
    EQUAL(stats.weight, 250);
    EQUAL(stats.quantum_us, 5000);
    EQUAL(stats.limit_percent, 40);
    EQUAL(stats.priority, VGPU_PRIORITY_HIGH);
    EQUAL(stats.quota_bytes, 128 * MIB);
    DONE(vgpu_malloc(vgpu, 100 * MIB, &memory));
    config = (struct vgpu_config)VGPU_CONFIG_INIT;
    config.memory_bytes = 64 * MIB;
    REFUSED(vgpu_change(vgpu, &config), -EBUSY, "it holds");
    REFUSED(vgpu_change(open, &config), -EINVAL, "without a quota");
    // Memory that was freed is not in use, though the heap keeps some.
    DONE(vgpu_free(vgpu, memory));
    DONE(vgpu_change(vgpu, &config));
    EQUAL(figures(vgpu).quota_bytes, 64 * MIB);
    config.memory_bytes = 128 * MIB;
    DONE(vgpu_change(vgpu, &config));
    DONE(vgpu_malloc(vgpu, 100 * MIB, &memory));
    config.memory_bytes = 1ull << 50;
    REFUSED(vgpu_change(vgpu, &config), -ENOMEM, "the GPU has");
    EQUAL(figures(vgpu).quota_bytes, 128 * MIB);
    config.memory_bytes = 0;
    config.priority = VGPU_PRIORITY_NORMAL;
    DONE(vgpu_change(vgpu, &config));
    EQUAL(figures(vgpu).priority, VGPU_PRIORITY_NORMAL);
    EQUAL(figures(vgpu).weight, 250);
    EQUAL(figures(vgpu).quantum_us, 5000);
    join.quantum_us = VGPU_QUANTUM_AUTO;
    REFUSED(vgpu_open(&join, &joined), -EEXIST, "VGPU_QUANTUM asks for 0 ms (auto) but the virtual GPU figures has 5 ms");
    config.quantum_us = VGPU_QUANTUM_AUTO;
    config.limit_percent = 100;
    DONE(vgpu_change(vgpu, &config));
    EQUAL(figures(vgpu).quantum_us, 0);
    EQUAL(figures(vgpu).limit_percent, 0);
    DONE(vgpu_open(&join, &joined));
    DONE(vgpu_destroy(joined));
    DONE(vgpu_free(vgpu, memory));
    DONE(vgpu_destroy(open));
}

int main(int argc, char **argv)
{
    struct seen seen = {0};
    int calls = 0;
    if (argc != 2)
        fail("usage: api_stats MODULE");
    DONE(vgpu_each(look, &seen));
    EQUAL(seen.count, 0);
    struct vgpu *vgpu = api_create("figures", 64 * MIB, 0), *second = api_create("second", 64 * MIB, 0);
    start();
    change(vgpu);
    CUfunction spin = api_kernel(argv[1], "spin_ns");
    for (int i = 0; i < 5; i++)
        api_spin(vgpu, spin, 1000);
    struct vgpu_task *task;
    DONE(vgpu_submit(vgpu, nothing, NULL, &task));
    DONE(vgpu_task_wait(task, -1, NULL));
    vgpu_task_release(task);
    void *memory;
    DONE(vgpu_malloc(vgpu, 10 * MIB, &memory));
    WANT(vgpu_malloc(vgpu, 1ull << 40, &memory), -ENOMEM);
    struct vgpu_instance_stats stats = figures(vgpu);
    EQUAL(stats.size, sizeof stats);
    EQUAL(stats.live_bytes, 10 * MIB);
    EQUAL(stats.allocations, 1);
    EQUAL(stats.used_bytes, stats.heap_bytes);
    EQUAL(stats.refusals, 1);
    EQUAL(stats.refused_bytes, 1ull << 40);
    EQUAL(stats.launches, 6); // a task is one
    EQUAL(stats.tasks_finished, 1);
    EQUAL(stats.processes, 1);
    if (strncmp(stats.device_uuid, "GPU-", 4) != 0 || stats.held_ns == 0)
        fail("the figures name the device %s, held for %llu ns", stats.device_uuid, (unsigned long long)stats.held_ns);

    // A program that knows only the beginning of the structure.
    struct vgpu_instance_stats small = VGPU_STATS_INIT;
    small.size = offsetof(struct vgpu_instance_stats, processes);
    DONE(vgpu_stats(vgpu, &small));
    EQUAL(small.weight, 250);
    EQUAL(small.processes, 0);
    EQUAL(small.size, offsetof(struct vgpu_instance_stats, processes));
    REFUSED(vgpu_stats(vgpu, NULL), -EINVAL, "NULL");
    figures(vgpu);
    if (!strstr(vgpu_detail(), "NULL"))
        fail("a call that succeeds says that %s", vgpu_detail());

    DONE(vgpu_each(look, &seen));
    EQUAL(seen.named.launches, 6);
    EQUAL(seen.named.allocations, 0);
    WANT(vgpu_each(look_once, &calls), 7);
    EQUAL(calls, 1);
    DONE(vgpu_each_gpu(look_gpu, &seen));
    EQUAL(seen.gpu.reserved_bytes, 192 * MIB);
    EQUAL(seen.gpu.virtual_gpus, seen.count);
    if (strcmp(seen.gpu.uuid, stats.device_uuid) != 0)
        fail("the GPU is %s and the virtual GPU is on %s", seen.gpu.uuid, stats.device_uuid);
    REFUSED(vgpu_each(NULL, NULL), -EINVAL, "no function");

    // By its UUID it is the same device. The default can be asked for by name.
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *third;
    config.device_uuid = stats.device_uuid;
    config.quantum_us = VGPU_QUANTUM_AUTO;
    DONE(vgpu_create(&config, &third));
    EQUAL(figures(third).quantum_us, 0);
    EQUAL(strcmp(figures(third).device_uuid, stats.device_uuid), 0);
    DONE(vgpu_destroy(third));
    DONE(vgpu_destroy(second));
    DONE(vgpu_destroy(vgpu));
    DONE(vgpu_each_gpu(look_gpu, &seen));
    EQUAL(seen.gpu.reserved_bytes, 0);
    puts("done");
    return 0;
}
