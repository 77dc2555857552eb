// SPDX-License-Identifier: AGPL-3.0-or-later
// Options changed while their virtual GPU lives: what is refused, all or none, quotas against allocations at the same moment, and death at
// every instruction.
#include <string.h>

#include "allocator/holdings.h"
#include "pool/change.h"
#include "pool/reservation.h"
#include "scheduler/agent.h"
#include "scheduler/grant.h"
#include "scheduler/notice.h"
#include "scheduler/policy.h"
#include "scheduler/turn.h"
#include "tests/unit/fake_gpu.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

#define ALL TENANT_GPU_CHUNKS

static struct {
    _Atomic uint32_t ready, go, taken;
} * board;

static int change_all(struct tenant *tenant, const struct pool_change *changes, size_t count)
{
    int lock = pool_lock(&tenant->pool, POOL_LOCK_PATIENCE_NS, &tenant->error);
    if (lock < 0)
        return lock;
    pool_reap(&tenant->pool);
    int rc = pool_change(&tenant->pool, changes, count, &tenant->error);
    pool_unlock(lock);
    return rc;
}

static int change(struct tenant *tenant, struct pool_change wanted)
{
    return change_all(tenant, &wanted, 1);
}

static int change_quota(struct tenant *tenant, uint64_t chunks)
{
    return change(tenant, (struct pool_change){.vgpu = tenant->vgpu, .quota_chunks = chunks});
}

static struct pool_vgpu *vgpu_of(const struct tenant *tenant)
{
    return &tenant->pool.layout->vgpus[tenant->vgpu];
}

static uint64_t quota(const struct tenant *tenant)
{
    return atomic_load(&vgpu_of(tenant)->quota_chunks);
}

static uint64_t reserved(const struct tenant *tenant)
{
    return atomic_load(&tenant->pool.layout->gpus[tenant->gpu].reserved_chunks);
}

static void test_turns(void)
{
    static struct tenant a;
    static const enum priority high = PRIORITY_HIGH, normal = PRIORITY_NORMAL;
    static const uint64_t quantum = 5 * NS_PER_MS, automatic = 0;
    tenant_pool_new("change");
    tenant_join(&a, "alice", 100);
    const struct pool_vgpu *vgpu = vgpu_of(&a);
    struct pool_gpu *gpu = &a.pool.layout->gpus[a.gpu];
    ok(!pool_bit_get(gpu->high, a.vgpu), "a virtual GPU of the normal class is not among those of the high one");
    is_int(change(&a, (struct pool_change){.vgpu = a.vgpu,
                                           .weight = 700,
                                           .limit_percent = 30,
                                           .priority = &high,
                                           .quantum_ns = &quantum,
                                           .concurrency = 4}),
           0, "weight, limit, class, quantum and concurrency can be changed");
    ok(atomic_load(&vgpu->weight) == 700 && atomic_load(&vgpu->limit_percent) == 30 &&
           atomic_load(&vgpu->priority) == PRIORITY_HIGH && atomic_load(&vgpu->quantum_ns) == quantum &&
           atomic_load(&vgpu->concurrency) == 4,
       "and are what was asked for");
    ok(pool_bit_get(gpu->high, a.vgpu), "then it is");
    pool_bit_clear(gpu->high, a.vgpu);
    tenant_reap(&a);
    ok(pool_bit_get(gpu->high, a.vgpu), "also where who changed it was killed on the way, once somebody has reaped");
    ok(atomic_load(&vgpu->limited_ns) > 0, "it is noted since when the limit holds");
    is_int(change(&a, (struct pool_change){.vgpu = a.vgpu, .weight = 5}), 0, "one can be changed");
    ok(atomic_load(&vgpu->weight) == 5 && atomic_load(&vgpu->limit_percent) == 30 &&
           atomic_load(&vgpu->priority) == PRIORITY_HIGH && atomic_load(&vgpu->quantum_ns) == quantum &&
           atomic_load(&vgpu->concurrency) == 4 && quota(&a) == 100,
       "and the others stay");
    change(&a, (struct pool_change){.vgpu = a.vgpu, .limit_percent = 100, .priority = &normal, .quantum_ns = &automatic});
    ok(!pool_bit_get(gpu->high, a.vgpu), "and no longer once it is of another class");
    ok(atomic_load(&vgpu->limit_percent) == 0 && atomic_load(&vgpu->priority) == PRIORITY_NORMAL &&
           atomic_load(&vgpu->quantum_ns) == 0,
       "all can be put back to their defaults");
    pool_close(&a.pool);
}

