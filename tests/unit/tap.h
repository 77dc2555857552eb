// SPDX-License-Identifier: AGPL-3.0-or-later
// What a unit test is written with: assertions that print TAP, the format that scripts/test.sh reads.
//
//     #include "tests/unit/tap.h"
//
//     int main(void)
//     {
//         ok(1 + 1 == 2, "one and one are two");
//         is_int(f(3), 9, "f squares %d", 3);
//         is_str(name, "a", "the name");
//         return done_testing();
//     }
//
// Each assertion is one test and returns whether it held; a failed one says where it stands and, where it compares, both values. Thread
// safe. A process forked by a test must leave with _exit and assert nothing: the count would not reach the parent.
#ifndef VGPU_TESTS_UNIT_TAP_H
#define VGPU_TESTS_UNIT_TAP_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    int count, failed;
} tap = {.lock = PTHREAD_MUTEX_INITIALIZER};

// Prints one test's line and, where it failed, `details`.
__attribute__((format(printf, 5, 0))) static inline bool tap_report(bool passed, const char *file, int line,
                                                                    const char *details, const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    // A new line would end the test's line, a # would begin a directive.
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '#')
            *c = ' ';
    pthread_mutex_lock(&tap.lock);
    tap.count++;
    tap.failed += !passed;
    printf("%sok %d - %s\n", passed ? "" : "not ", tap.count, text);
    if (!passed)
        printf("# at %s:%d\n%s", file, line, details);
    fflush(stdout); // what was tested before a crash is seen
    pthread_mutex_unlock(&tap.lock);
    return passed;
}

__attribute__((format(printf, 4, 5))) static inline bool tap_ok(const char *file, int line, bool passed, const char *format,
                                                                ...)
{
    va_list args;
    va_start(args, format);
    tap_report(passed, file, line, "", format, args);
    va_end(args);
    return passed;
}

__attribute__((format(printf, 5, 6))) static inline bool tap_is_int(const char *file, int line, __int128 actual,
                                                                    __int128 expected, const char *format, ...)
{
    // Wide enough for both signed and unsigned 64-bit values to be compared by value; printed as the kind they fit.
    char details[128];
    bool big = actual > INT64_MAX || expected > INT64_MAX;
    snprintf(details, sizeof details, big ? "# expected: %llu\n# actual:   %llu\n" : "# expected: %lld\n# actual:   %lld\n",
             (long long)expected, (long long)actual);
    va_list args;
    va_start(args, format);
    tap_report(actual == expected, file, line, details, format, args);
    va_end(args);
    return actual == expected;
}

__attribute__((format(printf, 5, 6))) static inline bool tap_is_str(const char *file, int line, const char *actual,
                                                                    const char *expected, const char *format, ...)
{
    char details[1200];
    snprintf(details, sizeof details, "# expected: %.500s\n# actual:   %.500s\n", expected ? expected : "(null)",
             actual ? actual : "(null)");
    bool passed = actual && expected ? strcmp(actual, expected) == 0 : actual == expected;
    va_list args;
    va_start(args, format);
    tap_report(passed, file, line, details, format, args);
    va_end(args);
    return passed;
}

// The description is a printf format with its arguments.
#define ok(condition, ...) tap_ok(__FILE__, __LINE__, (condition), __VA_ARGS__)
#define is_int(actual, expected, ...) tap_is_int(__FILE__, __LINE__, (actual), (expected), __VA_ARGS__)
#define is_str(actual, expected, ...) tap_is_str(__FILE__, __LINE__, (actual), (expected), __VA_ARGS__)

// Counts `tests` tests as skipped, each with the reason.
static inline void skip(int tests, const char *reason)
{
    pthread_mutex_lock(&tap.lock);
    for (int i = 0; i < tests; i++)
        printf("ok %d # SKIP %s\n", ++tap.count, reason);
    fflush(stdout);
    pthread_mutex_unlock(&tap.lock);
}

// Ends the test: for what makes going on pointless.
static inline _Noreturn void bail_out(const char *reason)
{
    printf("Bail out! %s\n", reason);
    fflush(stdout);
    _Exit(255);
}

// Prints the plan; returns what main is to return.
static inline int done_testing(void)
{
    printf("1..%d\n", tap.count);
    fflush(stdout);
    return tap.failed != 0 || tap.count == 0;
}

#endif
