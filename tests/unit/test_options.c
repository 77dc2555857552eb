// SPDX-License-Identifier: AGPL-3.0-or-later
// The option parser: every accepted and every refused form of every option, and each message.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "options/options.h"
#include "tests/unit/tap.h"

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define TIB (1ull << 40)

// Whether `text` is accepted for `id`, into `options`.
static bool accepts(struct options *options, enum option_id id, const char *text)
{
    struct error error = {""};
    options_defaults(options);
    int rc = options_parse(options, id, text, &error);
    if (rc)
        printf("# %s\n", error.text);
    return rc == 0 && options->given[id];
}

// A refusal leaves the options as they were and says, in full, which variable, which value (without what would act on a terminal) and
// what is allowed.
static void refused(enum option_id id, const char *text)
{
    struct options options, before;
    struct error error = {""};
    char expected[512];
    memset(&before, 0, sizeof before);
    options_defaults(&before);
    // Something valid first: a refused value must not replace it.
    before.weight = 7;
    before.limit_percent = 12;
    before.priority = PRIORITY_LOW;
    before.quantum_ns = 8;
    before.chunk_bytes = 9;
    before.memory[0].bytes = 10;
    before.memory[1].millionths = 11;
    strcpy(before.name, "before");
    strcpy(before.pool, "/before");
    strcpy(before.log_file, "/before");
    options = before;
    int rc = options_parse(&options, id, text, &error);
    char shown[81];
    snprintf(shown, sizeof shown, "%s", text);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    snprintf(expected, sizeof expected, "%s=%s is not understood: allowed is %s", option_table[id].variable, shown,
             option_table[id].allowed);
    is_int(rc, -EINVAL, "%s=%.90s is refused", option_table[id].variable, text);
    is_str(error.text, expected, "the refusal of %s=%.90s names variable, value and what is allowed", option_table[id].variable,
           text);
    ok(memcmp(&options, &before, sizeof options) == 0, "the refusal of %s=%.90s changes nothing", option_table[id].variable,
       text);
}

static void test_table(void)
{
    for (int id = 0; id < OPTION_COUNT; id++) {
        const struct option_info *info = &option_table[id];
        ok(strncmp(info->variable, "VGPU_", 5) == 0, "%s is one of ours", info->variable);
        // --require-quota of VGPU_REQUIRE_QUOTA, so that who knows one knows the other.
        char flag[64];
        snprintf(flag, sizeof flag, "%s", info->variable + 5);
        for (char *c = flag; *c; c++)
            *c = *c == '_' ? '-' : (char)(*c - 'A' + 'a');
        is_str(info->flag, flag, "the flag of %s has its name", info->variable);
        ok(info->value[0] && info->fallback[0] && info->allowed[0] && info->purpose[0], "%s is explained", info->variable);
        refused((enum option_id)id, "");
    }
}

