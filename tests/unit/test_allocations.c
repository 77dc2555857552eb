// SPDX-License-Identifier: AGPL-3.0-or-later
// What allocations take: block arithmetic against a brute-force model, refusals that leave nothing, and memory that runs out for the
// books themselves.
#include <string.h>

#include "tests/unit/failing_malloc.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

// The allocator under test is compiled into this file, so that its allocations can be made to fail.
#define uthash_malloc(bytes) failing_malloc(bytes)
#define calloc(count, bytes) failing_calloc(count, bytes)
#include "allocator/allocations.c"
#undef calloc

#define MIB (1ull << 20)
#define BLOCK HOLDINGS_BLOCK_BYTES
#define BASE 0x7f0000000000ull

static struct tenant tenant;
static struct holdings holdings;
static int contexts[2];

static void start(uint64_t chunk_bytes, uint64_t quota_chunks)
{
    struct error error;
    struct pool pool;
    tenant_pool_new("allocations");
    pool_open(&pool, tenant_pool, chunk_bytes, &error);
    tenant_join(&tenant, "test", quota_chunks);
    pool_close(&pool);
    holdings_init(&holdings, &tenant.pool, tenant.process, tenant.gpu, tenant.vgpu);
    allocations_reset();
}

static void stop(void)
{
    allocations_drop_context(&contexts[0]);
    allocations_drop_context(&contexts[1]);
    is_int(holdings.bytes, 0, "in the end nothing is held");
    is_int(account_count(pool_account(tenant.pool.layout, tenant.vgpu)), 0, "and nothing charged");
    pool_close(&tenant.pool);
}

static int allocate(uint64_t address, uint64_t bytes)
{
    uint64_t taken;
    const struct allocation allocation = {.address = address, .bytes = bytes, .holdings = &holdings, .context = &contexts[0]};
    int rc = allocation_begin(&holdings, bytes, &taken);
    return rc ? rc : allocation_commit(&allocation, taken);
}

static bool release(uint64_t address)
{
    struct allocation allocation;
    if (!allocation_withdraw(address, &allocation))
        return false;
    allocation_return(&allocation);
    return true;
}

static uint64_t blocks(void)
{
    return holdings.bytes / BLOCK;
}

static void test_blocks(void)
{
    start(0, 100);
    is_int(allocate(BASE, 4096), 0, "a small allocation");
    is_int(blocks(), 1, "takes a block");
    allocate(BASE + 4096, 4096);
    is_int(blocks(), 1, "a second one in the same block takes nothing more");
    allocate(BASE + BLOCK, 3 * BLOCK);
    is_int(blocks(), 4, "three whole blocks take three");
    allocate(BASE + 4 * BLOCK, BLOCK + 1);
    is_int(blocks(), 6, "a byte more than a block takes two");
    allocate(BASE + 5 * BLOCK + MIB, MIB / 2);
    is_int(blocks(), 6, "its second block has room for others");
    allocate(BASE + 7 * BLOCK - 512, 1024);
    is_int(blocks(), 8, "a small one across a border takes both blocks");
    allocate(BASE + 9 * BLOCK, 0);
    is_int(blocks(), 9, "nothing, allocated, takes a block");
    ok(release(BASE), "one of two small ones is freed");
    is_int(blocks(), 9, "the block stays for the other");
    ok(release(BASE + 4096), "the other is freed");
    is_int(blocks(), 8, "now the block is returned");
    ok(release(BASE + 4 * BLOCK), "the one with the shared end is freed");
    is_int(blocks(), 7, "its own block is returned, the shared one stays");
    ok(!release(BASE + 1), "an unknown address is none of ours");
    ok(!release(BASE), "nor one that was freed before");
    struct allocation allocation;
    ok(allocation_withdraw(BASE + BLOCK, &allocation), "one is withdrawn");
    ok(!release(BASE + BLOCK), "nobody else finds it then");
    is_int(blocks(), 7, "it stays charged until the driver has freed it");
    allocation_restore(&allocation);
    ok(release(BASE + BLOCK), "where the driver refused, it is back");
    is_int(blocks(), 4, "and can be freed");
    stop();
}

static void test_contexts(void)
{
    uint64_t taken;
    start(0, 100);
    allocate(BASE, 10 * BLOCK);
    const struct allocation other = {.address = BASE + 10 * BLOCK,
                                     .bytes = BLOCK,
                                     .holdings = &holdings,
                                     .context = &contexts[1]};
    allocation_begin(&holdings, BLOCK, &taken);
    allocation_commit(&other, taken);
    allocations_drop_context(&contexts[0]);
    is_int(blocks(), 1, "with a context goes what was allocated in it, and nothing else");
    allocation_begin(&holdings, 5 * BLOCK, &taken);
    allocation_cancel(&holdings, taken);
    is_int(blocks(), 1, "what the driver refused is not charged");
    stop();
}

