// SPDX-License-Identifier: AGPL-3.0-or-later
// The token scheduler among real processes that share a made-up GPU: exclusion, shares, give-away, stopped and killed holders.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scheduler/agent.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/tap.h"

#define MS NS_PER_MS
#define QUEUE_NS (30 * MS)

struct tenant {
    const char *name; // NULL: a virtual GPU of its own
    uint32_t weight;
    uint64_t kernel_ns;
    uint64_t think_ns; // pause after each launch has completed; 0: keep the queue full
    uint64_t run_ns;
    uint64_t hold_after; // stop launching after so many and sleep, keeping the token; 0: never
    bool synchronous;    // wait for each launch to complete
    uint32_t concurrency;
};

static char pool_path[64];
static struct fake_gpu_shared *shared;

static void nap(uint64_t ns)
{
    struct timespec pause = clock_timespec(ns);
    while (nanosleep(&pause, &pause) && errno == EINTR)
        ;
}

static int join_pool(struct pool *pool, const struct tenant *tenant, uint32_t *gpu, uint32_t *vgpu)
{
    static const uint8_t uuid[POOL_UUID_BYTES] = "made-up GPU 0..";
    struct error error = {""};
    struct tenancy_request request = {.name = tenant->name, .weight = tenant->weight, .concurrency = tenant->concurrency};
    if (pool_open(pool, pool_path, 0, &error) < 0)
        goto fail;
    int lock = pool_lock(pool, POOL_LOCK_PATIENCE_NS, &error);
    if (lock < 0)
        goto fail;
    int slot = pool_claim(pool, &error), gpu_index = -1, vgpu_index = -1;
    if (slot >= 0)
        gpu_index = pool_gpu_enter(pool, uuid, "made-up GPU", 1ull << 34, &error);
    if (gpu_index >= 0)
        vgpu_index = pool_vgpu_join(pool, (uint32_t)slot, (uint32_t)gpu_index, &request, &error);
    pool_unlock(lock);
    if (vgpu_index < 0)
        goto fail;
    *gpu = (uint32_t)gpu_index;
    *vgpu = (uint32_t)vgpu_index;
    return slot;
fail:
    fprintf(stderr, "# %s\n", error.text);
    return -1;
}

static void run_tenant(uint32_t index, const struct tenant *tenant)
{
    static struct pool pool;
    static struct gate gate;
    static int function;
    struct fake_gpu gpu = {.shared = shared, .tenant = index};
    uint32_t gpu_index, vgpu_index;
    int slot = join_pool(&pool, tenant, &gpu_index, &vgpu_index);
    if (slot < 0)
        _exit(1);
    atomic_store(&shared->sociable[index], tenant->concurrency > 1);
    gate_init(&gate, &pool, (uint32_t)slot, gpu_index, vgpu_index, &fake_gpu_ops, &gpu);
    uint64_t end = clock_now_ns() + tenant->run_ns;
    for (uint64_t launches = 1; clock_now_ns() < end; launches++) {
        // A queue of dozens of windows, which the window must keep short, yet not so deep that what was queued before the first
        // contended moment outweighs the run.
        while (atomic_load(&shared->busy_until_ns[index]) > clock_now_ns() + QUEUE_NS)
            nap(tenant->kernel_ns);
        enum gate_pass pass = gate_enter(&gate, NULL, &function);
        fake_gpu_launch(&gpu, tenant->kernel_ns);
        gate_leave(&gate, pass, NULL, &function);
        if (tenant->synchronous || tenant->think_ns)
            while (atomic_load(&shared->busy_until_ns[index]) > clock_now_ns())
                nap(20000);
        if (tenant->think_ns)
            nap(tenant->think_ns);
        if (launches == tenant->hold_after)
            nap(end > clock_now_ns() ? end - clock_now_ns() : 0);
    }
    agent_stop();
    _exit(0);
}

static pid_t spawn(uint32_t index, const struct tenant *tenant)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        run_tenant(index, tenant);
    return pid;
}

