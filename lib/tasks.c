// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/tasks.h"

#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "base/thread.h"

#define DEFAULT_DEPTH 1024u
#define NEVER_NS (UINT64_MAX / 2)

enum task_state { TASK_QUEUED, TASK_RUNNING, TASK_DONE, TASK_CANCELLED };

struct vgpu_task {
    uint64_t generation;
    _Atomic uint32_t references;
    _Atomic uint32_t state; // futex
    vgpu_task_function *function;
    void *argument;
    int result;
    struct error error; // of a negative result: what vgpu_detail said on the worker
    struct vgpu_task *next;
};

struct tasks {
    pthread_mutex_t mutex;
    pthread_cond_t work, room;
    struct vgpu_task *first, *last;
    uint32_t depth, waiting; // not yet taken by the worker
    uint64_t finished;
    bool started, ending;
    pthread_t worker;
};

static void let_go(struct vgpu_task *task)
{
    if (atomic_fetch_sub(&task->references, 1) == 1)
        free(task);
}

static bool move(struct vgpu_task *task, enum task_state to)
{
    uint32_t queued = TASK_QUEUED;
    return atomic_compare_exchange_strong(&task->state, &queued, to);
}

static void announce(struct vgpu_task *task, enum task_state state)
{
    atomic_store(&task->state, state); // pairs with the load in vgpu_task_wait, which then reads the result
    futex_wake(&task->state, FUTEX_EVERYONE);
}

// The next task, or NULL if there is none and the instance ends.
static struct vgpu_task *next_task(struct tasks *tasks)
{
    pthread_mutex_lock(&tasks->mutex);
    while (!tasks->first && !tasks->ending)
        pthread_cond_wait(&tasks->work, &tasks->mutex);
    struct vgpu_task *task = tasks->first;
    if (task) {
        tasks->first = task->next;
        tasks->waiting--;
        pthread_cond_signal(&tasks->room);
    }
    pthread_mutex_unlock(&tasks->mutex);
    return task;
}

static void run(struct vgpu *vgpu, struct vgpu_task *task)
{
    section_begin(vgpu, (const void *)task->function);
    section_of_thread.task = true;
    error_of_thread.text[0] = '\0';
    task->result = task->function(vgpu, task->argument);
    if (task->result < 0)
        task->error = error_of_thread;
    section_end();
    pthread_mutex_lock(&vgpu->tasks->mutex);
    vgpu->tasks->finished++;
    pthread_mutex_unlock(&vgpu->tasks->mutex);
    announce(task, TASK_DONE);
}

static void *work(void *argument)
{
    struct vgpu *vgpu = argument;
    pthread_setname_np(pthread_self(), "vgpu-tasks");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    REAL(cuCtxPushCurrent_v2)(vgpu->gpu->context);
    for (struct vgpu_task *task; (task = next_task(vgpu->tasks)) != NULL; let_go(task))
        if (move(task, TASK_RUNNING))
            run(vgpu, task);
    return NULL;
}

// Under the mutex.
static int start_worker(struct vgpu *vgpu)
{
    if (vgpu->tasks->started)
        return 0;
    int rc = thread_create_quiet(&vgpu->tasks->worker, NULL, work, vgpu);
    if (rc)
        return fail(-rc, "cannot start the thread that runs tasks: %s", strerror(rc));
    vgpu->tasks->started = true;
    return 0;
}

static int enqueue(struct vgpu *vgpu, struct vgpu_task *task)
{
    struct tasks *tasks = vgpu->tasks;
    int rc = 0;
    pthread_mutex_lock(&tasks->mutex);
    while (rc == 0 && tasks->waiting >= tasks->depth && !tasks->ending) {
        if (section_of_thread.vgpu)
            rc = fail(-EAGAIN, "%u tasks wait already, and waiting for room in a turn could last forever", tasks->depth);
        else
            pthread_cond_wait(&tasks->room, &tasks->mutex);
    }
    if (rc == 0 && tasks->ending)
        rc = fail(-ESHUTDOWN, "the virtual GPU is being destroyed");
    if (rc == 0)
        rc = start_worker(vgpu);
    if (rc == 0) {
        if (tasks->first)
            tasks->last->next = task;
        else
            tasks->first = task;
        tasks->last = task;
        tasks->waiting++;
        pthread_cond_signal(&tasks->work);
    }
    pthread_mutex_unlock(&tasks->mutex);
    return rc;
}

