// What every program here has in common and needs no CUDA: options, clock, checksum, progress and the result line.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Exit status: 0 the result is right, 1 it is wrong, 2 an option is bad, 3 a CUDA call failed. Except for --help, whatever
// happens is said in one line: the result on stdout, everything else on stderr.
#ifndef KERNELS_OPTIONS_H
#define KERNELS_OPTIONS_H

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STATUS_WRONG = 1, STATUS_USAGE = 2, STATUS_CUDA = 3 };

enum option_kind {
    OPTION_FLAG,    // bool, no argument
    OPTION_COUNT,   // uint64_t, a decimal number
    OPTION_BYTES,   // uint64_t, a decimal number with an optional K, M, G or T (powers of 1024)
    OPTION_SECONDS, // double
    OPTION_TEXT     // const char *
};

struct option_row {
    const char *name;
    enum option_kind kind;
    void *value;
    uint64_t least, most; // of a count or of bytes
    const char *help;
};

struct workload {
    const char *name;
    const char *purpose;   // for --help
    const char *size_help; // what --size counts
    uint64_t size;         // its default, then its value
    uint64_t least, most;  // its limits
    double seconds;        // how long to launch
    double start_at;       // when to begin, of seconds_now: several programs can begin at once by it
    uint64_t iterations;   // if not 0: how much to launch instead
    bool progress;
    double progress_due; // when the next progress line is, of seconds_now
    double start;        // when the work began
    double stop;         // when its end was reached
    uint64_t kernels;    // launched so far
    uint64_t bytes;      // of device memory got so far
};

enum { WORKLOAD_OPTIONS = 5, MAX_OPTIONS = 16 };

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void sleep_seconds(double seconds)
{
    struct timespec left;
    left.tv_sec = (time_t)seconds;
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

// FNV-1a with 64 bits. Begin with CHECKSUM_SEED.
#define CHECKSUM_SEED 0xcbf29ce484222325u
static inline uint64_t checksum(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *byte = (const unsigned char *)data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

// Equally distributed bits that depend on nothing but `i` (splitmix64); input data comes from here.
static inline uint64_t mixed(uint64_t i)
{
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9u;
    i = (i ^ i >> 27) * 0x94d049bb133111ebu;
    return i ^ i >> 31;
}

static inline bool parse_number(const char *text, bool suffixes, uint64_t *value)
{
    static const char letters[] = "KMGT";
    unsigned shift = 0;
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno || end == text || text[0] < '0' || text[0] > '9')
        return false;
    if (suffixes && *end && strchr(letters, *end))
        shift = 10 * (unsigned)(strchr(letters, *end++) - letters + 1);
    if (*end || *value > UINT64_MAX >> shift)
        return false;
    *value <<= shift;
    return true;
}

static inline void usage_error(const struct workload *w, const char *option, const char *problem)
{
    fprintf(stderr, "%s: %s: %s (--help lists the options)\n", w->name, option, problem);
    exit(STATUS_USAGE);
}

static inline void set_option(const struct workload *w, const struct option_row *row, const char *text)
{
    char problem[160], option[64], *end;

    snprintf(option, sizeof option, "--%s", row->name);
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)row->value = true;
        return;
    case OPTION_SECONDS:
        errno = 0;
        *(double *)row->value = strtod(text, &end);
        if (errno || end == text || *end || !(*(double *)row->value >= 0 && *(double *)row->value <= 1e6))
            usage_error(w, option, "expected seconds between 0 and 1000000");
        return;
    case OPTION_TEXT:
        *(const char **)row->value = text;
        return;
    case OPTION_COUNT:
    case OPTION_BYTES:
        if (!parse_number(text, row->kind == OPTION_BYTES, (uint64_t *)row->value) || *(uint64_t *)row->value < row->least ||
            *(uint64_t *)row->value > row->most) {
            snprintf(problem, sizeof problem, "expected a whole number between %" PRIu64 " and %" PRIu64 "%s", row->least,
                     row->most, row->kind == OPTION_BYTES ? ", with or without K, M, G or T" : "");
            usage_error(w, option, problem);
        }
        return;
    }
}

