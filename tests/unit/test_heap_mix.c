// SPDX-License-Identifier: AGPL-3.0-or-later
// Fragmentation: how much more physical memory the heap holds than is in use, and whether it ever refuses what fits, over a
// long life of mixed sizes and lifetimes. The GPU keeps up: memory that queued work still uses is not fragmentation. Two mixes:
// a synthetic one, sizes from 256 bytes to 256 MiB and heavy-tailed lifetimes, and whatever scripts/record-trace.py has
// recorded of a real program in tests/traces/.
#include <dirent.h>
#include <string.h>

#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

#include "tests/unit/fake_memory.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define BLOCK HEAP_BLOCK_BYTES
#define MOST 200000u
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEPS 4000u
#else
#define STEPS 60000u
#endif

struct item {
    uint64_t address, bytes, death;
};

static struct fake_memory gpu;
static struct heap *heap;
static uint64_t lag; // pieces of work that the GPU is behind

// What is in use, the next to die first: a binary heap.
static struct item items[MOST];
static unsigned count;

static void items_push(struct item item)
{
    unsigned i = count++;
    for (; i && items[(i - 1) / 2].death > item.death; i = (i - 1) / 2)
        items[i] = items[(i - 1) / 2];
    items[i] = item;
}

static struct item items_pop(void)
{
    struct item first = items[0], last = items[--count];
    unsigned i = 0, child;
    for (; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && items[child + 1].death < items[child].death)
            child++;
        if (items[child].death >= last.death)
            break;
        items[i] = items[child];
    }
    items[i] = last;
    return first;
}

// What one run has shown.
struct result {
    uint64_t worst, sum, looks; // physical by live memory, in thousandths
    uint64_t refused, extents;
};

static void begin(uint64_t quota_bytes)
{
    fake_begin(&gpu, quota_bytes);
    gpu.advances = true;
    const struct heap_config config = {.ops = &fake_ops, .gpu = &gpu, .capacity_bytes = quota_bytes};
    if (heap_create(&config, &heap))
        bail_out("no heap");
    count = 0;
}

static void end(const char *what)
{
    is_str(heap_check(heap), NULL, "%s: the books agree in the end", what);
    fake_run(&gpu, 0, 0);
    heap_destroy(heap);
    is_str(fake_end(&gpu), NULL, "%s: and all is given back", what);
}

static uint64_t allocate(uint64_t bytes)
{
    uint64_t address = 0;
    if (heap_alloc(heap, bytes, 512, fake_stream(0), &address))
        return 0;
    fake_launch(&gpu, 0, address, bytes);
    fake_run(&gpu, 0, lag);
    return address;
}

static void look(struct result *result, uint64_t live)
{
    uint64_t thousandths = (heap_look(heap).physical_bytes * 1000 + live - 1) / live;
    result->sum += thousandths;
    result->looks++;
    if (thousandths > result->worst)
        result->worst = thousandths;
}

// Each doubling of the size is as likely as the next, and twice the lifetime half as likely.
static struct result synthetic(uint64_t seed, uint64_t quota_bytes, unsigned percent)
{
    struct result result = {0};
    uint64_t state = seed * 0x9e3779b97f4a7c15ull, live = 0, target = quota_bytes / 100 * percent;
    begin(quota_bytes);
    for (uint64_t now = 0; now < STEPS; now++) {
        uint64_t octave = 256ull << random_next(&state) % 20, bytes = octave + random_next(&state) % octave;
        uint64_t life = 2000ull << __builtin_ctzll(random_next(&state) | 1ull << 20);
        life += random_next(&state) % life;
        while (count && (live + bytes > target || items[0].death <= now)) {
            struct item item = items_pop();
            heap_free(heap, item.address, fake_stream(0));
            live -= item.bytes;
        }
        uint64_t address = allocate(bytes);
        if (address) {
            items_push((struct item){address, bytes, now + life});
            live += bytes;
        } else {
            result.refused++;
        }
        if (live >= target / 100 * 97)
            look(&result, live);
    }
    result.extents = gpu.creations;
    return result;
}

static void report(const struct result *result, const char *what)
{
    printf("# %s: physical / live %llu.%03llu at most, %llu.%03llu on average of %llu; %llu extents made\n", what,
           (unsigned long long)result->worst / 1000, (unsigned long long)result->worst % 1000,
           (unsigned long long)(result->looks ? result->sum / result->looks : 0) / 1000,
           (unsigned long long)(result->looks ? result->sum / result->looks : 0) % 1000, (unsigned long long)result->looks,
           (unsigned long long)result->extents);
}

