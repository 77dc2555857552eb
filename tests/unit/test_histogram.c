// SPDX-License-Identifier: AGPL-3.0-or-later
// Buckets of time spans, and what is read back from them.
#include "base/histogram.h"
#include "base/clock.h"
#include "pool/layout.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#define BUCKETS POOL_HISTOGRAM_BUCKETS

static void test_buckets(void)
{
    bool rising = true, inside = true, narrow = true;
    for (uint32_t i = 0; i < BUCKETS; i++)
        rising = rising && histogram_start_ns(i) < histogram_start_ns(i + 1);
    ok(rising, "each bucket begins where the one before ends, and later");
    uint32_t last = 0;
    rising = true;
    uint64_t state = 3;
    for (uint64_t ns = 0; ns < 20 * NS_PER_S; ns += 1 + ns / 5000 + random_next(&state) % (1 + ns / 5000)) {
        uint32_t bucket = histogram_bucket(ns, BUCKETS);
        rising = rising && bucket >= last && bucket <= last + 1;
        last = bucket;
        inside = inside && bucket < BUCKETS && histogram_start_ns(bucket) <= ns &&
                 (bucket == BUCKETS - 1 || ns < histogram_start_ns(bucket + 1));
        narrow = narrow && (ns < 1000 || bucket == BUCKETS - 1 || histogram_start_ns(bucket + 1) <= ns + ns / 4 + 1);
    }
    ok(rising, "longer spans are in later buckets, and none is skipped");
    ok(inside, "every span is in the bucket that it lies in");
    ok(narrow, "from 1 us on the end of a bucket is no more than a quarter above what is in it");
    is_int(last, BUCKETS - 1, "the last bucket takes the longest");
    bool edges = true;
    for (uint32_t i = 1; i < BUCKETS; i++) {
        // Where a quarter of an octave is no whole number of nanoseconds, the start is rounded down.
        uint64_t start = histogram_start_ns(i);
        edges = edges && histogram_bucket(start + 1, BUCKETS) == i && histogram_bucket(start - 1, BUCKETS) == i - 1;
    }
    ok(edges, "next to its edges as well");
}

static void test_nonsense(void)
{
    static const uint64_t spans[] = {20 * NS_PER_S, UINT64_MAX / 1000, UINT64_MAX / 4, UINT64_MAX / 4 + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++)
        is_int(histogram_bucket(spans[i], BUCKETS), BUCKETS - 1, "a span of %llu ns is in the last bucket",
               (unsigned long long)spans[i]);
    is_int(histogram_bucket(5000, 1), 0, "where there is one bucket, everything is in it");
    is_int(histogram_bucket(0, BUCKETS), 0, "nothing is less than a microsecond");
    uint32_t counts[BUCKETS];
    for (uint32_t i = 0; i < BUCKETS; i++)
        counts[i] = UINT32_MAX;
    is_int(histogram_quantile_ns(counts, BUCKETS, 500), histogram_start_ns(BUCKETS / 2),
           "counts that are full overflow nothing");
    is_int(histogram_quantile_ns(counts, BUCKETS, UINT32_MAX), histogram_start_ns(BUCKETS), "more than all is all");
}

static void test_quantiles(void)
{
    uint32_t counts[BUCKETS] = {0};
    is_int(histogram_quantile_ns(counts, BUCKETS, 500), 0, "of nothing there is no median");
    counts[histogram_bucket(100 * NS_PER_US, BUCKETS)] = 1;
    uint64_t end = histogram_start_ns(histogram_bucket(100 * NS_PER_US, BUCKETS) + 1);
    ok(histogram_quantile_ns(counts, BUCKETS, 1) == end && histogram_quantile_ns(counts, BUCKETS, 1000) == end,
       "of one span all quantiles are the end of its bucket");
    counts[histogram_bucket(100 * NS_PER_US, BUCKETS)] = 990;
    counts[histogram_bucket(10 * NS_PER_MS, BUCKETS)] = 10;
    uint64_t tail = histogram_start_ns(histogram_bucket(10 * NS_PER_MS, BUCKETS) + 1);
    is_int(histogram_quantile_ns(counts, BUCKETS, 990), end, "a hundredth of long ones does not show in p99");
    is_int(histogram_quantile_ns(counts, BUCKETS, 991), tail, "but just beyond");
    // Against the spans themselves, sorted by being equally spaced.
    for (uint32_t i = 0; i < BUCKETS; i++)
        counts[i] = 0;
    for (uint64_t us = 1; us <= 100000; us++)
        counts[histogram_bucket(us * NS_PER_US, BUCKETS)]++;
    bool near = true;
    for (uint32_t permille = 1; permille <= 1000; permille++) {
        uint64_t exact = permille * 100 * NS_PER_US, read = histogram_quantile_ns(counts, BUCKETS, permille);
        near = near && read >= exact && read <= exact + exact / 4 + NS_PER_US;
    }
    ok(near, "every quantile of evenly spread spans is right or at most a quarter too high");
}

int main(void)
{
    test_buckets();
    test_nonsense();
    test_quantiles();
    return done_testing();
}
