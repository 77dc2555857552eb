// SPDX-License-Identifier: AGPL-3.0-or-later
// Tenants for the unit tests of the pool and of what stands on it: pools of the test's own, joined in one call, and processes that are
// started, waited for and killed.
#ifndef VGPU_TESTS_TENANT_H
#define VGPU_TESTS_TENANT_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "pool/tenancy.h"
#include "tests/unit/random.h"

#define TENANT_CHUNK (2ull << 20)
#define TENANT_GPU_CHUNKS 1000u

// One process's place in a pool, on one GPU of TENANT_GPU_CHUNKS chunks.
struct tenant {
    struct pool pool;
    uint32_t process, gpu, vgpu;
    struct error error;
};

static char tenant_pool[64];

static inline void tenant_pool_remove(void)
{
    unlink(tenant_pool);
}

// Names a pool that does not exist yet, for the tests that follow.
static inline void tenant_pool_new(const char *test)
{
    snprintf(tenant_pool, sizeof tenant_pool, "/dev/shm/vgpu-test-%.20s.%d", test, (int)getpid());
    unlink(tenant_pool);
}

// Joins as a fresh process would: reaps, claims, enters GPU number `gpu`, joins. Returns 0 or -errno.
static inline int tenant_join_on(struct tenant *tenant, uint8_t gpu, const char *name, uint64_t quota_chunks)
{
    uint8_t uuid[POOL_UUID_BYTES] = {0x5a, gpu};
    struct tenancy_request request = {.name = name, .quota_chunks = quota_chunks};
    *tenant = (struct tenant){0};
    int rc = pool_open(&tenant->pool, tenant_pool, 0, &tenant->error);
    if (rc)
        return rc;
    int lock = pool_lock(&tenant->pool, POOL_LOCK_PATIENCE_NS, &tenant->error);
    if (lock < 0)
        return lock;
    pool_reap(&tenant->pool);
    rc = pool_claim(&tenant->pool, &tenant->error);
    tenant->process = (uint32_t)rc;
    if (rc >= 0)
        rc = pool_gpu_enter(&tenant->pool, uuid, "Test GPU", TENANT_GPU_CHUNKS * tenant->pool.chunk_bytes, &tenant->error);
    tenant->gpu = (uint32_t)rc;
    if (rc >= 0)
        rc = pool_vgpu_join(&tenant->pool, tenant->process, tenant->gpu, &request, &tenant->error);
    tenant->vgpu = (uint32_t)rc;
    pool_unlock(lock);
    if (rc < 0)
        pool_close(&tenant->pool);
    return rc < 0 ? rc : 0;
}

static inline int tenant_join(struct tenant *tenant, const char *name, uint64_t quota_chunks)
{
    return tenant_join_on(tenant, 0, name, quota_chunks);
}

static inline struct account_ref tenant_account(const struct tenant *tenant)
{
    struct pool_layout *layout = tenant->pool.layout;
    return (struct account_ref){layout, pool_account(layout, tenant->vgpu), tenant->process, tenant->gpu};
}

static inline int tenant_charge(const struct tenant *tenant, int64_t chunks)
{
    struct account_ref ref = tenant_account(tenant);
    return account_add(&ref, chunks, pool_vgpu_limit(tenant->pool.layout, tenant->vgpu));
}

static inline uint64_t tenant_holding(const struct tenant *tenant)
{
    return account_holding(&tenant->pool.layout->members[tenant->process][tenant->gpu]);
}

// Takes back what the dead left. Returns how many there were.
static inline int tenant_reap(struct tenant *tenant)
{
    int lock = pool_lock(&tenant->pool, POOL_LOCK_PATIENCE_NS, &tenant->error);
    int reaped = lock < 0 ? lock : pool_reap(&tenant->pool);
    if (lock >= 0)
        pool_unlock(lock);
    return reaped;
}

// Memory that a test's processes share.
static inline void *share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

// Runs `body` in a child; what it returns is the child's exit status.
static inline pid_t spawn(int (*body)(void *), void *argument)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(body(argument));
    return pid;
}

static inline int exit_status(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void kill_and_wait(pid_t pid)
{
    kill(pid, SIGKILL);
    exit_status(pid);
}

static inline void short_nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

// Waits until *word is at least `value`; false after ten seconds.
static inline bool becomes(const _Atomic uint32_t *word, uint32_t value)
{
    for (uint64_t deadline = clock_now_ns() + 10 * NS_PER_S; clock_now_ns() < deadline; short_nap())
        if (atomic_load(word) >= value)
            return true;
    return false;
}

#endif
