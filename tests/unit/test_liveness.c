// SPDX-License-Identifier: AGPL-3.0-or-later
// The life of process slots: what ends one, what does not, and what happens when the pool is taken away.
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

static struct tenant self;
static struct {
    _Atomic uint32_t ready, go;
    _Atomic uint32_t slot;
} * board;

static bool alive(uint32_t slot)
{
    int probe = pool_probe_open(&self.pool);
    bool lives = pool_alive(probe, slot);
    pool_probe_close(probe);
    return lives;
}

// Death is seen as soon as the address space is gone, which may be a moment after the process was waited for.
static bool dies(uint32_t slot)
{
    for (uint64_t deadline = clock_now_ns() + 10 * NS_PER_S; clock_now_ns() < deadline; short_nap())
        if (!alive(slot))
            return true;
    return false;
}

static pid_t start(int (*body)(void *))
{
    atomic_store(&board->ready, 0);
    atomic_store(&board->go, 0);
    pid_t pid = spawn(body, NULL);
    becomes(&board->ready, 1);
    return pid;
}

static int join_or_die(struct tenant *tenant)
{
    if (tenant_join(tenant, NULL, 1)) {
        fprintf(stderr, "# %s\n", tenant->error.text);
        _exit(1);
    }
    atomic_store(&board->slot, tenant->process);
    return 0;
}

static int close_everything(void *unused)
{
    static struct tenant tenant;
    (void)unused;
    join_or_die(&tenant);
    syscall(SYS_close_range, 3u, ~0u, 0u);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    atomic_store(&board->ready, 1);
    becomes(&board->go, 1);
    _exit(0);
}

static int fork_a_child(void *unused)
{
    static struct tenant tenant;
    (void)unused;
    join_or_die(&tenant);
    pid_t child = fork();
    if (child == 0) {
        atomic_store(&board->ready, 1);
        becomes(&board->go, 2);
        _exit(0);
    }
    becomes(&board->go, 1);
    _exit(0);
}

static int exec_another(void *unused)
{
    static struct tenant tenant;
    (void)unused;
    join_or_die(&tenant);
    atomic_store(&board->ready, 1);
    becomes(&board->go, 1);
    execlp("sleep", "sleep", "60", (char *)NULL);
    _exit(1);
}

static void test_ends(void)
{
    pid_t pid = start(close_everything);
    uint32_t slot = atomic_load(&board->slot);
    ok(alive(slot), "a program that closes all its descriptors stays alive");
    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    ok(alive(slot) && tenant_reap(&self) == 0, "a stopped one is alive");
    kill(pid, SIGCONT);
    atomic_store(&board->go, 1);
    is_int(exit_status(pid), 0, "it ends");
    ok(dies(slot), "with its end the slot is dead");
    is_int(tenant_reap(&self), 1, "and is taken back");

    pid = start(fork_a_child);
    slot = atomic_load(&board->slot);
    ok(alive(slot), "a program with a forked child is alive");
    atomic_store(&board->go, 1);
    exit_status(pid);
    ok(dies(slot), "the child does not prolong its parent's life");
    atomic_store(&board->go, 2);
    is_int(tenant_reap(&self), 1, "the parent's slot is taken back");

    pid = start(exec_another);
    slot = atomic_load(&board->slot);
    ok(alive(slot), "a program about to exec is alive");
    atomic_store(&board->go, 1);
    ok(dies(slot), "exec ends the slot");
    ok(kill(pid, 0) == 0, "though the process goes on");
    kill_and_wait(pid);
    tenant_reap(&self);

    pid = start(close_everything);
    slot = atomic_load(&board->slot);
    kill_and_wait(pid);
    ok(dies(slot), "kill -9 ends the slot");
    is_int(tenant_reap(&self), 1, "it is taken back");
    ok(alive(self.process), "all the while the observer is alive to itself");
    ok(pool_alive(-1, 0), "a question that cannot be asked is answered: alive");
}

// As a fork in the middle of pool_lock or pool_claim would leave it: the child has a copy of the descriptor.
static int forked_under_lock(void *argument)
{
    pool_forget_after_fork(&self.pool);
    bool closed = fcntl(*(int *)argument, F_GETFD) < 0 && self.pool.layout == NULL;
    atomic_store(&board->ready, 1);
    becomes(&board->go, 1);
    return closed ? 0 : 1;
}

static int forked_carelessly(void *unused)
{
    (void)unused;
    atomic_store(&board->ready, 1);
    becomes(&board->go, 1);
    return 0;
}

static void test_fork_under_lock(void)
{
    struct error error;
    int lock = pool_lock(&self.pool, 0, &error);
    atomic_store(&board->ready, 0);
    atomic_store(&board->go, 0);
    pid_t pid = spawn(forked_under_lock, &lock), careless = spawn(forked_carelessly, NULL);
    becomes(&board->ready, 1);
    ok(pool_lock(&self.pool, 0, &error) == -ETIMEDOUT && strstr(error.text, "another process holds it"),
       "a lock that is held is refused: %s", error.text);
    pool_unlock(lock);
    lock = pool_lock(&self.pool, 0, &error);
    ok(lock >= 0, "the lock is free again, although children have copies of its descriptor");
    pool_unlock(lock);
    atomic_store(&board->go, 1);
    is_int(exit_status(pid), 0, "a child that forgets the pool has closed its copy");
    is_int(exit_status(careless), 0, "the other one ends");
}

