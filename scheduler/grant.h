// SPDX-License-Identifier: AGPL-3.0-or-later
// What belongs to one grant of the token: how long its turn is, when its first launch came, how long others have waited for its
// end.
//
// Each is one word of the virtual GPU in the pool: 16 bits of the grant's generation above a time in units of 1024 ns, which
// lasts for nine years. A word of another generation counts as 0. So nothing needs clearing or preparing before the token
// moves, a process killed on the way leaves nothing that could be mistaken, and one that is late cannot write into a later
// grant.
#ifndef VGPU_SCHEDULER_GRANT_H
#define VGPU_SCHEDULER_GRANT_H

#include "scheduler/token.h"

#define GRANT_TIME_BITS 48
#define GRANT_UNIT_BITS 10

static inline uint64_t grant_value(uint64_t word, uint64_t ns)
{
    return (uint64_t)token_generation(word) << GRANT_TIME_BITS | (ns >> GRANT_UNIT_BITS & ((1ull << GRANT_TIME_BITS) - 1));
}

// The time in `field` if it belongs to the grant that the token `word` describes, else 0.
static inline uint64_t grant_get(const _Atomic uint64_t *field, uint64_t word)
{
    uint64_t value = atomic_load(field);
    bool valid = value >> GRANT_TIME_BITS == (token_generation(word) & 0xffff);
    return valid ? (value & ((1ull << GRANT_TIME_BITS) - 1)) << GRANT_UNIT_BITS : 0;
}

// The time from start_ns until now; 0 if nothing has started.
static inline uint64_t grant_since(uint64_t start_ns, uint64_t now_ns)
{
    return start_ns && start_ns < now_ns ? now_ns - start_ns : 0;
}

// Sets `field` of the grant that `word` describes to ns if it was expected_ns, and if `token` still stands for that grant.
static inline bool grant_set(_Atomic uint64_t *field, const _Atomic uint64_t *token, uint64_t word, uint64_t expected_ns,
                             uint64_t ns)
{
    uint64_t value = atomic_load(field);
    // In this order: the exchange fails whatever a later grant has written.
    if (token_without_flags(atomic_load(token)) != token_without_flags(word))
        return false;
    uint64_t known = value >> GRANT_TIME_BITS == (token_generation(word) & 0xffff) ? value : grant_value(word, 0);
    return known == grant_value(word, expected_ns) && atomic_compare_exchange_strong(field, &value, grant_value(word, ns));
}

static inline void grant_clear(_Atomic uint64_t *field, const _Atomic uint64_t *token, uint64_t word)
{
    grant_set(field, token, word, grant_get(field, word), 0);
}

// Adds ns, in whole units, to `field` of the grant that `word` describes. false: that grant is over.
static inline bool grant_add(_Atomic uint64_t *field, const _Atomic uint64_t *token, uint64_t word, uint64_t ns)
{
    while (token_without_flags(atomic_load(token)) == token_without_flags(word)) {
        uint64_t before = grant_get(field, word);
        if (grant_set(field, token, word, before, before + ns))
            return true;
    }
    return false;
}

// Sets `field` of the grant that `word` describes to 0 and returns what it was.
static inline uint64_t grant_take(_Atomic uint64_t *field, const _Atomic uint64_t *token, uint64_t word)
{
    uint64_t value = grant_get(field, word);
    while (value && !grant_set(field, token, word, value, 0)) {
        if (token_without_flags(atomic_load(token)) != token_without_flags(word))
            return 0;
        value = grant_get(field, word);
    }
    return value;
}

#endif
