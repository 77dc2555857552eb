// SPDX-License-Identifier: AGPL-3.0-or-later
// A made-up GPU for tests of the scheduler: work is a span of time that ends when the work before it has ended and its own length has
// passed. It lives in memory shared by the test's processes, so that a test can tell whether two of them ever had work on it at once.
#ifndef VGPU_TESTS_FAKE_GPU_H
#define VGPU_TESTS_FAKE_GPU_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "scheduler/gate.h"

#define FAKE_TENANTS 64

struct fake_gpu_shared {
    _Atomic uint64_t busy_until_ns[FAKE_TENANTS]; // by tenant
    _Atomic uint64_t work_ns[FAKE_TENANTS];       // sum of what each has launched
    _Atomic uint64_t launches[FAKE_TENANTS];
    _Atomic uint32_t sociable[FAKE_TENANTS]; // may have work at the same time as others that are
    _Atomic uint64_t meetings;               // launches of such while another such one's work was unfinished
    _Atomic uint64_t overlaps;               // other launches made while another tenant's work was unfinished
};

struct fake_gpu {
    struct fake_gpu_shared *shared;
    uint32_t tenant;
    uint64_t fence_ns;
};

static inline struct fake_gpu_shared *fake_gpu_share(void)
{
    return mmap(NULL, sizeof(struct fake_gpu_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static inline bool fake_gpu_allows(const struct fake_gpu *gpu, uint32_t other)
{
    return atomic_load(&gpu->shared->sociable[gpu->tenant]) && atomic_load(&gpu->shared->sociable[other]);
}

static inline void fake_gpu_launch(struct fake_gpu *gpu, uint64_t duration_ns)
{
    uint64_t now = clock_now_ns();
    for (uint32_t i = 0; i < FAKE_TENANTS; i++)
        if (i != gpu->tenant && atomic_load(&gpu->shared->busy_until_ns[i]) > now)
            atomic_fetch_add(fake_gpu_allows(gpu, i) ? &gpu->shared->meetings : &gpu->shared->overlaps, 1);
    uint64_t until = atomic_load(&gpu->shared->busy_until_ns[gpu->tenant]);
    uint64_t next;
    do {
        next = (until > now ? until : now) + duration_ns;
    } while (!atomic_compare_exchange_weak(&gpu->shared->busy_until_ns[gpu->tenant], &until, next));
    atomic_fetch_add(&gpu->shared->work_ns[gpu->tenant], duration_ns);
    atomic_fetch_add(&gpu->shared->launches[gpu->tenant], 1);
}

static inline void *fake_mark_put(void *gpu, void *stream)
{
    (void)stream;
    struct fake_gpu *fake = (struct fake_gpu *)gpu;
    uint64_t *mark = (uint64_t *)malloc(sizeof *mark);
    if (mark)
        *mark = atomic_load(&fake->shared->busy_until_ns[fake->tenant]);
    return mark;
}

static inline bool fake_mark_done(void *gpu, void *mark)
{
    (void)gpu;
    return clock_now_ns() >= *(uint64_t *)mark;
}

static inline void fake_mark_drop(void *gpu, void *mark)
{
    (void)gpu;
    free(mark);
}

static inline bool fake_fence_renew(void *gpu)
{
    struct fake_gpu *fake = (struct fake_gpu *)gpu;
    fake->fence_ns = atomic_load(&fake->shared->busy_until_ns[fake->tenant]);
    return true;
}

static inline bool fake_fence_done(void *gpu)
{
    return clock_now_ns() >= ((struct fake_gpu *)gpu)->fence_ns;
}

static inline bool fake_is_capturing(void *gpu, void *stream)
{
    (void)gpu, (void)stream;
    return false;
}

static inline void fake_agent_begin(void) {}

static const struct gpu_ops fake_gpu_ops = {
    .mark_put = fake_mark_put,
    .mark_done = fake_mark_done,
    .mark_drop = fake_mark_drop,
    .fence_renew = fake_fence_renew,
    .fence_done = fake_fence_done,
    .is_capturing = fake_is_capturing,
    .agent_begin = fake_agent_begin,
};

#endif