static bool wait_for_launches(uint32_t index, uint64_t count)
{
    for (uint64_t deadline = clock_now_ns() + 10000 * MS; clock_now_ns() < deadline; nap(MS))
        if (atomic_load(&shared->launches[index]) >= count)
            return true;
    return false;
}

static void fresh_start(void)
{
    unlink(pool_path);
    memset((void *)shared, 0, sizeof *shared);
}

static bool all_exit_cleanly(const pid_t *pids, size_t count)
{
    bool clean = true;
    for (size_t i = 0; i < count; i++) {
        int status = -1;
        clean = waitpid(pids[i], &status, 0) == pids[i] && status == 0 && clean;
    }
    return clean;
}

// Runs the tenants side by side and returns each one's share of the work in permille.
static bool run_side_by_side(const struct tenant *tenants, size_t count, double permille[])
{
    pid_t pids[FAKE_TENANTS];
    uint64_t before[FAKE_TENANTS], sum = 0;
    fresh_start();
    for (uint32_t i = 0; i < count; i++)
        pids[i] = spawn(i, &tenants[i]);
    for (uint32_t i = 0; i < count; i++)
        wait_for_launches(i, 1);
    nap(300 * MS);
    for (size_t i = 0; i < count; i++)
        before[i] = atomic_load(&shared->work_ns[i]);
    atomic_store(&shared->overlaps, 0); // the first contended moment may find a full queue
    nap(tenants[0].run_ns - 1000 * MS);
    uint64_t after[FAKE_TENANTS];
    for (size_t i = 0; i < count; i++) {
        after[i] = atomic_load(&shared->work_ns[i]) - before[i];
        sum += after[i];
    }
    uint64_t overlaps = atomic_load(&shared->overlaps);
    for (size_t i = 0; i < count; i++)
        permille[i] = sum ? 1000.0 * (double)after[i] / (double)sum : 0;
    ok(overlaps == 0, "no launch while another tenant's work was unfinished (%llu were)", (unsigned long long)overlaps);
    return all_exit_cleanly(pids, count);
}

static bool near(double value, double goal, double slack)
{
    return value > goal - slack && value < goal + slack;
}

static void test_shares(void)
{
    double share[3];
    const struct tenant equal[] = {{.weight = 100, .kernel_ns = 500000, .run_ns = 3000 * MS},
                                   {.weight = 100, .kernel_ns = 100000, .run_ns = 3000 * MS}};
    ok(run_side_by_side(equal, 2, share), "two equal tenants with kernels of 0.5 and 0.1 ms run to the end");
    ok(near(share[0], 500, 60), "they share evenly: %.0f and %.0f permille", share[0], share[1]);
    const struct tenant weighted[] = {{.weight = 100, .kernel_ns = 300000, .run_ns = 4000 * MS},
                                      {.weight = 200, .kernel_ns = 300000, .run_ns = 4000 * MS},
                                      {.weight = 500, .kernel_ns = 300000, .run_ns = 4000 * MS}};
    ok(run_side_by_side(weighted, 3, share), "three tenants with weights 1:2:5 run to the end");
    ok(near(share[0], 125, 60) && near(share[1], 250, 60) && near(share[2], 625, 60),
       "they share by weight: %.0f %.0f %.0f permille", share[0], share[1], share[2]);
}

static void test_joined(void)
{
    double share[3];
    const struct tenant tenants[] = {{.name = "both", .weight = 100, .kernel_ns = 300000, .run_ns = 3000 * MS},
                                     {.weight = 100, .kernel_ns = 300000, .run_ns = 3000 * MS},
                                     {.name = "both", .weight = 100, .kernel_ns = 300000, .run_ns = 3000 * MS}};
    pid_t pids[3];
    fresh_start();
    for (uint32_t i = 0; i < 3; i++)
        pids[i] = spawn(i, &tenants[i]);
    for (uint32_t i = 0; i < 3; i++)
        ok(wait_for_launches(i, 20), "process %u gets its turns", i);
    ok(all_exit_cleanly(pids, 3), "two processes of one virtual GPU and a third beside them run to the end");
    (void)share;
}

