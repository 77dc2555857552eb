// SPDX-License-Identifier: AGPL-3.0-or-later
// Reservations, membership, agreement, and the race between quotas and tenants without one.
#include <string.h>

#include "allocator/holdings.h"
#include "tests/unit/step.h"
#include "tests/unit/tap.h"

#define ALL TENANT_GPU_CHUNKS

static struct {
    _Atomic uint32_t ready, go, granted;
} * board;

static uint64_t reserved(const struct tenant *tenant)
{
    return atomic_load(&tenant->pool.layout->gpus[tenant->gpu].reserved_chunks);
}

// Leaves as a clean exit does.
static void leave(struct tenant *tenant)
{
    int lock = pool_lock(&tenant->pool, NS_PER_S, &tenant->error);
    pool_leave(&tenant->pool, tenant->process);
    pool_unlock(lock);
    pool_close(&tenant->pool);
}

static void test_reservations(void)
{
    static struct tenant a, b, c, d;
    tenant_pool_new("tenancy");
    is_int(tenant_join(&a, "alice", 600), 0, "a quota that fits is reserved");
    is_int(reserved(&a), 600, "as asked");
    is_int(tenant_join(&b, "bob", 401), -ENOMEM, "one that does not fit beside it is refused");
    ok(strstr(b.error.text, "alice has reserved 1.2 GiB") && strstr(b.error.text, "0.8 GiB") &&
           strstr(b.error.text, "Test GPU") && strstr(b.error.text, "2.0 GiB") && !strchr(b.error.text, '\n'),
       "one line says what and by whom: %s", b.error.text);
    is_int(reserved(&a), 600, "a refusal reserves nothing");
    is_int(tenant_join(&b, "bob", 400), 0, "one that just fits is reserved");
    is_int(tenant_join(&c, "carol", 1), -ENOMEM, "then nothing more");
    ok(strstr(c.error.text, "alice") && strstr(c.error.text, "bob"), "both are named: %s", c.error.text);
    is_int(tenant_join(&c, NULL, 0), 0, "a tenant without a quota may join a full GPU");
    is_int(pool_vgpu_limit(c.pool.layout, c.vgpu), 0, "and may hold nothing");
    is_int(tenant_charge(&c, 1), -ENOMEM, "not one chunk");
    leave(&b);
    is_int(reserved(&a), 600, "who leaves takes his reservation along");
    is_int(pool_vgpu_limit(c.pool.layout, c.vgpu), 400, "what is not reserved is open");
    is_int(tenant_charge(&c, 300), 0, "and can be held");
    is_int(tenant_join(&b, "bob", 101), -ENOMEM, "what is held without a quota cannot be reserved");
    ok(strstr(b.error.text, " holds 0.6 GiB"), "the line says by whom: %s", b.error.text);
    is_int(tenant_join(&b, "bob", 100), 0, "the rest can");
    is_int(tenant_charge(&c, 1), -ENOMEM, "which the tenant without a quota feels");
    // The same name on another GPU is another virtual GPU; a tenant of one GPU is none of another.
    is_int(tenant_join_on(&d, 1, "alice", ALL), 0, "another GPU has a ledger of its own");
    ok(d.vgpu != a.vgpu && d.gpu != a.gpu, "and the same name there is another virtual GPU");
    leave(&d);
    pool_close(&a.pool);
    pool_close(&b.pool);
    pool_close(&c.pool);
    is_int(tenant_join(&a, "alice", ALL), 0, "the dead reserve nothing");
    pool_close(&a.pool);
}

static void test_overcommit(void)
{
    static struct tenant a, b;
    tenant_pool_new("tenancy");
    tenant_join(&a, "alice", ALL);
    a.pool.layout->header.flags |= POOL_OVERCOMMIT;
    is_int(tenant_join(&b, "bob", ALL), 0, "a pool made for overcommit takes quotas beyond its memory");
    is_int(reserved(&a), 2 * ALL, "and says so");
    is_int(pool_vgpu_limit(a.pool.layout, a.vgpu), ALL, "each is what it is");
    pool_close(&a.pool);
    pool_close(&b.pool);
}

