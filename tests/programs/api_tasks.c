// SPDX-License-Identifier: AGPL-3.0-or-later
// Tasks: order, results, time-outs, cancelling, back-pressure, draining; and two queues that alternate by weight.
//
// usage: api_tasks MODULE            checks the behaviour
//        api_tasks MODULE SECONDS    two queues, weights 1:3, for so long: prints how many tasks each ran
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "api.h"

static CUfunction spin;
static atomic_int running, order, drained;
static atomic_bool gate_open;

static int hold(struct vgpu *vgpu, void *argument)
{
    (void)vgpu;
    atomic_store(&running, 1);
    while (!atomic_load(&gate_open))
        usleep(100);
    return (int)(intptr_t)argument;
}

static int count(struct vgpu *vgpu, void *argument)
{
    (void)vgpu;
    EQUAL(atomic_fetch_add(&order, 1), (intptr_t)argument);
    return -5;
}

static int nested(struct vgpu *vgpu, void *argument)
{
    struct vgpu_task *task;
    DONE(vgpu_enter(vgpu));
    api_spin(vgpu, spin, 1000);
    DONE(vgpu_leave(vgpu));
    REFUSED(vgpu_leave(vgpu), -EINVAL, "has not entered");
    REFUSED(vgpu_destroy(vgpu), -EDEADLK, "in a turn");
    REFUSED(vgpu_enter(argument), -EDEADLK, "another virtual GPU");
    DONE(vgpu_submit(vgpu, count, (void *)100, &task));
    REFUSED(vgpu_task_wait(task, -1, NULL), -EDEADLK, "in a turn");
    DONE(vgpu_task_cancel(task));
    vgpu_task_release(task);
    return 0;
}

static int drain(struct vgpu *vgpu, void *argument)
{
    (void)argument;
    api_spin(vgpu, spin, 100000);
    DONE(vgpu_synchronize(vgpu, NULL));
    atomic_fetch_add(&drained, 1);
    return 0;
}

static int fails(struct vgpu *vgpu, void *argument)
{
    return vgpu_malloc(vgpu, 1ull << 50, argument);
}

static int fails_silently(struct vgpu *vgpu, void *argument)
{
    (void)vgpu, (void)argument;
    return -ENOSPC;
}

static void *submit_one_more(void *vgpu)
{
    DONE(vgpu_submit(vgpu, count, (void *)3, NULL));
    return NULL;
}