static void test_idle_holder_gives_away(void)
{
    const struct tenant holder = {.weight = 100, .kernel_ns = 100000, .run_ns = 60000 * MS, .hold_after = 10};
    const struct tenant busy = {.weight = 100, .kernel_ns = 100000, .run_ns = 60000 * MS, .synchronous = true};
    fresh_start();
    pid_t pids[2] = {spawn(0, &holder)};
    ok(wait_for_launches(0, 10), "a tenant launches, then sits on the token");
    pids[1] = spawn(1, &busy);
    ok(wait_for_launches(1, 500), "another one runs at once and keeps running");
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
}

static void test_dead_and_stopped_holders(void)
{
    const struct tenant saturated = {.weight = 100, .kernel_ns = 100000, .run_ns = 60000 * MS};
    const struct tenant other = {.weight = 100, .kernel_ns = 100000, .run_ns = 60000 * MS};
    fresh_start();
    pid_t first = spawn(0, &saturated), second = spawn(1, &other);
    ok(wait_for_launches(0, 100) && wait_for_launches(1, 100), "two tenants take turns");
    for (int i = 0; i < 3; i++) {
        kill(first, SIGSTOP);
        uint64_t seen = atomic_load(&shared->launches[1]);
        ok(wait_for_launches(1, seen + 500), "the other goes on while one is stopped");
        seen = atomic_load(&shared->launches[0]);
        kill(first, SIGCONT);
        ok(wait_for_launches(0, seen + 200), "the stopped one comes back");
    }
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    uint64_t seen = atomic_load(&shared->launches[1]);
    ok(wait_for_launches(1, seen + 1000), "the other goes on after one was killed");
    first = spawn(0, &saturated);
    seen = atomic_load(&shared->launches[0]);
    ok(wait_for_launches(0, seen + 100), "a new one gets its turns");
    kill(first, SIGKILL);
    kill(second, SIGKILL);
    waitpid(first, NULL, 0);
    waitpid(second, NULL, 0);
}

// Two that do not fill the GPU run at the same time and are charged half each, so that the lighter one has to rest.
static void test_company(void)
{
    double share[3];
    const struct tenant pair[] = {{.weight = 100, .kernel_ns = 300000, .run_ns = 4000 * MS, .concurrency = 2},
                                  {.weight = 300, .kernel_ns = 300000, .run_ns = 4000 * MS, .concurrency = 2}};
    ok(run_side_by_side(pair, 2, share), "two that allow it, with weights 1:3, run to the end");
    ok(atomic_load(&shared->meetings) > 1000, "they run at the same time");
    ok(near(share[0], 333, 70), "the heavier one always, the lighter half of the time: %.0f and %.0f permille", share[0],
       share[1]);
    const struct tenant three[] = {{.weight = 100, .kernel_ns = 300000, .run_ns = 4000 * MS, .concurrency = 2},
                                   {.weight = 100, .kernel_ns = 300000, .run_ns = 4000 * MS},
                                   {.weight = 100, .kernel_ns = 300000, .run_ns = 4000 * MS, .concurrency = 2}};
    ok(run_side_by_side(three, 3, share), "two that allow it and one that does not run to the end");
    ok(atomic_load(&shared->meetings) > 1000, "the two run at the same time");
    ok(share[1] > 130, "and the third has its turns, alone: %.0f permille", share[1]);
}

int main(void)
{
    snprintf(pool_path, sizeof pool_path, "/dev/shm/vgpu-test-scheduler.%d", (int)getpid());
    shared = fake_gpu_share();
    test_shares();
    test_joined();
    test_company();
    test_idle_holder_gives_away();
    test_dead_and_stopped_holders();
    unlink(pool_path);
    return done_testing();
}