static void test_full_quota(void)
{
    uint64_t taken;
    start(0, 4);
    allocate(BASE, 4096);
    allocate(BASE + BLOCK, 3 * BLOCK);
    is_int(blocks(), 4, "a quota is full");
    is_int(allocate(BASE + 8 * BLOCK, 2 * MIB), -ENOMEM, "a big request is refused");
    is_int(allocate(BASE + 8192, 4096), 0, "a small one that fits into a block that is paid for is not");
    is_int(allocate(BASE + 8 * BLOCK, 4096), -ENOMEM, "one for which the driver opened a block is");
    ok(!release(BASE + 8 * BLOCK), "and is not registered");
    is_int(blocks(), 4, "a refusal leaves nothing behind");
    is_int(allocation_begin(&holdings, MIB + 1, &taken), -ENOMEM, "above 1 MiB nothing is packed");
    is_int(allocate(BASE, UINT64_MAX), -ENOMEM, "2^64 - 1 bytes are refused");
    is_int(allocate(BASE, UINT64_MAX - BLOCK), -ENOMEM, "and a little less");
    is_int(allocate(BASE, INT64_MAX), -ENOMEM, "2^63 - 1 bytes are refused");
    is_int(allocate(BASE, 1ull << 53), -ENOMEM, "and more chunks than can be counted");
    holdings_give(&holdings, UINT64_MAX);
    is_int(holdings.bytes, 0, "giving back more than is held gives back what is held");
    allocations_drop_context(&contexts[0]);
    stop();
}

static void test_chunks(void)
{
    static const uint64_t sizes[] = {2 * MIB, 64 * MIB, 1024 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        start(sizes[i], 3);
        uint64_t per_chunk = sizes[i] / BLOCK;
        allocate(BASE, 4096);
        is_int(tenant_holding(&tenant), 1, "a block takes one chunk of %llu MiB", (unsigned long long)(sizes[i] / MIB));
        is_int(allocate(BASE + BLOCK, (2 * per_chunk - 1) * BLOCK + 1), 0, "two chunks less a block and a byte");
        is_int(tenant_holding(&tenant), per_chunk == 1 ? 3 : 3, "together take three");
        is_int(allocate(BASE + (1ull << 40), per_chunk * BLOCK), -ENOMEM, "another chunk is refused");
        struct holdings_view view = holdings_look(&holdings);
        is_int(view.total_bytes, 3 * sizes[i], "the tenant's GPU has the quota");
        is_int(view.used_bytes, 3 * sizes[i], "all of it is used");
        is_int(view.free_bytes, 0, "and nothing free");
        release(BASE + BLOCK);
        is_int(tenant_holding(&tenant), 1, "what is freed comes back in whole chunks");
        stop();
    }
}

// --- the model --------------------------------------------------------------------------------------------------------------------

#define MODEL_BLOCKS 64u
#define MODEL_UNIT (BLOCK / 16)
#define MODEL_UNITS (MODEL_BLOCKS * 16u)

static struct {
    uint64_t owner[MODEL_UNITS]; // address of the allocation + 1
} model;

static uint64_t touched_blocks(void)
{
    uint64_t touched = 0;
    for (uint32_t block = 0; block < MODEL_BLOCKS; block++)
        for (uint32_t unit = 0; unit < 16; unit++)
            if (model.owner[block * 16 + unit]) {
                touched++;
                break;
            }
    return touched;
}