static void test_defaults(void)
{
    struct options options;
    memset(&options, 0xff, sizeof options);
    options_defaults(&options);
    for (int id = 0; id < OPTION_COUNT; id++)
        ok(!options.given[id], "by default %s is not given", option_table[id].variable);
    ok(options.memory[0].bytes == 0 && options.memory[0].millionths == 0, "by default there is no quota");
    ok(options.memory[OPTIONS_MAX_DEVICES - 1].bytes == 0, "by default there is no quota on the last GPU");
    is_int(options.weight, 0, "by default no weight is asked for");
    is_int(options.limit_percent, 0, "by default no limit is asked for");
    is_int(options.priority, PRIORITY_NORMAL, "by default the class is normal");
    is_int(options.quantum_ns, 0, "by default the quantum is chosen by the scheduler");
    is_int(options.chunk_bytes, 0, "by default no chunk is asked for");
    is_str(options.name, "", "by default there is no name");
    ok(!options.require_quota, "by default no quota is required");
    ok(!options.chunk_allocator, "by default the driver allocates");
    is_int(options.log, LOG_INFO, "by default information is logged");
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"8G", 8 * GIB},
        {"8g", 8 * GIB},
        {"8GB", 8 * GIB},
        {"8GiB", 8 * GIB},
        {"8gib", 8 * GIB},
        {"8gb", 8 * GIB},
        {"512M", 512 * MIB},
        {"512MiB", 512 * MIB},
        {"3K", 3 * KIB},
        {"2T", 2 * TIB},
        {"4096B", 4096},
        {"1b", 1},
        {"1.5G", GIB + GIB / 2},
        {"0.5K", 512},
        {"0.000001M", 1}, // 1.048576 bytes, rounded down
        {"1.00000099999999999999999M", MIB},
        {"007G", 7 * GIB},
        {"8388607T", 8388607 * TIB},
        {"9223372036854B", 9223372036854},
    };
    static const char *const bad[] = {
        "8", // no unit: bytes to some, mebibytes to others
        "0", // not "unlimited"
        "0G",
        "0.0G",
        "0.0000001K", // less than a byte
        "G",
        ".5G",
        "1.G",
        "1..5G",
        "1,5G",
        "-1G",
        "+1G",
        " 1G",
        "1G ",
        "1 G",
        "1G\n",
        "1GG",
        "1Gi",
        "1GiBB",
        "1BB",
        "1iB",
        "1P",
        "1e3M",
        "0x10M",
        "1_000M",
        "١G", // a digit, but not an ASCII one
        "none",
        "unlimited",
        "auto",
        "inf",
        "nan",
        "8388608T",              // 2^63
        "16777216T",             // 2^64
        "16777217T",             // 2^64 + 1 TiB, which would wrap to 1 TiB
        "17179869184G",          // 2^64
        "18446744073709551615B", // 2^64 - 1
        "18446744073709551616B", // 2^64
        "18446744073709551617B", // wraps to 1
        "18446744073710B",       // 2^64 / 1000000, rounded up: wraps in millionths
        "99999999999999999999999999999999999999999G",
    };
    struct options options;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ok(accepts(&options, OPTION_MEMORY, good[i].text) && options.memory[0].bytes == good[i].bytes &&
               options.memory[OPTIONS_MAX_DEVICES - 1].bytes == good[i].bytes && options.memory[0].millionths == 0,
           "VGPU_MEMORY=%s is %" PRIu64 " bytes on every GPU", good[i].text, good[i].bytes);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_MEMORY, bad[i]);
}

static void test_percentages(void)
{
    static const struct {
        const char *text;
        uint32_t millionths;
    } good[] = {{"25%", 250000},      {"100%", 1000000}, {"0.5%", 5000},
                {"33.3333%", 333333}, {"0.0001%", 1},    {"100.00000%", 1000000}};
    static const char *const bad[] = {
        "0%",   "0.00001%", "100.0001%",          "101%", "-5%", "%", "25%%", "25 %", "25%G", "25G%",
        "1e1%", "5.%",      "184467440737095517%"};
    struct options options;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ok(accepts(&options, OPTION_MEMORY, good[i].text) && options.memory[3].millionths == good[i].millionths &&
               options.memory[3].bytes == 0,
           "VGPU_MEMORY=%s is %u millionths", good[i].text, good[i].millionths);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_MEMORY, bad[i]);

    is_int(options_memory_bytes(&(struct option_memory){0}, 80 * GIB), 0, "no quota is none of any GPU");
    is_int(options_memory_bytes(&(struct option_memory){.bytes = 3}, 80 * GIB), 3, "bytes are bytes on any GPU");
    is_int(options_memory_bytes(&(struct option_memory){.millionths = 250000}, 80 * GIB), 20 * GIB,
           "a quarter of 80 GiB is 20 GiB");
    is_int(options_memory_bytes(&(struct option_memory){.millionths = 1000000}, UINT64_MAX), UINT64_MAX,
           "a part of 2^64-1 bytes fits");
}

