// SPDX-License-Identifier: AGPL-3.0-or-later
// Buckets for time spans: four to an octave, from 1 us on, so that what is read back errs by a fifth at most. Bucket 0 is everything
// below 1 us, the last everything beyond about 16 s.
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
    // The two bits behind the leading one, of the figure in nanoseconds: 1 us itself has none.
    uint32_t quarter = (uint32_t)(ns * HISTOGRAM_PER_OCTAVE / 1000 >> octave) - HISTOGRAM_PER_OCTAVE;
    uint32_t bucket = 1 + octave * HISTOGRAM_PER_OCTAVE + quarter;
    return bucket < buckets ? bucket : buckets - 1;
}

// Where the spans of a bucket begin, in nanoseconds; where those of bucket + 1 begin is where they end.
static inline uint64_t histogram_start_ns(uint32_t bucket)
{
    if (bucket == 0)
        return 0;
    uint32_t octave = (bucket - 1) / HISTOGRAM_PER_OCTAVE, quarter = (bucket - 1) % HISTOGRAM_PER_OCTAVE;
    return ((1000ull << octave) * (HISTOGRAM_PER_OCTAVE + quarter)) / HISTOGRAM_PER_OCTAVE;
}

// The span that `permille` of the counted spans stay below, by the end of its bucket; 0 where nothing was counted.
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
