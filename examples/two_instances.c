// SPDX-License-Identifier: AGPL-3.0-or-later
// Two virtual GPUs in one program, the second with three times the weight: each has memory and tasks of its own.
//
//     cc two_instances.c $(pkg-config --cflags --libs vgpu)
#include <stdio.h>
#include <stdlib.h>
#include <vgpu.h>

#define BYTES (16u << 20)
#define TASKS 20

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, vgpu_strerror(rc), vgpu_detail());
    exit(1);
}

// Runs on the virtual GPU's own thread, in its turn.
static int fill(struct vgpu *vgpu, void *memory)
{
    int rc = vgpu_memset_async(vgpu, memory, 42, BYTES, NULL);
    return rc ? rc : vgpu_synchronize(vgpu, NULL);
}

static void work(struct vgpu *vgpu)
{
    struct vgpu_task *tasks[TASKS];
    unsigned char byte;
    void *memory;
    int result;

    check(vgpu_malloc(vgpu, BYTES, &memory), "vgpu_malloc");
    for (int i = 0; i < TASKS; i++)
        check(vgpu_submit(vgpu, fill, memory, &tasks[i]), "vgpu_submit");
    for (int i = 0; i < TASKS; i++) {
        check(vgpu_task_wait(tasks[i], -1, &result), "vgpu_task_wait");
        check(result, "a task");
        vgpu_task_release(tasks[i]);
    }
    check(vgpu_memcpy(vgpu, &byte, (char *)memory + BYTES - 1, 1), "vgpu_memcpy");
    check(vgpu_free(vgpu, memory), "vgpu_free");

    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    check(vgpu_stats(vgpu, &stats), "vgpu_stats");
    printf("%s: weight %u, %llu tasks, last byte %d\n", stats.name, stats.weight, (unsigned long long)stats.tasks_finished,
           byte);
}

int main(void)
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *light, *heavy;

    config.memory_bytes = 64u << 20;
    config.name = "light";
    check(vgpu_create(&config, &light), "vgpu_create");
    config.name = "heavy";
    config.weight = 300;
    check(vgpu_create(&config, &heavy), "vgpu_create");
    work(light);
    work(heavy);
    check(vgpu_destroy(heavy), "vgpu_destroy");
    check(vgpu_destroy(light), "vgpu_destroy");
    return 0;
}
