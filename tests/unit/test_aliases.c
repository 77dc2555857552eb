// SPDX-License-Identifier: AGPL-3.0-or-later
// Other tools' variables as options: what is understood, which of several counts, what is refused by which name.
#include "options/aliases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/tap.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct options options;
static struct error error;

// The options from an environment of these variables alone; ends with NULL.
static int with(const char *variable, ...)
{
    va_list rest;
    clearenv();
    va_start(rest, variable);
    for (; variable; variable = va_arg(rest, const char *))
        setenv(variable, va_arg(rest, const char *), 1);
    va_end(rest);
    error.text[0] = '\0';
    return options_from_environment(&options, &error);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"1g", GIB},       {"2G", 2 * GIB},   {"4096m", 4 * GIB}, {"1024M", GIB},
                {"1048576k", GIB}, {"1048576K", GIB}, {"1073741824", GIB}};
    static const char *const bad[] = {"",
                                      "0",
                                      "0m",
                                      "-1",
                                      "1.5g",
                                      "1gb",
                                      "1GiB",
                                      "25%",
                                      "0x400m",
                                      "g",
                                      "1g ",
                                      " 1g",
                                      "1t",
                                      "1gm",
                                      "none",
                                      "1=1g",
                                      "99999999999999999999",
                                      "99999999999g",
                                      "00000000000000000000000000000000000000000001g"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        is_int(with("CUDA_DEVICE_MEMORY_LIMIT", good[i].text, NULL), 0, "%s is understood", good[i].text);
        ok(options.given[OPTION_MEMORY] && options.by_alias[OPTION_MEMORY], "and the quota is given by the alias");
        is_int(options.memory[0].bytes, good[i].bytes, "as %llu bytes", (unsigned long long)good[i].bytes);
        is_int(options.memory[OPTIONS_MAX_DEVICES - 1].bytes, good[i].bytes, "on every GPU");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char expected[160];
        snprintf(expected, sizeof expected, "CUDA_DEVICE_MEMORY_LIMIT=%s is not understood: allowed is a number of bytes",
                 bad[i]);
        is_int(with("CUDA_DEVICE_MEMORY_LIMIT", bad[i], NULL), -EINVAL, "'%s' is refused", bad[i]);
        ok(strncmp(error.text, expected, strlen(expected)) == 0, "and the refusal names the alias");
        snprintf(expected, sizeof expected, "CUDA_DEVICE_MEMORY_LIMIT_3=%s is not understood", bad[i]);
        is_int(with("CUDA_DEVICE_MEMORY_LIMIT", "1g", "CUDA_DEVICE_MEMORY_LIMIT_3", bad[i], NULL), -EINVAL,
               "'%s' is refused for one GPU", bad[i]);
        ok(strncmp(error.text, expected, strlen(expected)) == 0, "and the refusal names that GPU's");
    }
}

static void test_percentages(void)
{
    static const struct {
        const char *text;
        uint32_t percent; // 100: no limit
    } good[] = {{"1", 1}, {"50", 50}, {"100", 100}, {"0", 100}, {"00", 100}};
    static const char *const bad[] = {"", "101", "50%", "-1", "1.5", "none", "auto", "x", "50 ", "99999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        is_int(with("CUDA_DEVICE_SM_LIMIT", good[i].text, NULL), 0, "a limit of %s is understood", good[i].text);
        is_int(options.limit_percent, good[i].percent, "as %u %%", good[i].percent);
        ok(options.by_alias[OPTION_COMPUTE_LIMIT] && !options.given[OPTION_MEMORY], "and nothing else is set by it");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char expected[160];
        snprintf(expected, sizeof expected, "CUDA_DEVICE_SM_LIMIT=%s is not understood: allowed is a percentage", bad[i]);
        is_int(with("CUDA_DEVICE_SM_LIMIT", bad[i], NULL), -EINVAL, "a limit of '%s' is refused", bad[i]);
        ok(strncmp(error.text, expected, strlen(expected)) == 0, "and the refusal names the alias");
    }
    is_int(with("CUDA_DEVICE_SM_LIMIT", "50", "VGPU_COMPUTE_LIMIT", "20", NULL), 0, "a limit and its alias");
    is_int(options.limit_percent, 20, "the limit counts");
    is_int(with("CUDA_DEVICE_SM_LIMIT_0", "50", NULL), 0, "a number makes no alias of one that has none");
    ok(!options.given[OPTION_COMPUTE_LIMIT], "and sets nothing");
}