static int join_with(struct tenant *tenant, const struct tenancy_request *request)
{
    struct error error;
    pool_open(&tenant->pool, tenant_pool, 0, &error);
    int lock = pool_lock(&tenant->pool, NS_PER_S, &error);
    pool_reap(&tenant->pool);
    tenant->process = (uint32_t)pool_claim(&tenant->pool, &error);
    int rc = pool_vgpu_join(&tenant->pool, tenant->process, 0, request, &tenant->error);
    pool_unlock(lock);
    if (rc < 0)
        pool_close(&tenant->pool);
    return rc;
}

static void test_mps(void)
{
    static struct tenant first, second, other;
    const struct tenancy_request client = {.name = "client", .quota_chunks = 10, .mps = true}, no_client = {.name = "other"},
                                 too_large = {.name = "large", .quota_chunks = ALL};
    tenant_pool_new("tenancy");
    tenant_join(&first, "elsewhere", 1); // makes the GPU
    leave(&first);
    join_with(&first, &client);
    struct pool_gpu *gpu = &first.pool.layout->gpus[0];
    ok(atomic_load(&gpu->mps), "a GPU whose only member is a client of MPS is shared through MPS");
    atomic_store(&gpu->switch_ns, 12345);
    join_with(&second, &client);
    is_int(join_with(&other, &too_large), -ENOMEM, "who is no client and is refused");
    ok(atomic_load(&gpu->mps) && atomic_load(&gpu->switch_ns) == 12345, "changes nothing, nor does another client");
    join_with(&other, &no_client);
    ok(!atomic_load(&gpu->mps) && !atomic_load(&gpu->switch_ns),
       "who is none and joins ends that, and what switches cost there");
    leave(&first);
    leave(&second);
    leave(&other);
}

static void test_agreement(void)
{
    static struct tenant first, joiner;
    static const enum priority high = PRIORITY_HIGH, normal = PRIORITY_NORMAL;
    static const uint64_t own = 5 * NS_PER_MS, longer = 6 * NS_PER_MS, automatic = 0, longest = NS_PER_S,
                          nearly = 5 * NS_PER_MS + 1;
    const struct tenancy_request given = {.name = "team",
                                          .quota_chunks = 500,
                                          .weight = 300,
                                          .quantum_ns = &own,
                                          .concurrency = 2,
                                          .limit_percent = 40,
                                          .priority = &high};
    static const struct {
        struct tenancy_request request;
        const char *differs, *asked, *had;
    } cases[] = {
        {{.name = "team"}, NULL, "", ""},
        {{.name = "team", .quota_chunks = 500}, NULL, "", ""},
        {{.name = "team", .weight = 300}, NULL, "", ""},
        {{.name = "team", .quantum_ns = &own}, NULL, "", ""},
        {{.name = "team", .quota_chunks = 500, .weight = 300, .quantum_ns = &own}, NULL, "", ""},
        {{.name = "team", .quota_chunks = 501}, "VGPU_MEMORY", "1002 MiB", "1000 MiB"},
        {{.name = "team", .quota_chunks = 499}, "VGPU_MEMORY", "998 MiB", "1000 MiB"},
        {{.name = "team", .quota_chunks = 500, .weight = 100}, "VGPU_WEIGHT", "100", "300"},
        {{.name = "team", .quantum_ns = &longer}, "VGPU_QUANTUM", "6 ms", "5 ms"},
        {{.name = "team", .quantum_ns = &longest}, "VGPU_QUANTUM", " 1000 ms", "5 ms"},
        {{.name = "team", .quantum_ns = &nearly}, "VGPU_QUANTUM", "5.000001 ms", "5 ms"},
        {{.name = "team", .quantum_ns = &automatic}, "VGPU_QUANTUM", "0 ms (auto)", "5 ms"},
        {{.name = "team", .concurrency = 2}, NULL, "", ""},
        {{.name = "team", .concurrency = 1}, "VGPU_CONCURRENCY", "1", "2"},
        {{.name = "team", .limit_percent = 40, .priority = &high}, NULL, "", ""},
        {{.name = "team", .limit_percent = 41}, "VGPU_COMPUTE_LIMIT", "41 %", "40 %"},
        {{.name = "team", .limit_percent = 100}, "VGPU_COMPUTE_LIMIT", "100 %", "40 %"},
        {{.name = "team", .priority = &normal}, "VGPU_PRIORITY", "normal", "high"},
    };
    tenant_pool_new("tenancy");
    tenant_join(&first, "elsewhere", 1); // makes the GPU
    static struct tenant founder;
    int team = join_with(&founder, &given);
    ok(team >= 0, "the first process sets the options of its virtual GPU");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = join_with(&joiner, &cases[i].request);
        if (!cases[i].differs) {
            is_int(rc, team, "a joiner whose options agree or are absent joins it (%zu)", i);
            pool_close(&joiner.pool);
        } else {
            is_int(rc, -EEXIST, "a joiner whose %s differs is refused", cases[i].differs);
            ok(strstr(joiner.error.text, cases[i].differs) && strstr(joiner.error.text, "team") &&
                   strstr(joiner.error.text, cases[i].asked) && strstr(joiner.error.text, cases[i].had),
               "one line names the option and both values: %s", joiner.error.text);
        }
    }
    tenant_reap(&first);
    is_int(reserved(&first), 501, "joining reserves nothing more");
    const struct tenancy_request open_one = {.name = "open"}, quota = {.name = "open", .quota_chunks = 5};
    static struct tenant open_tenant;
    join_with(&open_tenant, &open_one);
    is_int(join_with(&joiner, &quota), -EEXIST, "a quota differs from none");
    ok(strstr(joiner.error.text, "no quota"), "and the line says so: %s", joiner.error.text);
    const struct tenancy_request limit = {.name = "open", .limit_percent = 100}, capped = {.name = "open", .limit_percent = 99};
    ok(join_with(&joiner, &limit) >= 0, "a limit of 100 %% is none");
    pool_close(&joiner.pool);
    is_int(join_with(&joiner, &capped), -EEXIST, "one of 99 %% is");
    ok(strstr(joiner.error.text, "100 % (none)"), "and the line says so: %s", joiner.error.text);
    struct error error;
    int lock = pool_lock(&founder.pool, NS_PER_S, &error);
    is_int(pool_vgpu_join(&founder.pool, founder.process, 0, &given, &error), -EALREADY, "a process joins once on a GPU: %s",
           error.text);
    pool_unlock(lock);
    pool_close(&founder.pool);
    pool_close(&open_tenant.pool);
    const struct tenancy_request other = {.name = "team", .quota_chunks = 7};
    ok(join_with(&joiner, &other) >= 0, "the name is free once its last member has died");
    pool_close(&joiner.pool);
    pool_close(&first.pool);
}

