// SPDX-License-Identifier: AGPL-3.0-or-later
// What a program allocates and frees over a long life, and what an allocator makes of it: how much more physical memory it holds than is in
// use, and whether it refuses what fits. A mix is made up or recorded; a test of the heap's books and the benchmark of the whole
// library replay the same ones.
#ifndef VGPU_TESTS_MIX_H
#define VGPU_TESTS_MIX_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/random.h"

#define MIX_MOST 400000u

struct mix {
    int64_t steps
        [MIX_MOST]; // above 0: bytes that are allocated; else the number of an allocation, counted from 0, negative: it is freed
    uint64_t sizes[MIX_MOST];
    unsigned length, allocations;
    uint64_t live_bytes, peak_bytes;
};

// What replays one. `allocate` returns an address, 0 where it is refused.
struct mix_user {
    uint64_t (*allocate)(uint64_t bytes);
    void (*release)(uint64_t address);
    uint64_t (*physical_bytes)(void);
};

// Ratios of physical to live memory, in thousandths, where at least 97 % of the peak are in use.
struct mix_result {
    uint64_t worst, mean, looks, refused;
};

static inline bool mix_full(const struct mix *mix)
{
    return mix->length == MIX_MOST;
}

static inline unsigned mix_allocate(struct mix *mix, uint64_t bytes)
{
    mix->steps[mix->length++] = (int64_t)bytes;
    mix->sizes[mix->allocations] = bytes;
    mix->live_bytes += bytes;
    if (mix->live_bytes > mix->peak_bytes)
        mix->peak_bytes = mix->live_bytes;
    return mix->allocations++;
}

static inline void mix_free(struct mix *mix, unsigned number)
{
    mix->steps[mix->length++] = -(int64_t)number;
    mix->live_bytes -= mix->sizes[number];
}

// From 256 bytes to 256 MiB, each doubling as likely as the next.
static inline uint64_t mix_size(uint64_t *state)
{
    uint64_t octave = 256ull << random_next(state) % 20;
    return octave + random_next(state) % octave;
}

// What is in use, the next to die first: a binary heap.
struct mix_lives {
    struct {
        unsigned number;
        uint64_t death;
    } items[MIX_MOST];
    unsigned count;
};

static inline void mix_lives_push(struct mix_lives *lives, unsigned number, uint64_t death)
{
    unsigned i = lives->count++;
    for (; i && lives->items[(i - 1) / 2].death > death; i = (i - 1) / 2)
        lives->items[i] = lives->items[(i - 1) / 2];
    lives->items[i].number = number;
    lives->items[i].death = death;
}

static inline unsigned mix_lives_pop(struct mix_lives *lives)
{
    unsigned first = lives->items[0].number, last = --lives->count, i = 0, child;
    for (; (child = 2 * i + 1) < last; i = child) {
        child += child + 1 < last && lives->items[child + 1].death < lives->items[child].death;
        if (lives->items[child].death >= lives->items[last].death)
            break;
        lives->items[i] = lives->items[child];
    }
    lives->items[i] = lives->items[last];
    return first;
}

// Random sizes; twice the lifetime is half as likely; never more than `most_bytes` in use.
static inline void mix_make(struct mix *mix, uint64_t seed, unsigned allocations, uint64_t most_bytes)
{
    static struct mix_lives lives;
    uint64_t state = seed * 0x9e3779b97f4a7c15ull;
    lives.count = 0;
    mix->length = mix->allocations = 0;
    mix->live_bytes = mix->peak_bytes = 0;
    for (uint64_t now = 0; now < allocations && !mix_full(mix); now++) {
        uint64_t bytes = mix_size(&state), life = 2000ull << __builtin_ctzll(random_next(&state) | 1ull << 20);
        life += random_next(&state) % life;
        while (lives.count && !mix_full(mix) && (mix->live_bytes + bytes > most_bytes || lives.items[0].death <= now))
            mix_free(mix, mix_lives_pop(&lives));
        if (!mix_full(mix))
            mix_lives_push(&lives, mix_allocate(mix, bytes), now + life);
    }
}

// What scripts/record-trace.py has recorded: "+BYTES" allocates, "-N" frees the N-th allocation, counted from 0; '#' begins a comment. With
// a seed, its lifetimes with random sizes. false: there is nothing in it.
static inline bool mix_read(struct mix *mix, const char *path, uint64_t seed)
{
    char line[128];
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    mix->length = mix->allocations = 0;
    mix->live_bytes = mix->peak_bytes = 0;
    while (!mix_full(mix) && fgets(line, sizeof line, file)) {
        uint64_t value = strtoull(line + 1, NULL, 10);
        if (line[0] == '+')
            mix_allocate(mix, seed ? mix_size(&seed) : value);
        else if (line[0] == '-' && value < mix->allocations)
            mix_free(mix, (unsigned)value);
    }
    fclose(file);
    return mix->length > 0;
}

static inline void mix_look(const struct mix *mix, const struct mix_user *user, uint64_t live, struct mix_result *result)
{
    if (live < mix->peak_bytes / 100 * 97)
        return;
    uint64_t thousandths = (user->physical_bytes() * 1000 + live - 1) / live;
    result->mean += thousandths; // a sum until the end
    result->looks++;
    if (thousandths > result->worst)
        result->worst = thousandths;
}

// From the beginning to the end, `times` times: a training goes on and on.
static inline struct mix_result mix_replay(const struct mix *mix, const struct mix_user *user, unsigned times)
{
    static uint64_t addresses[MIX_MOST]; // 0: refused, or freed
    struct mix_result result = {0};
    while (times--) {
        unsigned count = 0;
        uint64_t live = 0;
        for (unsigned i = 0; i < mix->length; i++) {
            int64_t step = mix->steps[i];
            if (step > 0) {
                addresses[count] = user->allocate((uint64_t)step);
                live += addresses[count] ? (uint64_t)step : 0;
                result.refused += !addresses[count++];
                mix_look(mix, user, live, &result);
            } else if (addresses[-step]) {
                user->release(addresses[-step]);
                live -= mix->sizes[-step];
                addresses[-step] = 0;
            }
        }
        for (unsigned i = 0; i < count; i++)
            if (addresses[i])
                user->release(addresses[i]);
    }
    if (result.looks)
        result.mean /= result.looks;
    return result;
}

#endif