static void test_lists(void)
{
    struct options options;
    ok(accepts(&options, OPTION_MEMORY, "0=8G,1=25%"), "a list of two GPUs is accepted");
    ok(options.memory[0].bytes == 8 * GIB && options.memory[1].millionths == 250000, "each GPU has its own quota");
    ok(options.memory[2].bytes == 0 && options.memory[2].millionths == 0, "a GPU that is not in the list has none");
    ok(accepts(&options, OPTION_MEMORY, "15=1.5G,3=2M") && options.memory[15].bytes == 1536 * MIB &&
           options.memory[3].bytes == 2 * MIB,
       "a list may be in any order");
    ok(accepts(&options, OPTION_MEMORY, "0=8G") && options.memory[1].bytes == 0, "a list may be of one GPU");
    static const char *const bad[] = {
        "0=8G,0=8G", // twice, although alike
        "0=25%,0=8G",    "0=8G,1=8G,0=1G",
        "16=8G", // one more than there can be
        "4294967296=8G", "18446744073709551616=8G",
        "-1=8G",         "a=8G",
        "=8G",           "0=",
        "0=,1=8G",       "0=8G,",
        ",0=8G",         "0=8G,,1=8G",
        "0=8G;1=8G",     "0=8G 1=8G",
        "0=8G, 1=8G",    "0 =8G",
        "0= 8G",         "0.5=8G",
        "8G,1=8G",       "0=8G,8G",
        "0==8G",         "0=0G",
        "0=8",           "0=101%",
        "0=1=8G",        "0:8G",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_MEMORY, bad[i]);
}

static void test_weight(void)
{
    static const char *const bad[] = {"0",
                                      "10001",
                                      "-1",
                                      "+1",
                                      "1.0",
                                      "1.5",
                                      " 1",
                                      "1 ",
                                      "1x",
                                      "x",
                                      "0x10",
                                      "1e2",
                                      "100%",
                                      "4294967297",
                                      "18446744073709551617",
                                      "99999999999999999999999"};
    struct options options;
    ok(accepts(&options, OPTION_WEIGHT, "1") && options.weight == 1, "the least weight is 1");
    ok(accepts(&options, OPTION_WEIGHT, "10000") && options.weight == 10000, "the greatest weight is 10000");
    ok(accepts(&options, OPTION_WEIGHT, "0100") && options.weight == 100, "a leading zero does not mean octal");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_WEIGHT, bad[i]);
}

static void test_limit(void)
{
    static const char *const bad[] = {"0",
                                      "101",
                                      "-1",
                                      "+1",
                                      "30.5",
                                      " 30",
                                      "30 ",
                                      "30 %",
                                      "30%%",
                                      "%",
                                      "0%",
                                      "x",
                                      "None",
                                      "1e1",
                                      "none ",
                                      "4294967326",
                                      "18446744073709551646"};
    struct options options;
    ok(accepts(&options, OPTION_COMPUTE_LIMIT, "1") && options.limit_percent == 1, "the lowest limit is 1 %%");
    ok(accepts(&options, OPTION_COMPUTE_LIMIT, "30%") && options.limit_percent == 30, "a limit may have its sign");
    ok(accepts(&options, OPTION_COMPUTE_LIMIT, "100") && options.limit_percent == 100, "100 is no limit");
    ok(accepts(&options, OPTION_COMPUTE_LIMIT, "none") && options.limit_percent == 100, "nor is none");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_COMPUTE_LIMIT, bad[i]);
}