static void behaviour(void)
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *vgpu, *other = api_create("other", 0, 0);
    struct vgpu_task *first, *tasks[4];
    pthread_t submitter;
    int result = 0;
    config.name = "queue";
    config.queue_tasks = 3;
    DONE(vgpu_create(&config, &vgpu));
    REFUSED(vgpu_submit(vgpu, NULL, NULL, NULL), -EINVAL, "no function");

    DONE(vgpu_submit(vgpu, hold, (void *)42, &first));
    while (!atomic_load(&running))
        usleep(100);
    // Three wait; the fourth has to.
    DONE(vgpu_submit(vgpu, count, (void *)0, &tasks[0]));
    DONE(vgpu_submit(vgpu, count, (void *)1, &tasks[1]));
    DONE(vgpu_submit(vgpu, count, (void *)2, &tasks[2]));
    pthread_create(&submitter, NULL, submit_one_more, vgpu);
    usleep(20000);
    EQUAL(pthread_tryjoin_np(submitter, NULL), EBUSY);
    REFUSED(vgpu_task_wait(first, 1000000, &result), -ETIMEDOUT, "not done in time");
    REFUSED(vgpu_task_wait(tasks[0], 0, &result), -ETIMEDOUT, "not done in time");
    REFUSED(vgpu_task_cancel(first), -EBUSY, "has begun");
    atomic_store(&gate_open, true);
    DONE(vgpu_task_wait(first, -1, &result));
    EQUAL(result, 42);
    DONE(vgpu_task_wait(tasks[2], -1, &result));
    EQUAL(result, -5);
    pthread_join(submitter, NULL);
    REFUSED(vgpu_task_cancel(tasks[1]), -EALREADY, "is done");
    vgpu_task_release(first);
    for (int i = 0; i < 3; i++)
        vgpu_task_release(tasks[i]);

    // Cancelled before its start: it never runs, and whoever waits is told.
    atomic_store(&gate_open, false);
    atomic_store(&running, 0);
    DONE(vgpu_submit(vgpu, hold, NULL, NULL));
    while (!atomic_load(&running))
        usleep(100);
    DONE(vgpu_submit(vgpu, count, (void *)99, &tasks[3]));
    DONE(vgpu_task_cancel(tasks[3]));
    DONE(vgpu_task_cancel(tasks[3]));
    REFUSED(vgpu_task_wait(tasks[3], -1, &result), -ECANCELED, "cancelled");
    vgpu_task_release(tasks[3]);
    atomic_store(&gate_open, true);
    DONE(vgpu_submit(vgpu, nested, other, &first));
    DONE(vgpu_task_wait(first, -1, NULL));
    vgpu_task_release(first);
    EQUAL(atomic_load(&order), 4);

    // What failed in a task is told to who waits for it.
    void *memory;
    DONE(vgpu_submit(vgpu, fails, &memory, &first));
    DONE(vgpu_task_wait(first, -1, &result));
    REFUSED(result, -ENOMEM, "1125899906842624 bytes do not fit");
    vgpu_task_release(first);
    DONE(vgpu_submit(vgpu, fails_silently, NULL, &first));
    DONE(vgpu_task_wait(first, -1, &result));
    EQUAL(result, -ENOSPC);
    if (vgpu_detail()[0])
        fail("of a task that said nothing it is told that %s", vgpu_detail());
    vgpu_task_release(first);
    vgpu_task_release(NULL);

    // Destruction runs what is queued.
    for (int i = 0; i < 3; i++)
        DONE(vgpu_submit(vgpu, drain, NULL, i ? NULL : &first));
    DONE(vgpu_destroy(vgpu));
    EQUAL(atomic_load(&drained), 3);
    DONE(vgpu_task_wait(first, 0, &result));
    vgpu_task_release(first);
    DONE(vgpu_destroy(other));
}

static atomic_bool stop;

struct queue {
    struct vgpu *vgpu;
    _Atomic uint64_t ran;
};

static int step(struct vgpu *vgpu, void *argument)
{
    struct queue *queue = argument;
    api_spin(vgpu, spin, 500000);
    DONE(vgpu_synchronize(vgpu, NULL));
    atomic_fetch_add(&queue->ran, 1);
    return 0;
}

static void *feed(void *argument)
{
    struct queue *queue = argument;
    while (!atomic_load(&stop))
        DONE(vgpu_submit(queue->vgpu, step, queue, NULL));
    return NULL;
}

static void alternate(double seconds)
{
    static struct queue queues[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        struct vgpu_config config = VGPU_CONFIG_INIT;
        config.name = i ? "three" : "one";
        config.weight = i ? 300 : 100;
        config.queue_tasks = 8;
        DONE(vgpu_create(&config, &queues[i].vgpu));
        pthread_create(&threads[i], NULL, feed, &queues[i]);
    }
    usleep((useconds_t)(seconds * 1e6));
    printf("%llu %llu\n", (unsigned long long)queues[0].ran, (unsigned long long)queues[1].ran);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        DONE(vgpu_destroy(queues[i].vgpu));
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        fail("usage: api_tasks MODULE [SECONDS]");
    // The first virtual GPU initialises CUDA; the module wants a context.
    struct vgpu *vgpu = api_create(NULL, 0, 0);
    start();
    spin = api_kernel(argv[1], "spin_ns");
    if (argc > 2)
        alternate(atof(argv[2]));
    else
        behaviour();
    DONE(vgpu_destroy(vgpu));
    puts("done");
    return 0;
}