VGPU_API int vgpu_submit(struct vgpu *vgpu, vgpu_task_function *function, void *argument, struct vgpu_task **out)
{
    CALL call = call_begin(vgpu);
    if (call.rc)
        return call.rc;
    if (!function)
        return fail(-EINVAL, "the task has no function");
    struct vgpu_task *task = malloc(sizeof *task);
    if (!task)
        return fail(-ENOMEM, "out of memory");
    *task = (struct vgpu_task){.generation = vgpu->generation,
                               .references = out ? 2 : 1,
                               .function = function,
                               .argument = argument};
    int rc = enqueue(vgpu, task);
    if (rc)
        free(task);
    else if (out)
        *out = task;
    return rc;
}

static int check(const struct vgpu_task *task)
{
    if (!task)
        return fail(-EINVAL, "the task is NULL");
    if (task->generation != atomic_load(&home_generation))
        return fail(-ECHILD, "the task was submitted by the parent of this process");
    return 0;
}

VGPU_API int vgpu_task_wait(struct vgpu_task *task, int64_t timeout_ns, int *result)
{
    ENTRY;
    int rc = check(task);
    if (rc)
        return rc;
    uint64_t deadline_ns = timeout_ns < 0 ? NEVER_NS : clock_now_ns() + (uint64_t)timeout_ns;
    uint32_t state;
    while ((state = atomic_load(&task->state)) != TASK_DONE && state != TASK_CANCELLED && rc == 0) {
        if (section_of_thread.vgpu && timeout_ns)
            rc = fail(-EDEADLK, "waiting for a task in a turn, which lasts as long as the wait");
        else if (clock_now_ns() >= deadline_ns)
            rc = fail(-ETIMEDOUT, "the task was not done in time");
        else
            futex_wait(&task->state, state, FUTEX_EVERYONE, deadline_ns);
    }
    if (state == TASK_CANCELLED)
        return fail(-ECANCELED, "the task was cancelled before it began");
    if (rc)
        return rc;
    if (task->result < 0)
        error_of_thread = task->error;
    if (result)
        *result = task->result;
    return 0;
}

VGPU_API int vgpu_task_cancel(struct vgpu_task *task)
{
    ENTRY;
    int rc = check(task);
    if (rc)
        return rc;
    if (move(task, TASK_CANCELLED)) {
        futex_wake(&task->state, FUTEX_EVERYONE);
        return 0;
    }
    switch (atomic_load(&task->state)) {
    case TASK_RUNNING:
        return fail(-EBUSY, "the task has begun");
    case TASK_CANCELLED:
        return 0;
    default:
        return fail(-EALREADY, "the task is done");
    }
}

VGPU_API void vgpu_task_release(struct vgpu_task *task)
{
    if (task)
        let_go(task);
}

int tasks_init(struct vgpu *vgpu, uint32_t depth)
{
    struct tasks *tasks = calloc(1, sizeof *tasks);
    if (!tasks)
        return fail(-ENOMEM, "out of memory");
    tasks->depth = depth ? depth : DEFAULT_DEPTH;
    pthread_mutex_init(&tasks->mutex, NULL);
    pthread_cond_init(&tasks->work, NULL);
    pthread_cond_init(&tasks->room, NULL);
    vgpu->tasks = tasks;
    return 0;
}

void tasks_drain(struct vgpu *vgpu)
{
    struct tasks *tasks = vgpu->tasks;
    pthread_mutex_lock(&tasks->mutex);
    tasks->ending = true;
    bool started = tasks->started;
    pthread_cond_broadcast(&tasks->work);
    pthread_cond_broadcast(&tasks->room);
    pthread_mutex_unlock(&tasks->mutex);
    if (started)
        pthread_join(tasks->worker, NULL);
}

void tasks_resume(struct vgpu *vgpu)
{
    pthread_mutex_lock(&vgpu->tasks->mutex);
    vgpu->tasks->ending = vgpu->tasks->started = false;
    pthread_mutex_unlock(&vgpu->tasks->mutex);
}

void tasks_free(struct vgpu *vgpu)
{
    pthread_cond_destroy(&vgpu->tasks->room);
    pthread_cond_destroy(&vgpu->tasks->work);
    pthread_mutex_destroy(&vgpu->tasks->mutex);
    free(vgpu->tasks);
}

struct tasks_view tasks_look(struct vgpu *vgpu)
{
    struct tasks *tasks = vgpu->tasks;
    pthread_mutex_lock(&tasks->mutex);
    struct tasks_view view = {.waiting = tasks->waiting, .finished = tasks->finished};
    pthread_mutex_unlock(&tasks->mutex);
    return view;
}
