// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef VGPU_TESTS_RANDOM_H
#define VGPU_TESTS_RANDOM_H

#include <stdint.h>

// xorshift64*, so that a run can be repeated.
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

#endif