static void test_quotas(void)
{
    static struct tenant a, b, open_one, small;
    tenant_pool_new("change");
    tenant_join(&a, "alice", 500);
    tenant_join(&b, "bob", 300);
    tenant_charge(&a, 200);
    is_int(change_quota(&a, 200), 0, "a quota can be lowered to what is held");
    is_int(reserved(&a), 500, "the rest is no longer reserved");
    is_int(tenant_charge(&a, 1), -ENOMEM, "and cannot be had");
    is_int(change_quota(&a, 199), -EBUSY, "it cannot be lower");
    ok(strstr(a.error.text, "alice on Test GPU") && strstr(a.error.text, "398 MiB") && strstr(a.error.text, "holds 400 MiB"),
       "one line has both numbers: %s", a.error.text);
    is_int(change_quota(&a, 701), -ENOMEM, "it can be raised no further than others leave");
    ok(strstr(a.error.text, "a quota of 1.4 GiB") && strstr(a.error.text, "bob has reserved 0.6 GiB") &&
           !strstr(a.error.text, "alice has"),
       "one line says who has the rest: %s", a.error.text);
    ok(quota(&a) == 200 && reserved(&a) == 500, "a refusal changes nothing");
    is_int(change_quota(&a, 700), 0, "up to that it can");
    ok(quota(&a) == 700 && reserved(&a) == ALL && tenant_charge(&a, 500) == 0, "and be used");
    is_int(change_quota(&b, ALL + 1), -ENOMEM, "what the GPU does not have cannot be had: %s", b.error.text);
    atomic_store(&a.pool.layout->gpus[0].context_bytes, 100 * TENANT_CHUNK);
    is_int(change_quota(&b, 99), -EBUSY, "nor can less than a context takes");
    ok(strstr(b.error.text, "198 MiB: a context alone takes 200 MiB"), "one line has both numbers: %s", b.error.text);
    is_int(change_quota(&b, 100), 0, "just that can");
    tenant_join(&small, "small", 40);
    ok(change_quota(&small, 60) == 0 && change_quota(&small, 20) == 0,
       "who lives with less than a context, since its program pays for that, can get more and less: %s", small.error.text);
    pool_close(&small.pool);
    tenant_reap(&a);
    tenant_join(&open_one, "olga", 0);
    is_int(change_quota(&open_one, 10), -EINVAL, "who began without a quota cannot get one: %s", open_one.error.text);
    is_int(tenant_charge(&open_one, 150), 0, "he holds what is not reserved");
    is_int(change_quota(&b, 151), -ENOMEM, "which cannot be reserved");
    ok(strstr(b.error.text, "olga holds 0.3 GiB"), "one line says by whom: %s", b.error.text);
    a.pool.layout->header.flags |= POOL_OVERCOMMIT;
    is_int(change_quota(&b, ALL), 0, "but in a pool made for overcommit");
    pool_close(&a.pool);
    pool_close(&b.pool);
    pool_close(&open_one.pool);
}