static void test_synthetic(void)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        char what[80];
        for (uint64_t quota = 8 * GIB; quota <= 16 * GIB; quota *= 2) {
            snprintf(what, sizeof what, "seed %d, %d GiB, 80 %% in use", (int)seed, (int)(quota / GIB));
            struct result result = synthetic(seed, quota, 80);
            report(&result, what);
            ok(result.looks > STEPS / 4, "%s: the mix keeps it there", what);
            ok(result.worst <= 1100, "%s: physical memory is never more than 1.10 of it", what);
            is_int(result.refused, 0, "%s: nothing is refused", what);
            end(what);
        }
        snprintf(what, sizeof what, "seed %d, 16 GiB, 90 %% in use, work queued", (int)seed);
        lag = 8;
        struct result result = synthetic(seed, 16 * GIB, 90);
        lag = 0;
        report(&result, what);
        is_int(result.refused, 0, "%s: nothing is refused", what);
        end(what);
    }
}

// A trace: "+BYTES" allocates, "-N" frees the N-th allocation, counted from 0; '#' begins a comment.
struct trace {
    struct {
        int64_t bytes; // negative: frees allocation number -bytes - 1
    } steps[MOST];
    unsigned length;
    uint64_t peak_bytes;
};

static struct trace trace;

static bool trace_read(const char *path)
{
    static uint64_t sizes[MOST];
    char line[128];
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    unsigned allocations = 0;
    uint64_t live = 0;
    trace.length = 0;
    trace.peak_bytes = 0;
    while (trace.length < MOST && fgets(line, sizeof line, file)) {
        uint64_t value = strtoull(line + 1, NULL, 10);
        if (line[0] == '+') {
            sizes[allocations++] = value;
            live += value;
            trace.steps[trace.length++].bytes = (int64_t)value;
        } else if (line[0] == '-' && value < allocations) {
            live -= sizes[value];
            trace.steps[trace.length++].bytes = -(int64_t)value - 1;
        }
        if (live > trace.peak_bytes)
            trace.peak_bytes = live;
    }
    fclose(file);
    return trace.length > 0;
}

static struct result replay(uint64_t quota_bytes)
{
    static uint64_t addresses[MOST], sizes[MOST];
    struct result result = {0};
    uint64_t live = 0;
    begin(quota_bytes);
    // Twice: a training goes on and on.
    for (int round = 0; round < 2; round++) {
        unsigned allocations = 0;
        for (unsigned i = 0; i < trace.length; i++) {
            int64_t bytes = trace.steps[i].bytes;
            if (bytes > 0) {
                sizes[allocations] = (uint64_t)bytes;
                addresses[allocations] = allocate((uint64_t)bytes);
                result.refused += addresses[allocations] == 0;
                live += addresses[allocations++] ? (uint64_t)bytes : 0;
            } else if (addresses[-bytes - 1]) {
                heap_free(heap, addresses[-bytes - 1], fake_stream(0));
                addresses[-bytes - 1] = 0;
                live -= sizes[-bytes - 1];
            }
            if (live >= trace.peak_bytes / 100 * 97)
                look(&result, live);
        }
        for (unsigned i = 0; i < allocations; i++)
            if (addresses[i])
                heap_free(heap, addresses[i], fake_stream(0));
        live = 0;
    }
    result.extents = gpu.creations;
    return result;
}

static void test_traces(void)
{
    DIR *folder = opendir("tests/traces");
    const struct dirent *entry;
    int found = 0;
    while (folder && (entry = readdir(folder))) {
        char path[300];
        snprintf(path, sizeof path, "tests/traces/%s", entry->d_name);
        if (entry->d_name[0] == '.' || !trace_read(path))
            continue;
        found++;
        for (unsigned percent = 80; percent <= 90; percent += 10) {
            uint64_t quota = (trace.peak_bytes / percent * 100 + BLOCK) / BLOCK * BLOCK;
            struct result result = replay(quota);
            report(&result, entry->d_name);
            is_int(result.refused, 0, "%s: nothing is refused with %u %% of the quota in use", entry->d_name, percent);
            if (percent == 80)
                ok(result.looks && result.worst <= 1100, "%s: physical memory is never more than 1.10 of what is in use",
                   entry->d_name);
            end(entry->d_name);
        }
    }
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
