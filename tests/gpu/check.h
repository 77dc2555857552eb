// What the programs share whose output is compared with and without the library. They know nothing of it.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A program prints its results on stdout, one line each, bit for bit the same whenever it runs right, and exits with 0. It exits with 1
// after a line on stderr, or with STATUS_SKIPPED after one line on stdout that says what the machine lacks.
//
//     while (again())          // once, or for COMPAT_SECONDS
//         result("sum", ...);  // printed once; another value in a later pass is an error
//
// COMPAT_HERE and COMPAT_THERE, where two programs run at once: the first pass begins when both files exist, so that the passes of
// both overlap. COMPAT_HERE is made by the program.
#ifndef CHECK_H
#define CHECK_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STATUS_SKIPPED 77
#define MEETING_SECONDS 60

#if defined(__cplusplus)
#define NO_RETURN [[noreturn]]
#else
#define NO_RETURN _Noreturn
#endif

#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
NO_RETURN static inline void
fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

NO_RETURN static inline void skip(const char *why)
{
    puts(why);
    exit(STATUS_SKIPPED);
}

// Every library of CUDA's says success with 0.
#define OK(call)                                                                                                               \
    do {                                                                                                                       \
        int status_ = (int)(call);                                                                                             \
        if (status_ != 0)                                                                                                      \
            fail("%s:%d: %s: status %d", __FILE__, __LINE__, #call, status_);                                                  \
    } while (0)

#define EXPECT(condition)                                                                                                      \
    do {                                                                                                                       \
        if (!(condition))                                                                                                      \
            fail("%s:%d: not so: %s", __FILE__, __LINE__, #condition);                                                         \
    } while (0)

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// The other one may have failed before it came here; what it says then is its own affair.
static inline void meet(void)
{
    const char *here = getenv("COMPAT_HERE"), *there = getenv("COMPAT_THERE");
    if (!here || !there)
        return;
    int fd = open(here, O_WRONLY | O_CREAT, 0600);
    if (fd < 0)
        fail("%s cannot be made", here);
    close(fd);
    for (double end = seconds_now() + MEETING_SECONDS; access(there, F_OK) != 0 && seconds_now() < end;)
        usleep(1000);
}

static inline bool again(void)
{
    static bool begun;
    static double end;
    if (begun)
        return seconds_now() < end;
    begun = true;
    meet();
    const char *seconds = getenv("COMPAT_SECONDS");
    end = seconds_now() + (seconds ? atof(seconds) : 0);
    return true;
}

// In the manner of FNV-1a, by words: the programs are to keep the GPU busy, not the processor.
static inline uint64_t hash_of(const void *data, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u ^ bytes;
    for (size_t at = 0; at < bytes; at += sizeof hash) {
        uint64_t word = 0;
        memcpy(&word, (const char *)data + at, bytes - at < sizeof word ? bytes - at : sizeof word);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 32;
    }
    return hash;
}

static inline void result(const char *name, const void *data, size_t bytes)
{
    static struct seen {
        const char *name;
        uint64_t hash;
    } seen[64];
    static size_t count;
    uint64_t hash = hash_of(data, bytes);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(seen[i].name, name) != 0)
            continue;
        if (seen[i].hash != hash)
            fail("%s: %016llx in this pass, %016llx in the first", name, (unsigned long long)hash,
                 (unsigned long long)seen[i].hash);
        return;
    }
    if (count == sizeof seen / sizeof seen[0])
        fail("more results than there is room for");
    seen[count].name = name;
    seen[count++].hash = hash;
    printf("%s %016llx\n", name, (unsigned long long)hash);
    fflush(stdout);
}

// Numbers without a pattern, the same in every run (the mixing function of SplitMix64).
static inline uint64_t mixed(uint64_t x)
{
    x = (x + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// From -1 to 1.
static inline double uniform(uint64_t x)
{
    return (double)(mixed(x) >> 11) / (double)(1ull << 52) - 1;
}

#endif