static void test_all_or_none(void)
{
    static struct tenant a, elsewhere, other;
    tenant_pool_new("change");
    tenant_join_on(&a, 0, "team", 500);
    tenant_join_on(&elsewhere, 1, "team", 500);
    tenant_join_on(&other, 1, "other", 300);
    tenant_charge(&elsewhere, 50);
    const struct pool_change up[] = {{.vgpu = a.vgpu, .quota_chunks = 800, .weight = 9},
                                     {.vgpu = elsewhere.vgpu, .quota_chunks = 800, .weight = 9}};
    is_int(change_all(&a, up, 2), -ENOMEM, "quotas are raised on all GPUs or on none");
    ok(quota(&a) == 500 && reserved(&a) == 500 && quota(&elsewhere) == 500 && reserved(&elsewhere) == 800, "here on none");
    is_int(atomic_load(&vgpu_of(&a)->weight), TENANCY_DEFAULT_WEIGHT, "nor is anything else changed");
    const struct pool_change mixed[] = {{.vgpu = a.vgpu, .quota_chunks = 100},
                                        {.vgpu = elsewhere.vgpu, .quota_chunks = 701, .weight = 9}};
    is_int(change_all(&a, mixed, 2), -ENOMEM, "also where one is lowered before the other is refused");
    ok(quota(&a) == 500 && reserved(&a) == 500 && !atomic_load(&vgpu_of(&a)->quota_before), "which is taken back");
    const struct pool_change down[] = {{.vgpu = a.vgpu, .quota_chunks = 100}, {.vgpu = elsewhere.vgpu, .quota_chunks = 100}};
    is_int(change_all(&a, down, 2), 0, "where all can be, all are");
    ok(quota(&a) == 100 && quota(&elsewhere) == 100 && reserved(&a) == 100 && reserved(&elsewhere) == 400, "here both");
    pool_close(&a.pool);
    pool_close(&elsewhere.pool);
    pool_close(&other.pool);
}

// A limit that comes while its virtual GPU has the token to itself.
static void test_limit_of_holder(void)
{
    static struct tenant a;
    static struct gate gate;
    static struct fake_gpu gpu;
    tenant_pool_new("change");
    tenant_join(&a, "alice", 100);
    gpu.shared = fake_gpu_share();
    gate_init(&gate, &a.pool, a.process, a.gpu, a.vgpu, &fake_gpu_ops, &gpu);
    ok(turn_claim(&gate, atomic_load(gate.token)), "a virtual GPU has the token");
    uint64_t now = clock_now_ns();
    atomic_store(&vgpu_of(&a)->begun, grant_value(atomic_load(gate.token), now - 60 * NS_PER_S));
    uint32_t rung = atomic_load(&a.pool.layout->processes[a.process].doorbell);
    change(&a, (struct pool_change){.vgpu = a.vgpu, .limit_percent = 50});
    notice_change(a.pool.layout, a.vgpu, 100, PRIORITY_NORMAL);
    uint64_t word = atomic_load(gate.token);
    ok(token_holder(word) == a.vgpu && word & TOKEN_CONTENDED, "with a limit its launches take the slow way");
    ok(atomic_load(&a.pool.layout->processes[a.process].doorbell) != rung, "and its agent looks");
    now = atomic_load(&vgpu_of(&a)->limited_ns) + 200 * NS_PER_MS;
    ok(turn_revoke(&gate, &word) && turn_pass(&gate, word | TOKEN_REVOKED, now, false), "its turn ends 200 ms later");
    uint64_t wait = turn_cap_wait(&gate, now);
    ok(wait > 50 * NS_PER_MS && wait <= 200 * NS_PER_MS, "at 50 %% it pays for those, not for the minute before (%llu ms)",
       (unsigned long long)(wait / NS_PER_MS));
    atomic_store(gate.token, token_next(word, a.vgpu, 0));
    change(&a, (struct pool_change){.vgpu = a.vgpu, .limit_percent = 100});
    notice_change(a.pool.layout, a.vgpu, 100, PRIORITY_NORMAL);
    ok(!(atomic_load(gate.token) & TOKEN_CONTENDED) && turn_cap_wait(&gate, now) == 0, "without a limit nothing is in its way");
    agent_reset();
    pool_close(&a.pool);
}

// The time that a virtual GPU has left at this level; what it owes is negative.
static int64_t time_left(const struct tenant *tenant, uint64_t level)
{
    const struct pool_vgpu *vgpu = vgpu_of(tenant);
    const struct policy_entry entry = {tenant->vgpu, atomic_load(&vgpu->weight),
                                       (enum policy_class)atomic_load(&vgpu->priority), atomic_load(&vgpu->pass), 0};
    return entry.pass > level ? -(int64_t)policy_time(&entry, entry.pass - level)
                              : (int64_t)policy_time(&entry, level - entry.pass);
}