static void test_model(uint64_t chunk, uint64_t quota, uint64_t seed)
{
    uint64_t state = seed, live[MODEL_UNITS], refused = 0, wrong = 0;
    uint32_t count = 0;
    start(chunk, quota);
    memset(&model, 0, sizeof model);
    for (int step = 0; step < 20000; step++) {
        if (random_next(&state) % 5 < 3) {
            uint32_t units = random_next(&state) % 4 ? 1 + random_next(&state) % 6 : 1 + random_next(&state) % 64;
            uint32_t at = (uint32_t)(random_next(&state) % (MODEL_UNITS - units)), i = 0;
            // A byte less or a byte into the unit: ends need not lie on anything.
            uint64_t skew = random_next(&state) % 3, address = BASE + at * MODEL_UNIT + skew;
            while (i < units && !model.owner[at + i])
                i++;
            if (i < units)
                continue;
            if (allocate(address, units * MODEL_UNIT - 2)) {
                refused++;
                continue;
            }
            for (i = 0; i < units; i++)
                model.owner[at + i] = address + 1;
            live[count++] = address;
        } else if (count) {
            uint32_t which = (uint32_t)(random_next(&state) % count);
            wrong += !release(live[which]);
            for (uint32_t i = 0; i < MODEL_UNITS; i++)
                if (model.owner[i] == live[which] + 1)
                    model.owner[i] = 0;
            live[which] = live[--count];
        }
        wrong += blocks() != touched_blocks();
        wrong += tenant_holding(&tenant) != (holdings.bytes + tenant.pool.chunk_bytes - 1) / tenant.pool.chunk_bytes;
        wrong += tenant_holding(&tenant) > quota;
    }
    is_int(wrong, 0, "20,000 random steps: what is charged is the number of blocks touched (%llu requests were refused)",
           (unsigned long long)refused);
    ok(quota >= MODEL_BLOCKS || refused > 0, "the quota was reached where it is small");
    stop();
}

static void test_out_of_memory(void)
{
    bool succeeded = false;
    int attempts = 0;
    start(0, 400);
    // Each allocation of the books fails once, from the first on, until none is left to fail; past table growth as well.
    for (uint64_t i = 0; i < 200; i++) {
        succeeded = false;
        for (int n = 0; n < 10 && !succeeded; n++) {
            uint64_t before = holdings.bytes;
            fail_after = n;
            int rc = allocate(BASE + i * BLOCK + 1, BLOCK);
            fail_after = -1;
            succeeded = rc == 0;
            attempts++;
            if (rc && (rc != -ENOMEM || holdings.bytes != before || release(BASE + i * BLOCK + 1)))
                bail_out("a failure left something behind");
        }
        if (!succeeded)
            break;
    }
    ok(succeeded, "lack of memory for the books refuses an allocation and leaves nothing (%d attempts)", attempts);
    is_int(blocks(), 201, "all others are there");
    struct allocation allocation;
    allocation_withdraw(BASE + 1, &allocation);
    fail_after = 0;
    allocation_restore(&allocation);
    fail_after = -1;
    is_int(blocks(), 201, "an allocation that cannot be restored stays charged: the ledger never says less than the truth");
    allocation_return(&allocation);
    stop();
}

static void test_dead_make_room(void)
{
    static struct tenant dying;
    start(0, 10);
    tenant_join(&dying, "test", 10);
    tenant_charge(&dying, 8);
    pool_close(&dying.pool);
    errno = 77;
    is_int(allocate(BASE, 5 * BLOCK), 0, "what a dead process held makes room");
    is_int(errno, 77, "errno is left alone");
    is_int(holdings_take_now(&holdings, 6 * BLOCK), -ENOMEM, "no more than the quota");
    holdings_count_refusal(&holdings, 6 * BLOCK);
    is_int(atomic_load(&tenant.pool.layout->vgpus[tenant.vgpu].refusals), 1, "a refusal is counted");
    is_int(atomic_load(&tenant.pool.layout->vgpus[tenant.vgpu].refused_bytes), 6 * BLOCK, "with its size");
    holdings_count_refusal(&holdings, UINT64_MAX - BLOCK);
    ok(atomic_load(&tenant.pool.layout->vgpus[tenant.vgpu].refused_bytes) == UINT64_MAX, "and the sum does not wrap around");
    is_int(atomic_load(&tenant.pool.layout->vgpus[tenant.vgpu].peak_chunks), 5, "the peak is what was held at most");
    stop();
}

static void *churn(void *argument)
{
    uint64_t state = (uint64_t)(uintptr_t)argument + 1, base = BASE + ((uint64_t)(uintptr_t)argument << 12);
    for (int i = 0; i < 3000; i++) {
        uint64_t address = base + (random_next(&state) % 4) * BLOCK;
        if (!release(address))
            allocate(address, 1 + random_next(&state) % 4096);
    }
    for (uint64_t i = 0; i < 4; i++)
        release(base + i * BLOCK);
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];
    start(0, 100);
    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churn, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    is_int(holdings.bytes, 0, "threads that share blocks leave nothing behind");
    stop();
}

int main(void)
{
    test_blocks();
    test_contexts();
    test_full_quota();
    test_chunks();
    test_model(0, 1000, 1);
    test_model(0, 20, 2);
    test_model(64 * MIB, 1000, 3);
    test_model(8 * MIB, 6, 4);
    test_out_of_memory();
    test_dead_make_room();
    test_threads();
    tenant_pool_remove();
    return done_testing();
}
