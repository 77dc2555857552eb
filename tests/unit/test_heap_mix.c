// SPDX-License-Identifier: AGPL-3.0-or-later
// Fragmentation: how much more physical memory the heap holds than is in use, and whether it ever refuses what fits, over a
// long life of mixed sizes and lifetimes. The GPU keeps up: memory that queued work still uses is not fragmentation. A made-up
// mix, and whatever scripts/record-trace.py has recorded of a real program in tests/traces/.
#include <dirent.h>
#include <string.h>

#include "tests/unit/fake_memory.h"
#include "tests/unit/mix.h"
#include "tests/unit/tap.h"

#define GIB (1ull << 30)
#define BLOCK HEAP_BLOCK_BYTES
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ALLOCATIONS 4000u
#else
#define ALLOCATIONS 60000u
#endif

static struct fake_memory gpu;
static struct heap *heap;
static uint64_t lag; // pieces of work that the GPU is behind
static struct mix mix;

static uint64_t allocate(uint64_t bytes)
{
    uint64_t address = 0;
    if (heap_alloc(heap, bytes, 512, fake_stream(0), &address))
        return 0;
    fake_launch(&gpu, 0, address, bytes);
    fake_run(&gpu, 0, lag);
    return address;
}

static void release(uint64_t address)
{
    heap_free(heap, address, fake_stream(0));
}

static uint64_t physical_bytes(void)
{
    return heap_look(heap).physical_bytes;
}

static struct mix_result replay(uint64_t quota_bytes, unsigned times, const char *what)
{
    static const struct mix_user user = {allocate, release, physical_bytes};
    fake_begin(&gpu, quota_bytes);
    gpu.advances = true;
    const struct heap_config config = {.ops = &fake_ops, .gpu = &gpu, .capacity_bytes = quota_bytes};
    if (heap_create(&config, &heap))
        bail_out("no heap");
    struct mix_result result = mix_replay(&mix, &user, times);
    printf("# %s: physical / live %.3f at most, %.3f on average of %llu; %llu extents made\n", what,
           (double)result.worst / 1000, (double)result.mean / 1000, (unsigned long long)result.looks,
           (unsigned long long)gpu.creations);
    is_int(result.refused, 0, "%s: nothing is refused", what);
    is_str(heap_check(heap), NULL, "%s: the books agree in the end", what);
    fake_run(&gpu, 0, 0);
    heap_destroy(heap);
    is_str(fake_end(&gpu), NULL, "%s: and all is given back", what);
    return result;
}

static void test_synthetic(void)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        char what[80];
        for (uint64_t quota = 8 * GIB; quota <= 16 * GIB; quota *= 2) {
            snprintf(what, sizeof what, "seed %d, %d GiB, 80 %% in use", (int)seed, (int)(quota / GIB));
            mix_make(&mix, seed, ALLOCATIONS, quota / 100 * 80);
            struct mix_result result = replay(quota, 1, what);
            ok(result.looks > ALLOCATIONS / 4, "%s: the mix keeps it there", what);
            ok(result.worst <= 1100, "%s: physical memory is never more than 1.10 of it", what);
        }
        snprintf(what, sizeof what, "seed %d, 16 GiB, 90 %% in use, work queued", (int)seed);
        mix_make(&mix, seed, ALLOCATIONS, 16 * GIB / 100 * 90);
        lag = 8;
        replay(16 * GIB, 1, what);
        lag = 0;
    }
}

static void test_trace(const char *name, uint64_t seed)
{
    char path[300], what[360];
    snprintf(path, sizeof path, "tests/traces/%s", name);
    if (!mix_read(&mix, path, seed))
        bail_out(path);
    for (unsigned percent = 80; percent <= 90; percent += 10) {
        snprintf(what, sizeof what, "%s%s, %u %% in use", name, seed ? " with random sizes" : "", percent);
        struct mix_result result = replay((mix.peak_bytes / percent * 100 + BLOCK) / BLOCK * BLOCK, 2, what);
        if (percent == 80)
            ok(result.looks && result.worst <= 1100, "%s: physical memory is never more than 1.10 of it", what);
    }
}

static void test_traces(void)
{
    DIR *folder = opendir("tests/traces");
    const struct dirent *entry;
    int found = 0;
    while (folder && (entry = readdir(folder)))
        for (uint64_t seed = 0; entry->d_name[0] != '.' && seed < 2; seed++, found++)
            test_trace(entry->d_name, seed);
    if (folder)
        closedir(folder);
    if (!found)
        skip(1, "no trace has been recorded in tests/traces");
}

int main(void)
{
    test_synthetic();
    test_traces();
    return done_testing();
}