static void test_priority(void)
{
    static const char *const bad[] = {"High", "highest", "hi", "0", "1", "low ", " low", "normal,high"};
    struct options options;
    ok(accepts(&options, OPTION_PRIORITY, "high") && options.priority == PRIORITY_HIGH, "the class high");
    ok(accepts(&options, OPTION_PRIORITY, "normal") && options.priority == PRIORITY_NORMAL, "the class normal");
    ok(accepts(&options, OPTION_PRIORITY, "low") && options.priority == PRIORITY_LOW, "the class low");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_PRIORITY, bad[i]);
    is_str(priority_name(17), "normal", "what is no class is called normal, as the scheduler takes it");
}

static void test_concurrency(void)
{
    static const char *const bad[] = {"", "0", "65", "-1", "+2", "1.5", "2 ", " 2", "2x", "auto", "4294967297", "0x2"};
    struct options options;
    ok(accepts(&options, OPTION_CONCURRENCY, "1") && options.concurrency == 1, "the least concurrency is 1: alone");
    ok(accepts(&options, OPTION_CONCURRENCY, "64") && options.concurrency == 64, "the most is 64");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_CONCURRENCY, bad[i]);
}

static void test_quantum(void)
{
    static const char *const bad[] = {"0",    "0.5",   "0.999999", "1000.000001", "1001", "-1", "10ms", "10 ",
                                      "Auto", "autox", "1e1",      "auto ",       "inf",  ".5", "5.",   "18446744073710"};
    struct options options;
    ok(accepts(&options, OPTION_QUANTUM, "auto") && options.quantum_ns == 0, "auto leaves the quantum to the scheduler");
    ok(accepts(&options, OPTION_QUANTUM, "1") && options.quantum_ns == NS_PER_MS, "the shortest quantum is 1 ms");
    ok(accepts(&options, OPTION_QUANTUM, "1000") && options.quantum_ns == NS_PER_S, "the longest quantum is 1000 ms");
    ok(accepts(&options, OPTION_QUANTUM, "2.5") && options.quantum_ns == 2500000, "a quantum may have a fraction");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_QUANTUM, bad[i]);
}

static void test_name(void)
{
    static const char *const bad[] = {"a b", "a/b", "a:b", "a\n", "a\033[31m", "\xc3\xa9", "a=b", "a,b", "*"};
    char longest[OPTIONS_NAME_BYTES], longer[OPTIONS_NAME_BYTES + 1];
    struct options options;
    memset(longest, 'n', sizeof longest);
    memset(longer, 'n', sizeof longer);
    longest[sizeof longest - 1] = longer[sizeof longer - 1] = '\0';
    ok(accepts(&options, OPTION_NAME, "Train-1_b.2") && strcmp(options.name, "Train-1_b.2") == 0,
       "a name of all kinds of characters");
    ok(accepts(&options, OPTION_NAME, longest) && strcmp(options.name, longest) == 0, "a name of 48 characters");
    refused(OPTION_NAME, longer);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_NAME, bad[i]);
}

static void test_paths(void)
{
    static char longest[PATH_MAX], longer[PATH_MAX + 1];
    struct options options;
    memset(longest, 'p', sizeof longest);
    memset(longer, 'p', sizeof longer);
    longest[0] = longer[0] = '/';
    longest[sizeof longest - 1] = longer[sizeof longer - 1] = '\0';
    ok(accepts(&options, OPTION_POOL, "/dev/shm/my pool") && strcmp(options.pool, "/dev/shm/my pool") == 0, "a pool's path");
    ok(accepts(&options, OPTION_LOG_FILE, "/tmp/log") && strcmp(options.log_file, "/tmp/log") == 0, "a log file's path");
    ok(!accepts(&options, OPTION_LOG_FILE, "log"), "no relative path");
    ok(accepts(&options, OPTION_POOL, longest) && strcmp(options.pool, longest) == 0, "the longest path");
    refused(OPTION_POOL, longer);
    refused(OPTION_POOL, "/");
    refused(OPTION_POOL, "/dev/shm/");
    refused(OPTION_LOG_FILE, "logs/");
}