// A process's record on a GPU that it never used is all zero and so names virtual GPU 0; that must not be believed.
static void test_zero_record(void)
{
    static struct tenant first, second, member;
    tenant_pool_new("tenancy");
    tenant_join_on(&first, 0, NULL, 0);
    tenant_join_on(&second, 1, NULL, 0); // so that GPU 1 is in the pool
    leave(&first);
    tenant_join_on(&first, 1, "shared", 100);
    is_int(first.vgpu, 0, "virtual GPU 0 is on GPU 1 now");
    tenant_join_on(&member, 1, "shared", 100);
    is_int(tenant_charge(&member, 60), 0, "a member holds 60 chunks of it");
    pool_close(&member.pool);
    is_int(tenant_reap(&first), 1, "and dies");
    is_int(account_count(pool_account(first.pool.layout, 0)), 0, "its chunks come back");
    pool_close(&first.pool);
    pool_close(&second.pool);
}

static const char *name_of(const struct tenant *tenant, int vgpu)
{
    return vgpu < 0 ? "" : tenant->pool.layout->vgpus[vgpu].name;
}

// All of a test's tenants have one process id, as the first processes of two containers do.
static void test_same_process_id(void)
{
    static struct tenant first, second, third, other_gpu;
    const struct tenancy_request unnamed = {0};
    char own[POOL_NAME_BYTES], own_second[POOL_NAME_BYTES + 2];
    tenant_pool_new("tenancy");
    tenant_join_on(&other_gpu, 1, "other", 0); // so that GPU 1 is in the pool
    tenant_join(&first, NULL, 0);
    snprintf(own, sizeof own, "%s", name_of(&first, (int)first.vgpu));
    snprintf(own_second, sizeof own_second, "%s:2", own);
    tenant_join(&second, NULL, 0);
    ok(strcmp(name_of(&second, (int)second.vgpu), own_second) == 0, "two of one process id have different names: %s and %s",
       own, name_of(&second, (int)second.vgpu));
    int vgpu = pool_vgpu_join(&second.pool, second.process, other_gpu.gpu, &unnamed, &second.error);
    ok(strcmp(name_of(&second, vgpu), own_second) == 0, "the second has its name on every GPU: %s", name_of(&second, vgpu));
    vgpu = pool_vgpu_join(&first.pool, first.process, other_gpu.gpu, &unnamed, &first.error);
    ok(strcmp(name_of(&first, vgpu), own) == 0, "and so has the first: %s", name_of(&first, vgpu));
    pool_close(&first.pool);
    tenant_join(&third, NULL, 0);
    ok(strcmp(name_of(&third, (int)third.vgpu), own) == 0, "the name of who has gone is free: %s",
       name_of(&third, (int)third.vgpu));
    pool_close(&second.pool);
    pool_close(&third.pool);
    pool_close(&other_gpu.pool);
}

