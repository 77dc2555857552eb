// SPDX-License-Identifier: AGPL-3.0-or-later
// Buckets for time spans: four per octave, from 1 us on, so that values read back are at most a quarter too high. Bucket 0 is
// everything below 1 us, the last of 96 everything beyond about 12 s.
#ifndef VGPU_BASE_HISTOGRAM_H
#define VGPU_BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_PER_OCTAVE 4u

// The bucket, below `buckets`, that a span falls into.
static inline uint32_t histogram_bucket(uint64_t ns, uint32_t buckets)
{
    uint64_t us = ns / 1000;
    if (us == 0)
        return 0;
    if (us >> 32)
        return buckets - 1;
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(us);
    // The two bits after the leading one, from the figure in nanoseconds: 1 us itself has none.
    uint32_t quarter = (uint32_t)(ns * HISTOGRAM_PER_OCTAVE / 1000 >> octave) - HISTOGRAM_PER_OCTAVE;
    uint32_t bucket = 1 + octave * HISTOGRAM_PER_OCTAVE + quarter;
    return bucket < buckets ? bucket : buckets - 1;
}

// The start of a bucket, in nanoseconds; it ends where bucket + 1 starts.
static inline uint64_t histogram_start_ns(uint32_t bucket)
{
    if (bucket == 0)
        return 0;
    uint32_t octave = (bucket - 1) / HISTOGRAM_PER_OCTAVE, quarter = (bucket - 1) % HISTOGRAM_PER_OCTAVE;
    return ((1000ull << octave) * (HISTOGRAM_PER_OCTAVE + quarter)) / HISTOGRAM_PER_OCTAVE;
}

// The span below which `permille` of the counted spans are, as the end of its bucket; 0 if nothing was counted.
static inline uint64_t histogram_quantile_ns(const uint32_t *counts, uint32_t buckets, uint32_t permille)
{
    uint64_t sum = 0, below = 0;
    for (uint32_t i = 0; i < buckets; i++)
        sum += counts[i];
    if (sum == 0)
        return 0;
    for (uint32_t i = 0; i < buckets; i++) {
        below += counts[i];
        if (below * 1000 >= sum * permille)
            return histogram_start_ns(i + 1);
    }
    return histogram_start_ns(buckets);
}

#endif