static void test_debts_and_credits(void)
{
    static struct tenant a;
    static const enum priority high = PRIORITY_HIGH, low = PRIORITY_LOW;
    const uint64_t level = 50 * NS_PER_S;
    tenant_pool_new("change");
    tenant_join(&a, "alice", 100);
    _Atomic uint64_t *pass = &vgpu_of(&a)->pass;
    atomic_store(&a.pool.layout->gpus[a.gpu].level, level);
    change(&a, (struct pool_change){.vgpu = a.vgpu, .priority = &low});
    atomic_store(pass, level + 20 * NS_PER_MS);
    is_int(time_left(&a, level), -20 * (int64_t)NS_PER_MS, "a virtual GPU of the low class owes 20 ms");
    change(&a, (struct pool_change){.vgpu = a.vgpu, .priority = &high, .weight = 1000});
    notice_change(a.pool.layout, a.vgpu, 100, PRIORITY_LOW);
    is_int(time_left(&a, level), -20 * (int64_t)NS_PER_MS,
           "it owes 20 ms in the high class and at ten times the weight, not 20 s");
    atomic_store(pass, level - 100000);
    int64_t left = time_left(&a, level);
    change(&a, (struct pool_change){.vgpu = a.vgpu, .priority = &low, .weight = 1});
    notice_change(a.pool.layout, a.vgpu, 1000, PRIORITY_HIGH);
    is_int(time_left(&a, level), left, "what it has left stays, too, where the weight falls");
    atomic_store(pass, 0);
    change(&a, (struct pool_change){.vgpu = a.vgpu, .weight = 10000, .priority = &high});
    notice_change(a.pool.layout, a.vgpu, 1, PRIORITY_LOW);
    ok(atomic_load(pass) <= level, "from the lowest to the highest nothing overflows");
    change(&a, (struct pool_change){.vgpu = a.vgpu, .weight = 1, .priority = &low});
    notice_change(a.pool.layout, a.vgpu, 10000, PRIORITY_HIGH);
    ok(atomic_load(pass) <= level, "nor the other way round");
    pool_close(&a.pool);
}

// --- at the same moment as allocations --------------------------------------------------------------------------------------------

static int allocate(void *argument)
{
    static struct tenant tenant;
    static struct holdings holdings;
    uint64_t state = (uintptr_t)argument + 1;
    if (tenant_join(&tenant, "shared", ALL))
        return 1;
    holdings_init(&holdings, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu);
    atomic_fetch_add(&board->ready, 1);
    becomes(&board->go, 1);
    while (atomic_load(&board->go) == 1) {
        uint64_t bytes = (1 + random_next(&state) % 300) * TENANT_CHUNK;
        if (holdings_take_now(&holdings, bytes))
            continue;
        atomic_fetch_add(&board->taken, 1);
        holdings_give(&holdings, bytes);
    }
    return 0;
}

static void test_race(void)
{
    static struct tenant changer;
    pid_t pids[3];
    uint64_t state = 5;
    bool held = true;
    tenant_pool_new("change");
    tenant_join(&changer, "shared", ALL);
    atomic_store(&board->ready, 0);
    for (uintptr_t i = 0; i < 3; i++)
        pids[i] = spawn(allocate, (void *)i);
    becomes(&board->ready, 3);
    atomic_store(&board->go, 1);
    const _Atomic uint64_t *account = pool_account(changer.pool.layout, changer.vgpu);
    int lowered = 0, refused = 0;
    for (uint64_t end = clock_now_ns() + 20 * NS_PER_S; clock_now_ns() < end && held;) {
        if (lowered >= 500 && refused >= 500 && atomic_load(&board->taken) >= 1000)
            break;
        uint64_t wanted = 1 + random_next(&state) % ALL, before = quota(&changer);
        int rc = change_quota(&changer, wanted);
        if (rc && rc != -EBUSY)
            break;
        lowered += rc == 0 && wanted < before;
        refused += rc != 0;
        // A charge that is being tried, and will be taken back, may show more for a moment.
        held = false;
        for (int i = 0; i < 1000000 && !held; i++)
            held = account_count(account) <= quota(&changer);
    }
    atomic_store(&board->go, 2);
    for (int i = 0; i < 3; i++)
        is_int(exit_status(pids[i]), 0, "one allocates while the quota changes");
    ok(held, "never is more held than the quota");
    ok(lowered >= 500 && refused >= 500, "it was lowered %d times, and refused %d times", lowered, refused);
    tenant_reap(&changer);
    is_int(account_count(account), 0, "nothing stays charged");
    is_int(reserved(&changer), quota(&changer), "nothing stays reserved");
    pool_close(&changer.pool);
}

