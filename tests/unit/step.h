// SPDX-License-Identifier: AGPL-3.0-or-later
// Death at every instruction. A child runs one instruction at a time; whenever that has changed the pool, the pool as it now is (which is
// just what a kill at this moment would leave) is copied into a second pool, and the test looks there whether survivors can repair it.
#ifndef VGPU_TESTS_STEP_H
#define VGPU_TESTS_STEP_H

#include <string.h>
#include <sys/ptrace.h>

#include "tests/unit/tenant.h"

// The sanitizers make up to a hundred instructions of one: only the short ones are stepped through.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEP_IS_SLOW true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define STEP_IS_SLOW true
#endif
#endif
#ifndef STEP_IS_SLOW
#define STEP_IS_SLOW false
#endif

#define STEP_VGPUS 8u // what of a pool is watched and copied: its first entries
#define STEP_PROCESSES 8u

struct step_image {
    struct pool_gpu gpus[2];
    struct pool_process processes[STEP_PROCESSES];
    struct pool_vgpu vgpus[STEP_VGPUS];
    struct pool_member members[STEP_PROCESSES][POOL_MAX_GPUS];
};

// The child calls these around what is to be stepped through.
static inline void step_begin(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
}

static inline void step_end(void)
{
    raise(SIGSTOP);
}

static inline void step_capture(struct step_image *image, const struct pool_layout *layout)
{
    memcpy((void *)image->gpus, (const void *)layout->gpus, sizeof image->gpus);
    memcpy((void *)image->processes, (const void *)layout->processes, sizeof image->processes);
    memcpy((void *)image->vgpus, (const void *)layout->vgpus, sizeof image->vgpus);
    memcpy((void *)image->members, (const void *)layout->members, sizeof image->members);
}

static inline void step_restore(struct pool_layout *layout, const struct step_image *image)
{
    memcpy((void *)layout->gpus, (const void *)image->gpus, sizeof image->gpus);
    memcpy((void *)layout->processes, (const void *)image->processes, sizeof image->processes);
    memcpy((void *)layout->vgpus, (const void *)image->vgpus, sizeof image->vgpus);
    memcpy((void *)layout->members, (const void *)image->members, sizeof image->members);
}

// Lets the child run to where it stops next.
static inline bool step_go_on(pid_t child)
{
    int status;
    return ptrace(PTRACE_CONT, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
           WSTOPSIG(status) == SIGSTOP;
}

// Runs so many instructions of the child. false: before that it has stopped, or said (in shared memory; may be NULL) that it is through.
static inline bool step_by(pid_t child, uint64_t instructions, const _Atomic bool *through)
{
    for (int status; instructions > 0; instructions--)
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status) ||
            WSTOPSIG(status) != SIGTRAP || (through && atomic_load(through)))
            return false;
    return true;
}

// Steps the child, which is between step_begin and step_end, to the end. Calls `check` with every state that `layout` goes through, the
// first and the last included; false from it ends the run. Returns how many states held, or -1 where one did not or the child cannot
// be traced.
static inline int step_through(pid_t child, const struct pool_layout *layout, bool (*check)(const struct step_image *))
{
    static struct step_image now, before;
    int status, states = 0;
    uint64_t steps = 0;
    bool first = true;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return -1;
    for (;; steps++) {
        step_capture(&now, layout);
        if (first || memcmp(&now, &before, sizeof now) != 0) {
            first = false;
            memcpy(&before, &now, sizeof now);
            if (!check(&now)) {
                printf("# after %llu instructions\n", (unsigned long long)steps);
                return -1;
            }
            states++;
        }
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) < 0 || waitpid(child, &status, 0) != child)
            return -1;
        if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
            continue;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
            return -1;
        printf("# %llu instructions, %d states of the pool\n", (unsigned long long)steps, states);
        return states;
    }
}

#endif