static void test_numbers(void)
{
    is_int(with("CUDA_DEVICE_MEMORY_LIMIT", "1g", "CUDA_DEVICE_MEMORY_LIMIT_1", "2g", NULL), 0, "a plain and a numbered alias");
    ok(options.memory[0].bytes == GIB && options.memory[2].bytes == GIB, "the plain one counts for the other GPUs");
    ok(options.memory[1].bytes == 2 * GIB, "the numbered one for its own");
    is_int(with("CUDA_DEVICE_MEMORY_LIMIT_15", "16m", NULL), 0, "a numbered alias alone");
    ok(options.memory[15].bytes == 16 * MIB && options.memory[0].bytes == 0, "limits its GPU and no other");
}

static void test_order(void)
{
    is_int(with("VGPU_MEMORY", "8G", "CUDA_DEVICE_MEMORY_LIMIT", "1g", "CUDA_DEVICE_MEMORY_LIMIT_0", "nonsense", NULL), 0,
           "an alias beside the option's own variable is not even read");
    ok(options.memory[0].bytes == 8 * GIB && !options.by_alias[OPTION_MEMORY], "and the variable counts");
    options_defaults(&options);
    options_parse(&options, OPTION_MEMORY, "4G", &error);
    clearenv();
    setenv("CUDA_DEVICE_MEMORY_LIMIT", "1g", 1);
    is_int(options_complete(&options, &error), 0, "an alias beside a flag");
    is_int(options.memory[0].bytes, 4 * GIB, "leaves the flag's value");
    is_int(with("VGPU_MEMORY", "", "CUDA_DEVICE_MEMORY_LIMIT", "1g", NULL), -EINVAL,
           "an alias does not make up for a variable that is refused");
}

static void test_source(void)
{
    char source[OPTIONS_SOURCE_BYTES];
    with("CUDA_DEVICE_MEMORY_LIMIT", "1g", "CUDA_DEVICE_MEMORY_LIMIT_1", "2g", NULL);
    options_source(OPTION_MEMORY, 0, source);
    is_str(source, "CUDA_DEVICE_MEMORY_LIMIT=1g", "a message names the plain alias");
    options_source(OPTION_MEMORY, 1, source);
    is_str(source, "CUDA_DEVICE_MEMORY_LIMIT_1=2g", "and a GPU's own");
    setenv("VGPU_MEMORY", "3G", 1);
    options_source(OPTION_MEMORY, 1, source);
    is_str(source, "VGPU_MEMORY=3G", "and the option's own variable where that is set");
}

static char told[256];

static void note(const char *alias, const char *value, const char *option, bool used)
{
    size_t length = strlen(told);
    snprintf(told + length, sizeof told - length, "%s=%s %s %d;", alias, value, option, used);
}

static void test_told(void)
{
    with("CUDA_DEVICE_MEMORY_LIMIT", "1g", "CUDA_DEVICE_MEMORY_LIMIT_1", "2g", NULL);
    aliases_tell(&options, note);
    is_str(told, "CUDA_DEVICE_MEMORY_LIMIT=1g VGPU_MEMORY 1;CUDA_DEVICE_MEMORY_LIMIT_1=2g VGPU_MEMORY 1;",
           "each alias is told");
    told[0] = '\0';
    with("CUDA_DEVICE_MEMORY_LIMIT", "1g", "VGPU_MEMORY", "2G", NULL);
    aliases_tell(&options, note);
    is_str(told, "CUDA_DEVICE_MEMORY_LIMIT=1g VGPU_MEMORY 0;", "also that it does not count");
    told[0] = '\0';
    with("PATH", "/", NULL);
    aliases_tell(&options, note);
    is_str(told, "", "and nothing where there is none");
}

int main(void)
{
    test_sizes();
    test_percentages();
    test_numbers();
    test_order();
    test_source();
    test_told();
    return done_testing();
}