static void test_tried_quota(void)
{
    static struct tenant tenant;
    static struct holdings holdings;
    tenant_pool_new("change");
    tenant_join(&tenant, "alice", 100);
    holdings_init(&holdings, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu);
    // As left by a changer that was killed between lowering and deciding.
    atomic_store(&vgpu_of(&tenant)->quota_before, 100);
    atomic_store(&vgpu_of(&tenant)->quota_chunks, 10);
    is_int(holdings_take_now(&holdings, 50 * TENANT_CHUNK), -ENOMEM,
           "who cannot wait is refused by a quota that is being tried");
    is_int(holdings_take(&holdings, 50 * TENANT_CHUNK), 0, "who can wait is refused by none that comes to nothing");
    ok(quota(&tenant) == 100 && tenant_holding(&tenant) == 50, "the quota is what it was");
    pool_close(&tenant.pool);
}

// --- between any two instructions of each other ---------------------------------------------------------------------------------

static struct tenant watcher, second;
static struct pool repaired;
static uint64_t stepped_quota;
static int meanwhile_rc, broken;

// Runs `body`, and `meanwhile` after its instruction number `at`; or, with `changes`, after it has changed the virtual GPU so many times.
// false: it ended before that.
static bool interleave(int (*body)(void *), uint64_t at, bool changes, void (*meanwhile)(void))
{
    static struct pool_vgpu before;
    int status = 0;
    pid_t child = spawn(body, NULL);
    bool runs = waitpid(child, &status, 0) == child && WIFSTOPPED(status);
    for (uint64_t done = 0; runs && done < at;) {
        memcpy((void *)&before, (const void *)vgpu_of(&watcher), sizeof before);
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) < 0 || waitpid(child, &status, 0) != child)
            break;
        runs = WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
        done += !changes || memcmp((const void *)&before, (const void *)vgpu_of(&watcher), sizeof before) != 0;
    }
    meanwhile();
    if (runs && ptrace(PTRACE_CONT, child, NULL, NULL) == 0)
        waitpid(child, &status, 0);
    if (account_count(&vgpu_of(&watcher)->used) > quota(&watcher)) {
        printf("# after %llu %s\n", (unsigned long long)at, changes ? "changes" : "instructions");
        broken++;
    }
    kill_and_wait(child);
    return runs;
}

static int take_body(void *unused)
{
    static struct tenant tenant;
    static struct holdings holdings;
    (void)unused;
    tenant_join(&tenant, "watcher", 0);
    holdings_init(&holdings, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu);
    step_begin();
    holdings_take_now(&holdings, 60 * TENANT_CHUNK);
    step_end();
    return 0;
}

static void lower_meanwhile(void)
{
    meanwhile_rc =
        pool_change(&watcher.pool, &(struct pool_change){.vgpu = watcher.vgpu, .quota_chunks = 50}, 1, &watcher.error);
}

static int lower_body(void *unused)
{
    static struct tenant tenant;
    (void)unused;
    pool_open(&tenant.pool, tenant_pool, 0, &tenant.error);
    step_begin();
    pool_change(&tenant.pool, &(struct pool_change){.vgpu = watcher.vgpu, .quota_chunks = 50}, 1, &tenant.error);
    step_end();
    return 0;
}