static void test_many_gpus(void)
{
    static struct tenant tenants[POOL_MAX_GPUS];
    static struct tenant more;
    int failures = 0;
    tenant_pool_new("tenancy");
    for (uint8_t i = 0; i < POOL_MAX_GPUS; i++)
        failures += tenant_join_on(&tenants[i], i, NULL, ALL) != 0;
    is_int(failures, 0, "%u GPUs fit a pool", POOL_MAX_GPUS);
    is_int(tenant_join_on(&more, 200, NULL, 1), -ENOSPC, "no more while all are in use: %s", more.error.text);
    atomic_store(&tenants[3].pool.layout->gpus[3].switch_ns, 12345);
    leave(&tenants[3]);
    is_int(tenant_join_on(&more, 200, NULL, ALL), 0, "one that nobody uses makes room");
    is_int(atomic_load(&more.pool.layout->gpus[3].switch_ns), 0, "and leaves nothing that was learned about it");
    for (uint32_t i = 0; i < POOL_MAX_GPUS; i++)
        pool_close(&tenants[i].pool);
    pool_close(&more.pool);
}

// --- quotas against tenants without one -------------------------------------------------------------------------------------------

static int race_open(void *argument)
{
    static struct tenant tenant;
    static struct holdings holdings;
    uint64_t state = (uintptr_t)argument + 1;
    if (tenant_join(&tenant, NULL, 0))
        return 1;
    holdings_init(&holdings, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu);
    atomic_fetch_add(&board->ready, 1);
    becomes(&board->go, 1);
    const struct pool_gpu *gpu = &tenant.pool.layout->gpus[tenant.gpu];
    while (atomic_load(&board->go) == 1) {
        uint64_t chunks = 1 + random_next(&state) % 400;
        if (holdings_take_now(&holdings, chunks * TENANT_CHUNK))
            continue;
        // Granted for good. Whoever reserves from now on sees it; what was reserved before left room for it. Only a reservation that
        // is being tried, and will fail, may show more for a moment: look until it is settled.
        bool fits = false;
        for (int i = 0; i < 1000000 && !fits; i++)
            fits = atomic_load(&gpu->reserved_chunks) + account_count(&gpu->open_used) <= ALL;
        if (!fits)
            return 2;
        atomic_fetch_add(&board->granted, 1);
        holdings_give(&holdings, chunks * TENANT_CHUNK);
    }
    return 0;
}

static int race_quota(void *argument)
{
    static struct tenant tenant;
    uint64_t state = (uintptr_t)argument + 77;
    atomic_fetch_add(&board->ready, 1);
    becomes(&board->go, 1);
    for (int reservations = 0; atomic_load(&board->go) == 1; reservations++) {
        int rc = tenant_join(&tenant, NULL, 200 + random_next(&state) % 700);
        if (rc == -ENOMEM)
            continue;
        if (rc)
            return 1;
        const struct pool_gpu *gpu = &tenant.pool.layout->gpus[tenant.gpu];
        uint64_t quota = atomic_load(&tenant.pool.layout->vgpus[tenant.vgpu].quota_chunks);
        // A charge that is being tried, and will be taken back, may show more for a moment.
        bool fits = false;
        for (int i = 0; i < 1000000 && !fits; i++)
            fits = quota + account_count(&gpu->open_used) <= ALL;
        if (!fits)
            return 2;
        atomic_fetch_add(&board->granted, 1);
        leave(&tenant);
    }
    return 0;
}