static inline void print_help(const struct workload *w, const struct option_row *rows, int count)
{
    static const char *const arguments[] = {"", " N", " BYTES", " S", " TEXT"};

    printf("usage: %s [OPTION...]\n%s\n\n", w->name, w->purpose);
    for (int i = 0; i < count; i++) {
        int width = printf("  --%s%s", rows[i].name, arguments[rows[i].kind]);
        printf("%*s%s\n", width < 22 ? 22 - width : 1, "", rows[i].help);
    }
    printf("  --help              print this and exit\n"
           "\nExit status: 0 the result is right, 1 it is wrong, 2 an option is bad, 3 a CUDA call failed.\n");
}

// Reads the options that all programs have, and the program's own. Does not return from a bad one.
static inline void parse_options(struct workload *w, const struct option_row *own, int own_count, int argc, char **argv)
{
    const struct option_row common[WORKLOAD_OPTIONS] = {
        {"seconds", OPTION_SECONDS, &w->seconds, 0, 0, "launch for so long (default 2)"},
        {"iterations", OPTION_COUNT, &w->iterations, 1, UINT64_MAX, "do so many steps, however long they take"},
        {"size", OPTION_COUNT, &w->size, w->least, w->most, w->size_help},
        {"start-at", OPTION_SECONDS, &w->start_at, 0, 0, "begin to launch at this time of the monotonic clock"},
        {"progress", OPTION_FLAG, &w->progress, 0, 0, "say about once a second on stderr how far it is"},
    };
    struct option_row rows[MAX_OPTIONS];
    struct option names[MAX_OPTIONS + 2];
    int count = 0, choice;

    for (int i = 0; i < WORKLOAD_OPTIONS; i++)
        rows[count++] = common[i];
    for (int i = 0; i < own_count && count < MAX_OPTIONS; i++)
        rows[count++] = own[i];
    memset(names, 0, sizeof names);
    for (int i = 0; i < count; i++) {
        names[i].name = rows[i].name;
        names[i].has_arg = rows[i].kind == OPTION_FLAG ? no_argument : required_argument;
        names[i].val = 256 + i;
    }
    names[count].name = "help";
    names[count].val = 'h';
    w->seconds = 2;
    opterr = 0;
    // The leading colon tells a missing argument from an unknown option.
    while ((choice = getopt_long(argc, argv, ":", names, NULL)) != -1) {
        if (choice == 'h') {
            print_help(w, rows, count);
            exit(0);
        }
        if (choice == ':')
            usage_error(w, argv[optind - 1], "needs an argument");
        if (choice == '?') {
            char letter[] = {'-', (char)optopt, '\0'};
            bool is_letter = optopt > 0 && optopt < 256;
            usage_error(w, is_letter ? letter : argv[optind - 1], "no such option, or one that takes no argument");
        }
        set_option(w, &rows[choice - 256], optarg);
    }
    if (optind < argc)
        usage_error(w, argv[optind], "no such argument");
}

static inline void work_begins(struct workload *w)
{
    if (w->start_at > seconds_now())
        sleep_seconds(w->start_at - seconds_now());
    w->start = w->stop = seconds_now();
    w->progress_due = w->start + 1;
}

// Says how far the work is, if that was asked for and is due.
static inline void show_progress(struct workload *w, double now)
{
    if (!w->progress || now < w->progress_due)
        return;
    fprintf(stderr, "progress %s kernels=%" PRIu64 " elapsed=%.3f bytes=%" PRIu64 "\n", w->name, w->kernels, now - w->start,
            w->bytes);
    w->progress_due += 1 + (double)(int64_t)(now - w->progress_due);
}

// Whether another step is due; `steps` have been started.
static inline bool work_goes_on(struct workload *w, uint64_t steps)
{
    double now = seconds_now();

    show_progress(w, now);
    return w->iterations ? steps < w->iterations : now - w->start < w->seconds;
}

static inline void work_ended(struct workload *w)
{
    w->stop = seconds_now();
}

// Prints the result line, with `more` (" key=value…" or "") at its end, and returns the exit status.
static inline int report(const struct workload *w, bool verified, uint64_t sum, const char *more)
{
    double seconds = w->stop - w->start;

    printf("result program=%s kernels=%" PRIu64 " seconds=%.3f rate=%.1f verified=%s bytes=%" PRIu64 " checksum=%016" PRIx64
           "%s\n",
           w->name, w->kernels, seconds, seconds > 0 ? (double)w->kernels / seconds : 0.0, verified ? "yes" : "no", w->bytes,
           sum, more);
    return verified ? 0 : STATUS_WRONG;
}

#endif