static void take_meanwhile(void)
{
    meanwhile_rc = tenant_charge(&watcher, 60);
}

static void test_interleaved(void)
{
    int lowered = 0, refused = 0;
    bool more = true;
    tenant_pool_new("change");
    tenant_join(&watcher, "watcher", 100);
    for (uint64_t at = 0; more && at < 5000; at++) {
        tenant_reap(&watcher);
        change_quota(&watcher, 100);
        more = interleave(take_body, at, false, lower_meanwhile);
        lowered += meanwhile_rc == 0;
        refused += meanwhile_rc != 0;
    }
    ok(!more && lowered > 10 && refused > 10, "a quota was lowered %d times before and %d times not any more", lowered,
       refused);
    int taken = 0;
    refused = 0;
    more = true;
    for (uint64_t at = 0; more && at < 100; at++) {
        change_quota(&watcher, 100);
        more = interleave(lower_body, at, true, take_meanwhile);
        taken += meanwhile_rc == 0;
        refused += meanwhile_rc != 0;
        if (meanwhile_rc == 0)
            tenant_charge(&watcher, -60);
    }
    ok(!more && taken > 0 && refused > 1, "memory was taken %d times before and %d times not any more", taken, refused);
    is_int(broken, 0, "never was more held than the quota");
    pool_close(&watcher.pool);
}

// --- death at every instruction ---------------------------------------------------------------------------------------------------

static int change_body(void *unused)
{
    static struct tenant tenant;
    (void)unused;
    pool_open(&tenant.pool, tenant_pool, 0, &tenant.error);
    const struct pool_change changes[] = {{.vgpu = watcher.vgpu, .quota_chunks = stepped_quota},
                                          {.vgpu = second.vgpu, .quota_chunks = 60}};
    step_begin();
    pool_change(&tenant.pool, changes, 2, &tenant.error);
    step_end();
    return 0;
}

static bool change_is_repaired(const struct step_image *image)
{
    struct pool_layout *layout = repaired.layout;
    step_restore(layout, image);
    // In the second pool nobody holds a lock: what a reaper does for the living is done by hand, as if for a dead one.
    pool_leave(&repaired, STEP_PROCESSES - 1);
    const struct pool_vgpu *vgpu = &layout->vgpus[watcher.vgpu];
    uint64_t now = atomic_load(&vgpu->quota_chunks);
    return (now == 100 || now == stepped_quota) && account_count(&vgpu->used) <= now && !atomic_load(&vgpu->quota_before) &&
           atomic_load(&layout->gpus[watcher.gpu].reserved_chunks) == reservation_sum(layout, watcher.gpu) &&
           atomic_load(&layout->gpus[second.gpu].reserved_chunks) == reservation_sum(layout, second.gpu);
}

static void test_every_instruction(uint64_t to)
{
    tenant_pool_new("change2");
    pool_open(&repaired, tenant_pool, 0, &(struct error){0});
    tenant_pool_remove();
    tenant_pool_new("change");
    tenant_join(&watcher, "watcher", 100);
    tenant_join_on(&second, 1, "watcher", 50);
    tenant_charge(&watcher, 40);
    stepped_quota = to;
    pid_t child = spawn(change_body, NULL);
    ok(step_through(child, watcher.pool.layout, change_is_repaired) > 3,
       "whichever instruction of changing a quota of 100 to %llu is the last, it is one or the other", (unsigned long long)to);
    kill_and_wait(child);
    is_int(quota(&watcher), to, "uninterrupted, it is changed");
    pool_close(&watcher.pool);
    pool_close(&second.pool);
    pool_close(&repaired);
}

int main(void)
{
    board = share(sizeof *board);
    test_turns();
    test_quotas();
    test_all_or_none();
    test_limit_of_holder();
    test_debts_and_credits();
    test_race();
    test_tried_quota();
    if (STEP_IS_SLOW) {
        skip(1, "too slow to be stepped through under this sanitizer");
    } else {
        test_interleaved();
        test_every_instruction(40);
        test_every_instruction(200);
    }
    tenant_pool_remove();
    return done_testing();
}