static void test_chunk(void)
{
    static const char *const bad[] = {"1M", "3M",  "2097151B", "2097153B", "2G",        "1025M", "2",
                                      "0",  "25%", "auto",     "2.5M",     "16777216T", "2M,"};
    struct options options;
    ok(accepts(&options, OPTION_CHUNK, "2M") && options.chunk_bytes == 2 * MIB, "the smallest chunk is 2 MiB");
    ok(accepts(&options, OPTION_CHUNK, "1G") && options.chunk_bytes == GIB, "the largest chunk is 1 GiB");
    ok(accepts(&options, OPTION_CHUNK, "2097152B") && options.chunk_bytes == 2 * MIB, "a chunk in bytes");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(OPTION_CHUNK, bad[i]);
}

static void test_words(void)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    static const char *const bad_levels[] = {"warning", "Error", "ERROR", "3", "none", "info ", "debug,info"};
    static const char *const bad_switches[] = {"2", "yes", "true", "on", "01", "00", "1 ", "-1"};
    struct options options;
    for (int i = 0; i < 4; i++)
        ok(accepts(&options, OPTION_LOG, levels[i]) && options.log == (enum log_level)i, "the level %s", levels[i]);
    for (size_t i = 0; i < sizeof bad_levels / sizeof bad_levels[0]; i++)
        refused(OPTION_LOG, bad_levels[i]);
    ok(accepts(&options, OPTION_ALLOCATOR, "chunk") && options.chunk_allocator, "chunk is the library's own allocator");
    ok(accepts(&options, OPTION_ALLOCATOR, "native") && !options.chunk_allocator, "native is the driver's");
    refused(OPTION_ALLOCATOR, "Chunk");
    ok(accepts(&options, OPTION_REQUIRE_QUOTA, "1") && options.require_quota, "1 requires a quota");
    ok(accepts(&options, OPTION_REQUIRE_QUOTA, "0") && !options.require_quota, "0 requires none");
    for (size_t i = 0; i < sizeof bad_switches / sizeof bad_switches[0]; i++)
        refused(OPTION_REQUIRE_QUOTA, bad_switches[i]);
}

static void test_unknown_variables(void)
{
    clearenv();
    setenv("VGPU_MEMORY", "8G", 1);
    setenv("PATH", "/", 1);
    ok(options_unknown_variable() == NULL, "options and what is no business of ours are not unknown");
    setenv("VGPU_MEMROY", "8G", 1);
    const char *found = options_unknown_variable();
    ok(found && strncmp(found, "VGPU_MEMROY=", 12) == 0, "a misspelt option is found");
}

static void test_messages(void)
{
    // In full, once for each option: these lines are what people search for.
    static const struct {
        enum option_id id;
        const char *text, *message;
    } cases[] = {
        {OPTION_MEMORY, "8",
         "VGPU_MEMORY=8 is not understood: allowed is a size (8G, 512M), a part of the GPU (25%), or one of these per GPU "
         "(0=8G,1=25%)"},
        {OPTION_WEIGHT, "0", "VGPU_WEIGHT=0 is not understood: allowed is a whole number from 1 to 10000"},
        {OPTION_COMPUTE_LIMIT, "0", "VGPU_COMPUTE_LIMIT=0 is not understood: allowed is none, or a percentage from 1 to 100"},
        {OPTION_PRIORITY, "urgent", "VGPU_PRIORITY=urgent is not understood: allowed is high, normal or low"},
        {OPTION_QUANTUM, "0", "VGPU_QUANTUM=0 is not understood: allowed is auto, or milliseconds from 1 to 1000"},
        {OPTION_CONCURRENCY, "0", "VGPU_CONCURRENCY=0 is not understood: allowed is a whole number from 1 to 64"},
        {OPTION_NAME, "a b", "VGPU_NAME=a b is not understood: allowed is 1 to 48 characters out of A-Z a-z 0-9 . _ -"},
        {OPTION_POOL, "/", "VGPU_POOL=/ is not understood: allowed is the absolute path of a file"},
        {OPTION_CHUNK, "1M", "VGPU_CHUNK=1M is not understood: allowed is a power of two from 2M to 1G"},
        {OPTION_ALLOCATOR, "mine", "VGPU_ALLOCATOR=mine is not understood: allowed is native or chunk"},
        {OPTION_REQUIRE_QUOTA, "yes", "VGPU_REQUIRE_QUOTA=yes is not understood: allowed is 0 or 1"},
        {OPTION_LOG, "loud", "VGPU_LOG=loud is not understood: allowed is error, warn, info or debug"},
        {OPTION_LOG_FILE, "", "VGPU_LOG_FILE= is not understood: allowed is the absolute path of a file"},
    };
    struct options options;
    struct error error;
    _Static_assert(sizeof cases / sizeof cases[0] == OPTION_COUNT, "one message for each option");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options_defaults(&options);
        options_parse(&options, cases[i].id, cases[i].text, &error);
        is_str(error.text, cases[i].message, "the message for %s", option_table[cases[i].id].variable);
    }
}

