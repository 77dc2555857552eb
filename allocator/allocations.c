// SPDX-License-Identifier: AGPL-3.0-or-later
#include "allocator/allocations.h"

#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"

// The driver packs allocations up to this size into blocks that it already has (H100, driver 580).
#define SMALL_BYTES (1ull << 20)

struct entry {
    struct allocation allocation;
    UT_hash_handle hh;
};

// A block partly covered by allocations.
struct shared_block {
    uint64_t number; // address / block size
    uint32_t users;
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries;
static struct shared_block *shared_blocks;

// The blocks of an address range: [first, end), of which the first and the last may be partly covered.
struct span {
    uint64_t first, end;
    bool head_shared, tail_shared; // the tail only if it is another block than the head
};

static struct span span_of(const struct allocation *allocation)
{
    uint64_t bytes = allocation->bytes ? allocation->bytes : 1;
    uint64_t stop = allocation->address + bytes;
    struct span span = {
        .first = allocation->address / HOLDINGS_BLOCK_BYTES,
        .end = (stop + HOLDINGS_BLOCK_BYTES - 1) / HOLDINGS_BLOCK_BYTES,
    };
    bool tail_partial = stop % HOLDINGS_BLOCK_BYTES != 0;
    bool single = span.end - span.first == 1;
    span.head_shared = allocation->address % HOLDINGS_BLOCK_BYTES != 0 || (single && tail_partial);
    span.tail_shared = tail_partial && !single;
    return span;
}

// Counts one more user of a partly covered block. Returns how many it had, or -ENOMEM.
static int block_enter(uint64_t number)
{
    struct shared_block *block;
    HASH_FIND(hh, shared_blocks, &number, sizeof number, block);
    if (block)
        return (int)block->users++;
    block = calloc(1, sizeof *block);
    if (!block)
        return -ENOMEM;
    block->number = number;
    block->users = 1;
    HASH_ADD(hh, shared_blocks, number, sizeof number, block);
    if (!block->hh.tbl) { // uthash could not grow
        free(block);
        return -ENOMEM;
    }
    return 0;
}

// Returns how many users the block still has.
static uint32_t block_leave(uint64_t number)
{
    struct shared_block *block;
    HASH_FIND(hh, shared_blocks, &number, sizeof number, block);
    if (!block)
        return 0;
    uint32_t users = --block->users;
    if (users == 0) {
        HASH_DEL(shared_blocks, block);
        free(block);
    }
    return users;
}

// Enters a range and returns how many bytes of blocks nobody touched before, or a negative errno if there is no memory for the
// books.
static int64_t occupy(const struct allocation *allocation)
{
    struct span span = span_of(allocation);
    uint64_t blocks = span.end - span.first;
    int head = span.head_shared ? block_enter(span.first) : 0;
    if (head < 0)
        return head;
    int tail = span.tail_shared ? block_enter(span.end - 1) : 0;
    if (tail < 0) {
        if (span.head_shared)
            block_leave(span.first);
        return tail;
    }
    blocks -= (head > 0) + (tail > 0);
    return (int64_t)(blocks * HOLDINGS_BLOCK_BYTES);
}

static uint64_t vacate(const struct allocation *allocation)
{
    struct span span = span_of(allocation);
    uint64_t blocks = span.end - span.first;
    if (span.head_shared && block_leave(span.first) > 0)
        blocks--;
    if (span.tail_shared && block_leave(span.end - 1) > 0)
        blocks--;
    return blocks * HOLDINGS_BLOCK_BYTES;
}

static int enroll(const struct allocation *allocation)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return -ENOMEM;
    entry->allocation = *allocation;
    HASH_ADD(hh, entries, allocation.address, sizeof entry->allocation.address, entry);
    if (entry->hh.tbl)
        return 0;
    free(entry);
    return -ENOMEM;
}

int allocation_begin(struct holdings *holdings, uint64_t bytes, uint64_t *taken)
{
    *taken = holdings_round_up(bytes ? bytes : 1, HOLDINGS_BLOCK_BYTES);
    int rc = holdings_take(holdings, *taken);
    if (rc == -ENOMEM && bytes <= SMALL_BYTES) {
        pthread_mutex_lock(&mutex);
        bool may_fit = shared_blocks != NULL;
        pthread_mutex_unlock(&mutex);
        if (may_fit) {
            *taken = 0;
            rc = 0;
        }
    }
    return rc;
}

void allocation_cancel(struct holdings *holdings, uint64_t taken)
{
    holdings_give(holdings, taken);
}

int allocation_commit(const struct allocation *allocation, uint64_t taken)
{
    struct holdings *holdings = allocation->holdings;
    pthread_mutex_lock(&mutex);
    int64_t touched = occupy(allocation);
    int rc = touched < 0 ? (int)touched : 0;
    if (rc == 0 && (uint64_t)touched > taken)
        rc = holdings_take_now(holdings, (uint64_t)touched - taken); // nothing waits under the mutex
    if (rc == 0) {
        rc = enroll(allocation);
        if (rc && (uint64_t)touched > taken)
            holdings_give(holdings, (uint64_t)touched - taken);
    }
    if (rc && touched >= 0)
        vacate(allocation);
    uint64_t surplus = rc ? taken : (uint64_t)touched < taken ? taken - (uint64_t)touched : 0;
    pthread_mutex_unlock(&mutex);
    if (surplus)
        holdings_give(holdings, surplus);
    return rc;
}

bool allocation_withdraw(uint64_t address, struct allocation *allocation)
{
    struct entry *entry;
    pthread_mutex_lock(&mutex);
    HASH_FIND(hh, entries, &address, sizeof address, entry);
    if (entry) {
        *allocation = entry->allocation;
        HASH_DEL(entries, entry);
        free(entry);
    }
    pthread_mutex_unlock(&mutex);
    return entry != NULL;
}

void allocation_return(const struct allocation *allocation)
{
    pthread_mutex_lock(&mutex);
    uint64_t bytes = vacate(allocation);
    pthread_mutex_unlock(&mutex);
    holdings_give(allocation->holdings, bytes);
}

void allocation_restore(const struct allocation *allocation)
{
    pthread_mutex_lock(&mutex);
    enroll(allocation);
    pthread_mutex_unlock(&mutex);
}

void allocations_drop_context(const void *context)
{
    struct entry *entry, *next;
    pthread_mutex_lock(&mutex);
    HASH_ITER(hh, entries, entry, next)
    {
        if (entry->allocation.context != context)
            continue;
        uint64_t bytes = vacate(&entry->allocation);
        holdings_give(entry->allocation.holdings, bytes);
        HASH_DEL(entries, entry);
        free(entry);
    }
    pthread_mutex_unlock(&mutex);
}

void allocations_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of changing the tables when it forked.
    pthread_mutex_init(&mutex, NULL);
    entries = NULL;
    shared_blocks = NULL;
}