static void test_race(void)
{
    pid_t pids[4];
    static struct tenant observer;
    tenant_pool_new("tenancy");
    tenant_join(&observer, NULL, 0);
    atomic_store(&board->ready, 0);
    for (uint32_t i = 0; i < 4; i++)
        pids[i] = spawn(i % 2 ? race_open : race_quota, (void *)(uintptr_t)i);
    ok(becomes(&board->ready, 4), "tenants with and without quotas race");
    atomic_store(&board->go, 1);
    for (uint64_t end = clock_now_ns() + 10 * NS_PER_S; atomic_load(&board->granted) < 400 && clock_now_ns() < end;)
        short_nap();
    atomic_store(&board->go, 2);
    for (int i = 0; i < 4; i++)
        is_int(exit_status(pids[i]), 0, "%s never shares a chunk with the others",
               i % 2 ? "one without a quota" : "one with a quota");
    ok(atomic_load(&board->granted) >= 400, "hundreds of grants were made");
    tenant_reap(&observer);
    is_int(reserved(&observer), 0, "nothing stays reserved");
    is_int(account_count(&observer.pool.layout->gpus[0].open_used), 0, "nothing stays charged");
    pool_close(&observer.pool);
}

// --- death at every instruction of an attach --------------------------------------------------------------------------------------

static struct tenant watcher;
static struct pool repaired;

static int attach_body(void *unused)
{
    static struct tenant tenant;
    static const uint8_t uuid[POOL_UUID_BYTES] = {0x5a, 1};
    const struct tenancy_request request = {.quota_chunks = 40};
    (void)unused;
    pool_open(&tenant.pool, tenant_pool, 0, &tenant.error);
    step_begin();
    int process = pool_claim(&tenant.pool, &tenant.error);
    int gpu = pool_gpu_enter(&tenant.pool, uuid, "Another GPU", ALL * TENANT_CHUNK, &tenant.error);
    pool_vgpu_join(&tenant.pool, (uint32_t)process, (uint32_t)gpu, &request, &tenant.error);
    pool_vgpu_join(&tenant.pool, (uint32_t)process, 0, &request, &tenant.error);
    step_end();
    return 0;
}

static bool attach_is_repaired(const struct step_image *image)
{
    struct pool_layout *layout = repaired.layout;
    struct error error;
    step_restore(layout, image);
    // In the second pool nobody holds a lock, so all slots but the watcher's are dead.
    for (uint32_t slot = 0; slot < STEP_PROCESSES; slot++)
        if (slot != watcher.process && atomic_load(&layout->processes[slot].state) != POOL_FREE)
            pool_leave(&repaired, slot);
    uint32_t vgpus = 0;
    for (uint32_t i = 0; i < STEP_VGPUS; i++) {
        bool member = pool_bit_next(layout->vgpus[i].members, POOL_MAX_PROCESSES, 0) < POOL_MAX_PROCESSES;
        bool lives = atomic_load(&layout->vgpus[i].state) == POOL_LIVE;
        // What nobody has claimed in a slot that is still free is found again by whoever joins next.
        if (lives != member)
            return false;
        vgpus += lives;
    }
    if (vgpus != 1 || atomic_load(&layout->gpus[0].reserved_chunks) != 100 ||
        atomic_load(&layout->gpus[1].reserved_chunks) != 0)
        return false;
    const struct tenancy_request all = {.name = "later", .quota_chunks = ALL - 100};
    int index = pool_vgpu_join(&repaired, STEP_PROCESSES - 1, 0, &all, &error);
    if (index < 0)
        printf("# %s\n", error.text);
    pool_leave(&repaired, STEP_PROCESSES - 1);
    return index >= 0;
}

static void test_every_instruction_of_attach(void)
{
    tenant_pool_new("tenancy2");
    pool_open(&repaired, tenant_pool, 0, &(struct error){0});
    tenant_pool_remove();
    tenant_pool_new("tenancy");
    tenant_join(&watcher, "watcher", 100);
    pid_t child = spawn(attach_body, NULL);
    ok(step_through(child, watcher.pool.layout, attach_is_repaired) > 10,
       "whichever instruction of an attach is the last, the pool can be repaired");
    kill_and_wait(child);
    pool_close(&watcher.pool);
    pool_close(&repaired);
}

int main(void)
{
    board = share(sizeof *board);
    test_reservations();
    test_overcommit();
    test_mps();
    test_agreement();
    test_zero_record();
    test_same_process_id();
    test_many_gpus();
    test_race();
    if (STEP_IS_SLOW)
        skip(1, "too slow to be stepped through under this sanitizer");
    else
        test_every_instruction_of_attach();
    tenant_pool_remove();
    return done_testing();
}