static int take_lock_and_die(void *unused)
{
    struct error error;
    struct pool pool;
    (void)unused;
    if (pool_open(&pool, tenant_pool, 0, &error) || pool_lock(&pool, 0, &error) < 0)
        return 1;
    kill(getpid(), SIGKILL);
    return 0;
}

static void test_lock(void)
{
    struct error error;
    exit_status(spawn(take_lock_and_die, NULL));
    int lock = pool_lock(&self.pool, NS_PER_S, &error);
    ok(lock >= 0, "the death of its holder frees the pool lock");
    pool_unlock(lock);
    for (int i = 0; i < 3; i++)
        ok((fcntl(lock, F_GETFD)) < 0, "no descriptor stays behind");
}

static void test_all_slots(void)
{
    static struct pool pools[POOL_MAX_PROCESSES];
    struct error error;
    uint32_t claimed = 1, wrong = 0; // one is the observer's
    tenant_reap(&self);
    int lock = pool_lock(&self.pool, NS_PER_S, &error);
    static bool seen[POOL_MAX_PROCESSES];
    int rc = 0;
    for (; claimed < POOL_MAX_PROCESSES; claimed++) {
        if (pool_open(&pools[claimed], tenant_pool, 0, &error) || (rc = pool_claim(&pools[claimed], &error)) < 0)
            break;
        wrong += seen[rc] || (uint32_t)rc == self.process;
        seen[rc] = true;
    }
    is_int(claimed, POOL_MAX_PROCESSES, "all %u slots can be claimed", POOL_MAX_PROCESSES);
    is_int(wrong, 0, "each once");
    struct pool more;
    pool_open(&more, tenant_pool, 0, &error);
    is_int(pool_claim(&more, &error), -ENOSPC, "then no more");
    ok(strstr(error.text, "1024") && strstr(error.text, tenant_pool), "one line says why: %s", error.text);
    is_int(pool_reap(&self.pool), 0, "none of them is taken for dead");
    pool_close(&pools[500]);
    is_int(pool_reap(&self.pool), 1, "one that is unmapped is");
    ok(pool_claim(&more, &error) >= 0, "its slot can be claimed again");
    pool_close(&more);
    for (uint32_t i = 1; i < claimed; i++)
        pool_close(&pools[i]);
    is_int(pool_reap(&self.pool), POOL_MAX_PROCESSES - 1, "all are taken back when they are gone");
    pool_unlock(lock);
}

static void test_descriptors(void)
{
    struct error error;
    struct rlimit limit, none = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    none.rlim_max = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    int rc = pool_lock(&self.pool, 0, &error);
    setrlimit(RLIMIT_NOFILE, &limit);
    ok(rc == -EMFILE && strstr(error.text, "Too many open files"), "no descriptor left: no lock, and the reason: %s",
       error.text);
}

// What a program prints on an output that it has closed must not be written over the pool.
static int without_standard_files(void *unused)
{
    struct pool pool;
    struct error error;
    (void)unused;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    int rc = pool_open(&pool, tenant_pool, 0, &error);
    int lock = pool_lock(&self.pool, 0, &error), probe = pool_probe_open(&self.pool);
    bool still_closed = write(0, "x", 1) < 0 && write(1, "x", 1) < 0 && write(2, "x", 1) < 0;
    _exit(rc == 0 && lock > 2 && probe > 2 && still_closed ? 0 : 1);
}

static void test_standard_files(void)
{
    is_int(exit_status(spawn(without_standard_files, NULL)), 0,
           "where standard input and outputs are closed, the pool is never opened in their place");
}

static void test_removed(void)
{
    struct error error = {""};
    struct pool other;
    tenant_pool_remove();
    for (int replaced = 0; replaced < 2; replaced++) {
        const char *how = replaced ? "replaced" : "removed";
        if (replaced)
            pool_open(&other, tenant_pool, 0, &error);
        is_int(pool_lock(&self.pool, 0, &error), -ESTALE, "a %s pool cannot be locked", how);
        ok(strstr(error.text, "removed or replaced") && strstr(error.text, tenant_pool), "one line says why: %s", error.text);
        is_int(pool_claim(&self.pool, &error), -ESTALE, "nor a slot be claimed");
        is_int(pool_probe_open(&self.pool), -ESTALE, "nor anybody's life be asked after");
        is_int(pool_reap(&self.pool), -ESTALE, "nor anything be reaped");
        ok(tenant_charge(&self, 1) == 0 && tenant_charge(&self, -1) == 0, "what is mapped goes on working");
    }
    pool_close(&other);
}

int main(void)
{
    board = share(sizeof *board);
    tenant_pool_new("liveness");
    is_int(tenant_join(&self, NULL, 100), 0, "the observer joins");
    test_ends();
    test_fork_under_lock();
    test_lock();
    test_descriptors();
    test_standard_files();
    test_all_slots();
    test_removed();
    tenant_pool_remove();
    return done_testing();
}