static void test_environment(void)
{
    struct options options;
    struct error error = {""};
    for (int id = 0; id < OPTION_COUNT; id++)
        unsetenv(option_table[id].variable);
    is_int(options_from_environment(&options, &error), 0, "an empty environment is fine");
    ok(!options.given[OPTION_MEMORY], "and gives nothing");

    static const char *const values[OPTION_COUNT] = {
        [OPTION_MEMORY] = "8G",     [OPTION_WEIGHT] = "200",        [OPTION_QUANTUM] = "5",    [OPTION_NAME] = "n",
        [OPTION_POOL] = "/p",       [OPTION_CHUNK] = "4M",          [OPTION_LOG] = "debug",    [OPTION_REQUIRE_QUOTA] = "1",
        [OPTION_LOG_FILE] = "/l",   [OPTION_COMPUTE_LIMIT] = "30%", [OPTION_PRIORITY] = "low", [OPTION_ALLOCATOR] = "chunk",
        [OPTION_CONCURRENCY] = "3",
    };
    for (int id = 0; id < OPTION_COUNT; id++)
        setenv(option_table[id].variable, values[id], 1);
    is_int(options_from_environment(&options, &error), 0, "an environment with every option is understood");
    for (int id = 0; id < OPTION_COUNT; id++)
        ok(options.given[id], "%s is taken from the environment", option_table[id].variable);
    ok(options.memory[0].bytes == 8 * GIB && options.weight == 200 && options.quantum_ns == 5 * NS_PER_MS &&
           options.limit_percent == 30 && options.priority == PRIORITY_LOW && options.chunk_bytes == 4 * MIB &&
           options.require_quota && options.log == LOG_DEBUG && options.chunk_allocator && options.concurrency == 3,
       "with its values");
    ok(strcmp(options.name, "n") == 0 && strcmp(options.pool, "/p") == 0 && strcmp(options.log_file, "/l") == 0,
       "also those of text");

    for (int id = 0; id < OPTION_COUNT; id++) {
        char expected[64];
        setenv(option_table[id].variable, "", 1);
        snprintf(expected, sizeof expected, "%s= is not understood", option_table[id].variable);
        is_int(options_from_environment(&options, &error), -EINVAL, "%s that is set but empty is refused",
               option_table[id].variable);
        ok(strncmp(error.text, expected, strlen(expected)) == 0, "and the refusal names %s", option_table[id].variable);
        setenv(option_table[id].variable, values[id], 1);
    }
}

int main(void)
{
    test_table();
    test_defaults();
    test_sizes();
    test_percentages();
    test_lists();
    test_weight();
    test_limit();
    test_priority();
    test_quantum();
    test_concurrency();
    test_name();
    test_paths();
    test_unknown_variables();
    test_chunk();
    test_words();
    test_messages();
    test_environment();
    return done_testing();
}
