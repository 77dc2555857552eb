// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/agent.h"

#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "scheduler/bell.h"
#include "scheduler/company.h"
#include "scheduler/turn.h"

#define STACK_BYTES (256u << 10) // for the driver's calls
#define STOP_PATIENCE_NS (250 * NS_PER_MS)
#define TIMER_SLACK_NS 1000ul
#define DISMISS_LOOK_NS (50 * NS_PER_US)
// Each gate has a slot of the pool to itself, or one for each GPU.
#define AGENT_GATES POOL_MAX_PROCESSES

static struct {
    pthread_mutex_t mutex;
    pthread_t thread;
    bool running, stopped;
    bool missed; // could not be started, and said so; each new grant tries again
    _Atomic bool stop;
    _Atomic uint32_t *doorbell;
    const struct gpu_ops *ops;
    const struct agent_service *other; // serves this library's gates instead; NULL: nobody
    _Atomic size_t gate_count;         // places used so far; NULL: dismissed
    struct gate *_Atomic gates[AGENT_GATES];
    struct gate *_Atomic serving; // whose step is under way
} agent = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static uint64_t serve_all(void)
{
    uint64_t next = AGENT_NEVER_NS;
    for (size_t i = 0; i < atomic_load(&agent.gate_count); i++) {
        struct gate *gate = atomic_load(&agent.gates[i]);
        // Pairs with agent_dismiss: announced first, then checked again, so that a gate is either left alone or waited for.
        atomic_store(&agent.serving, gate);
        if (!gate || atomic_load(&agent.gates[i]) != gate)
            continue;
        uint64_t wanted = agent_step(gate, clock_now_ns());
        if (wanted < next)
            next = wanted;
    }
    atomic_store(&agent.serving, NULL);
    return next;
}

static void *agent_main(void *unused)
{
    (void)unused;
    _Atomic uint32_t *doorbell = agent.doorbell;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); // of this thread alone: its sleeps are short and must be exact
    pthread_setname_np(pthread_self(), "vgpu-agent");
    agent.ops->agent_begin();
    while (!atomic_load(&agent.stop)) {
        // First the doorbell, then the work: a ring in between is not slept through.
        uint32_t rung = atomic_load(doorbell);
        uint64_t next = serve_all();
        if (next > clock_now_ns())
            futex_wait(doorbell, rung, FUTEX_EVERYONE, next);
    }
    return NULL;
}

void agent_sleep_at(_Atomic uint32_t *doorbell)
{
    pthread_mutex_lock(&agent.mutex);
    agent.doorbell = doorbell;
    pthread_mutex_unlock(&agent.mutex);
}

const struct agent_service agent_service = {agent_serve, agent_dismiss, agent_start};

void agent_use(const struct agent_service *other)
{
    agent.other = other;
}

void agent_serve(struct gate *gate)
{
    if (agent.other) {
        agent.other->serve(gate);
        return;
    }
    pthread_mutex_lock(&agent.mutex);
    size_t count = atomic_load(&agent.gate_count), place = 0;
    while (place < count && atomic_load(&agent.gates[place]))
        place++;
    if (!agent.doorbell)
        agent.doorbell = &gate->pool->layout->processes[gate->process].doorbell;
    agent.ops = gate->ops;
    if (place < AGENT_GATES)
        atomic_store(&agent.gates[place], gate);
    if (place == count && count < AGENT_GATES)
        atomic_store(&agent.gate_count, count + 1);
    pthread_mutex_unlock(&agent.mutex);
}

static int create_thread(void)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int rc = thread_create_quiet(&agent.thread, &attributes, agent_main, NULL);
    // Thread-local data is on the stack too, and a program may have more of it than that.
    if (rc == EINVAL)
        rc = thread_create_quiet(&agent.thread, NULL, agent_main, NULL);
    pthread_attr_destroy(&attributes);
    return rc;
}

void agent_start(void)
{
    if (agent.other) {
        agent.other->start();
        return;
    }
    pthread_mutex_lock(&agent.mutex);
    if (!agent.running && !agent.stopped && atomic_load(&agent.gate_count)) {
        int rc = create_thread();
        agent.running = rc == 0;
        if (rc && !agent.missed)
            log_warn("cannot start the helper thread (error %d): other programs wait longer for their turns", rc);
        agent.missed |= rc != 0;
    }
    pthread_mutex_unlock(&agent.mutex);
}

// Whether another process of this virtual GPU may still use the grant that `word` describes.
static bool others_use(const struct gate *gate, uint64_t word)
{
    uint32_t own = gate->process;
    POOL_EACH_BIT(process, gate->vgpu->members, POOL_MAX_PROCESSES)
    if (process != own &&
        atomic_load(&gate->pool->layout->members[process][gate->gpu_index].active_gen) == token_generation(word))
        return true;
    return false;
}

// Gives a token that this process holds to whoever waits, or ends its company, unless other processes of its virtual GPU may
// still use it.
static void abandon(struct gate *gate)
{
    uint64_t word = atomic_load(gate->token);
    bool holds = token_holder(word) == gate->vgpu_index;
    if ((!holds && !company_has(gate->vgpu, word)) || others_use(gate, word))
        return;
    if (!holds) {
        company_close(gate, word);
        company_leave(gate, word);
        return;
    }
    // Nothing passes the gate any more. Companions that still run see this when they have drained.
    atomic_store(&gate->member->drained_gen, token_generation(word));
    if (company_detains(gate, &word))
        return;
    while (token_holder(word) == gate->vgpu_index && !turn_pass(gate, word, clock_now_ns(), true))
        word = atomic_load(gate->token);
}

void agent_stop(void)
{
    pthread_mutex_lock(&agent.mutex);
    bool running = agent.running;
    agent.running = false;
    agent.stopped = true;
    atomic_store(&agent.stop, true);
    pthread_mutex_unlock(&agent.mutex);
    if (running) {
        atomic_fetch_add(agent.doorbell, 1);
        futex_wake(agent.doorbell, FUTEX_EVERYONE);
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_nsec += STOP_PATIENCE_NS;
        deadline.tv_sec += deadline.tv_nsec / (long)NS_PER_S;
        deadline.tv_nsec %= (long)NS_PER_S;
        pthread_timedjoin_np(agent.thread, NULL, &deadline);
    }
    pthread_mutex_lock(&agent.mutex);
    for (size_t i = 0; i < atomic_load(&agent.gate_count); i++)
        if (atomic_load(&agent.gates[i]))
            abandon(agent.gates[i]);
    pthread_mutex_unlock(&agent.mutex);
}

void agent_dismiss(struct gate *gate)
{
    if (agent.other) {
        agent.other->dismiss(gate);
        return;
    }
    pthread_mutex_lock(&agent.mutex);
    for (size_t i = 0; i < atomic_load(&agent.gate_count); i++)
        if (atomic_load(&agent.gates[i]) == gate)
            atomic_store(&agent.gates[i], NULL);
    pthread_mutex_unlock(&agent.mutex);
    while (atomic_load(&agent.serving) == gate)
        clock_sleep_ns(DISMISS_LOOK_NS);
    pthread_mutex_lock(&agent.mutex); // a stop on another thread may have given the token away, or be doing so
    abandon(gate);
    pthread_mutex_unlock(&agent.mutex);
}

void agent_reset(void)
{
    pthread_mutex_init(&agent.mutex, NULL);
    agent.running = agent.stopped = agent.missed = false;
    atomic_store(&agent.stop, false);
    atomic_store(&agent.gate_count, 0);
    atomic_store(&agent.serving, NULL);
    agent.doorbell = NULL;
    agent.other = NULL;
}
