// SPDX-License-Identifier: AGPL-3.0-or-later
// Work that a task launches by plain CUDA calls counts as the virtual GPU's, once, and what the program launches by itself as the program's.
//
// usage: api_plain MODULE          under the preload library
#include <glob.h>

#include "api.h"

#define LAUNCHES 20

static CUfunction spin;

static void plain(CUstream stream)
{
    uint64_t ns = 200000;
    void *args[] = {&ns};
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, args, NULL));
}

static int work(struct vgpu *vgpu, void *argument)
{
    CUdeviceptr memory;
    (void)argument;
    for (int i = 0; i < LAUNCHES; i++)
        plain(vgpu_own_stream(vgpu));
    OK(cuMemAlloc(&memory, 8 * MIB)); // the program's, who asked for it
    OK(cuMemFree(memory));
    DONE(vgpu_synchronize(vgpu, NULL));
    return 0;
}

static int own(const struct vgpu_instance_stats *stats, void *argument)
{
    if (strchr(stats->name, ':')) // a name that only a process has
        *(struct vgpu_instance_stats *)argument = *stats;
    return 0;
}

// Threads of this process that serve turns.
static int agents(void)
{
    glob_t found;
    int count = 0;
    EQUAL(glob("/proc/self/task/*/comm", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char name[32] = "";
        FILE *file = fopen(found.gl_pathv[i], "r");
        count += file && fgets(name, sizeof name, file) && strcmp(name, "vgpu-agent\n") == 0;
        if (file)
            fclose(file);
    }
    globfree(&found);
    return count;
}

int main(int argc, char **argv)
{
    struct vgpu_instance_stats program = VGPU_STATS_INIT, task = VGPU_STATS_INIT;
    struct vgpu_task *handle;
    CUstream stream;
    if (argc != 2)
        fail("usage: api_plain MODULE");
    struct vgpu *vgpu = api_create("tasks", 64 * MIB, 0);
    start();
    spin = api_kernel(argv[1], "spin_ns");
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < 3; i++) {
        plain(stream);
        DONE(vgpu_submit(vgpu, work, NULL, &handle));
        // The program wants the GPU at the same time: each waits for the other's turn, and nobody for itself.
        for (int j = 0; j < LAUNCHES; j++)
            plain(stream);
        OK(cuStreamSynchronize(stream));
        DONE(vgpu_task_wait(handle, -1, NULL));
        vgpu_task_release(handle);
    }
    DONE(vgpu_stats(vgpu, &task));
    DONE(vgpu_each(own, &program));
    EQUAL(task.launches, 3);
    EQUAL(program.launches, 3 * (LAUNCHES + 1));
    EQUAL(task.overruns + program.overruns, 0);
    if (program.peak_bytes == 0 || task.peak_bytes != 0)
        fail("charged %llu bytes to the program and %llu to its virtual GPU", (unsigned long long)program.peak_bytes,
             (unsigned long long)task.peak_bytes);
    EQUAL(agents(), 1); // of both
    DONE(vgpu_destroy(vgpu));
    puts("done");
    return 0;
}
