// SPDX-License-Identifier: AGPL-3.0-or-later
#include "pool/account.h"

#include <errno.h>

// Account word: count in bits 32-63, writer + 1 in bits 20-31 (0: nobody yet), sequence in bits 0-19.
// Intent and holding: amount in bits 20-63 (signed for the intent), sequence in bits 0-19.
#define SEQUENCE_BITS 20
#define SEQUENCE_MASK ((1u << SEQUENCE_BITS) - 1)
#define WRITER_MASK 0xfffu

_Static_assert(POOL_MAX_PROCESSES < WRITER_MASK, "a writer fits its field");

static uint64_t word_pack(uint64_t count, uint32_t writer, uint32_t sequence)
{
    return count << 32 | (uint64_t)(writer + 1) << SEQUENCE_BITS | sequence;
}

static uint64_t record_pack(int64_t amount, uint32_t sequence)
{
    return (uint64_t)amount << SEQUENCE_BITS | sequence;
}

static uint32_t sequence_of(uint64_t value)
{
    return (uint32_t)value & SEQUENCE_MASK;
}

static int64_t amount_of(uint64_t record)
{
    return (int64_t)record >> SEQUENCE_BITS;
}

uint64_t account_count(const _Atomic uint64_t *word)
{
    return atomic_load(word) >> 32;
}

uint64_t account_holding(const struct pool_member *member)
{
    int64_t amount = amount_of(atomic_load(&member->holding));
    return amount > 0 ? (uint64_t)amount : 0;
}

// Tells the author of `word` that its operation took effect, before the word that proves it is replaced. Only moves the
// acknowledgement forward: a delayed helper must not undo a newer one.
static void acknowledge(struct pool_layout *layout, uint32_t gpu, uint64_t word)
{
    uint32_t writer = (uint32_t)(word >> SEQUENCE_BITS) & WRITER_MASK;
    if (writer == 0 || writer > POOL_MAX_PROCESSES)
        return;
    _Atomic uint64_t *acknowledged = &layout->members[writer - 1][gpu].acknowledged;
    uint32_t sequence = sequence_of(word);
    uint64_t seen = atomic_load(acknowledged);
    while (((sequence - sequence_of(seen)) & SEQUENCE_MASK) - 1 < SEQUENCE_MASK / 2) {
        if (atomic_compare_exchange_weak(acknowledged, &seen, sequence))
            break;
    }
}

int account_add(const struct account_ref *ref, int64_t delta, uint64_t limit)
{
    struct pool_member *member = &ref->layout->members[ref->process][ref->gpu];
    uint64_t holding = atomic_load(&member->holding);
    int64_t held = amount_of(holding);
    if (delta < 0 && held < -delta)
        return -EINVAL;
    if (limit > ACCOUNT_MAX_COUNT)
        limit = ACCOUNT_MAX_COUNT;

    uint32_t sequence = (sequence_of(holding) + 1) & SEQUENCE_MASK;
    atomic_store(&member->acknowledged, sequence_of(holding));
    atomic_store(&member->intent, record_pack(delta, sequence));

    uint64_t word = atomic_load(ref->word), count;
    do {
        count = word >> 32;
        if (delta >= 0) {
            if ((uint64_t)delta > limit || count > limit - (uint64_t)delta)
                return -ENOMEM;
            count += (uint64_t)delta;
        } else {
            // A count below what its holders say they hold means a damaged pool. Stop at zero rather than wrap.
            count = count >= (uint64_t)-delta ? count - (uint64_t)-delta : 0;
        }
        acknowledge(ref->layout, ref->gpu, word);
    } while (!atomic_compare_exchange_weak(ref->word, &word, word_pack(count, ref->process, sequence)));

    atomic_store(&member->holding, record_pack(held + delta, sequence));
    return 0;
}

void account_begin(struct pool_member *member)
{
    atomic_store(&member->holding, record_pack(0, sequence_of(atomic_load(&member->holding))));
}

void account_clear(_Atomic uint64_t *word, uint32_t before, uint32_t gpu)
{
    // The word keeps its author and sequence, so that past operations stay distinct from those to come. On another GPU the
    // author has another record with another sequence, which this word must not appear to acknowledge.
    uint32_t kept = before == gpu ? UINT32_MAX : SEQUENCE_MASK;
    atomic_store(word, (uint32_t)atomic_load(word) & kept);
}

void account_recover(const struct account_ref *ref)
{
    struct pool_member *member = &ref->layout->members[ref->process][ref->gpu];
    uint64_t holding = atomic_load(&member->holding);
    uint64_t intent = atomic_load(&member->intent);
    uint32_t sequence = (sequence_of(holding) + 1) & SEQUENCE_MASK;
    if (sequence_of(intent) != sequence)
        return;
    // First the word, then the acknowledgement: whoever replaces the word acknowledges before that.
    uint64_t word = atomic_load(ref->word);
    bool named = (uint32_t)word == (uint32_t)word_pack(0, ref->process, sequence);
    if (named || sequence_of(atomic_load(&member->acknowledged)) == sequence)
        atomic_store(&member->holding, record_pack(amount_of(holding) + amount_of(intent), sequence));
}
