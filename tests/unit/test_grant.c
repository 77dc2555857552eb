// SPDX-License-Identifier: AGPL-3.0-or-later
// What belongs to one grant stays with it.
#include "scheduler/grant.h"
#include "base/clock.h"
#include "tests/unit/tap.h"

#define MS NS_PER_MS

int main(void)
{
    _Atomic uint64_t token = token_next(0, 7, TOKEN_CONTENDED), field = 0;
    uint64_t first = atomic_load(&token), now = 1000 * NS_PER_S;
    is_int(grant_get(&field, first), 0, "of a new grant nothing is known");
    ok(grant_set(&field, &token, first, 0, 20 * MS), "the length of its turn is told");
    ok(20 * MS - grant_get(&field, first) < 1024, "to the microsecond");
    ok(!grant_set(&field, &token, first, 0, 30 * MS), "once");
    ok(grant_set(&field, &token, first, 20 * MS, 30 * MS) && 30 * MS - grant_get(&field, first) < 1024,
       "it is changed by who knows it");
    ok(grant_get(&field, first | TOKEN_REVOKED) == grant_get(&field, first), "the token's flags make no difference");
    atomic_store(&token, first | TOKEN_REVOKED);
    ok(grant_set(&field, &token, first, 30 * MS, 0) && grant_get(&field, first) == 0, "also not to who changes it");

    uint64_t second = token_next(first, 7, 0);
    grant_set(&field, &token, first, 0, 20 * MS);
    atomic_store(&token, second);
    is_int(grant_get(&field, second), 0, "what was told about a grant does not count in the next one of the same virtual GPU");
    ok(!grant_set(&field, &token, first, 20 * MS, 40 * MS), "who is late changes nothing");
    ok(grant_set(&field, &token, second, 0, now), "a moment is kept as well");
    ok(!grant_set(&field, &token, first, 0, 40 * MS) && now - grant_get(&field, second) < 1024,
       "and is not overwritten by who is late");
    const uint64_t years = 9ull * 365 * 24 * 3600 * NS_PER_S;
    ok(grant_set(&field, &token, second, now, years) && years - grant_get(&field, second) < 1024, "for nine years");
    uint64_t wrapped = (second & ~(uint64_t)TOKEN_GENERATION_MASK) | (token_generation(second) + 0x10000);
    ok(grant_get(&field, token_next(wrapped, 7, 0)) == 0, "the generations' wrap is far away");
    return done_testing();
}
