// SPDX-License-Identifier: AGPL-3.0-or-later
#include "options/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "options/aliases.h"

#define MIN_CHUNK (2ull << 20)
#define MAX_CHUNK (1ull << 30)
#define MILLION 1000000u

const struct option_info option_table[OPTION_COUNT] = {
#define OPTION(id, ...) [OPTION_##id] = {__VA_ARGS__},
#include "options/options.def"
#undef OPTION
};

// Reads digits with an optional fraction as a whole number of 1/scale; no sign, blanks or exponent, so that it means the same
// in every locale. Returns false if there is no number or it does not fit.
static bool parse_decimal(const char **text, uint64_t scale, uint64_t *out)
{
    const char *p = *text;
    uint64_t value = 0, fraction = 0, unit = scale;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    if (*p == '.' && scale > 1) {
        if (*++p < '0' || *p > '9')
            return false;
        for (; *p >= '0' && *p <= '9'; p++) {
            unit /= 10;
            fraction += unit * (uint64_t)(*p - '0');
        }
    }
    if (__builtin_mul_overflow(value, scale, &value) || __builtin_add_overflow(value, fraction, &value))
        return false;
    *text = p;
    *out = value;
    return true;
}

// A size: a number and a unit of 1024 (K, M, G, T, each with an optional "iB" or "B"). A bare number would be bytes to some and
// mebibytes to others, so a unit is required; "B" alone is bytes.
static bool parse_size(const char **text, uint64_t *bytes)
{
    const char *p = *text;
    uint64_t millionths;
    if (!parse_decimal(&p, MILLION, &millionths))
        return false;
    static const char units[] = "BKMGT";
    char unit = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
    const char *found = unit ? strchr(units, unit) : NULL;
    if (!found)
        return false;
    p++;
    if (unit != 'B' && p[0] == 'i' && (p[1] == 'B' || p[1] == 'b'))
        p += 2;
    else if (unit != 'B' && (p[0] == 'B' || p[0] == 'b'))
        p++;
    unsigned __int128 wide = ((unsigned __int128)millionths << (10 * (found - units))) / MILLION;
    if (wide == 0 || wide > INT64_MAX)
        return false;
    *bytes = (uint64_t)wide;
    *text = p;
    return true;
}

static bool parse_memory_value(const char **text, struct option_memory *memory)
{
    const char *p = *text;
    uint64_t percent;
    struct option_memory value = {0};
    if (parse_decimal(&p, MILLION / 100, &percent) && *p == '%') {
        if (percent == 0 || percent > MILLION)
            return false;
        value.millionths = (uint32_t)percent;
        *text = p + 1;
    } else if (!parse_size(text, &value.bytes)) {
        return false;
    }
    *memory = value;
    return true;
}

static bool parse_memory(const char *text, struct options *options)
{
    struct option_memory memory[OPTIONS_MAX_DEVICES] = {0};
    if (!strchr(text, '=')) {
        if (!parse_memory_value(&text, &memory[0]) || *text)
            return false;
        for (int i = 1; i < OPTIONS_MAX_DEVICES; i++)
            memory[i] = memory[0];
    }
    while (*text) {
        uint64_t device;
        if (!parse_decimal(&text, 1, &device) || device >= OPTIONS_MAX_DEVICES || *text++ != '=')
            return false;
        if (memory[device].bytes || memory[device].millionths || !parse_memory_value(&text, &memory[device]))
            return false;
        if (*text == ',' && text[1])
            text++;
        else if (*text)
            return false;
    }
    memcpy(options->memory, memory, sizeof memory);
    return true;
}

static bool parse_weight(const char *text, struct options *options)
{
    uint64_t weight;
    if (!parse_decimal(&text, 1, &weight) || *text || weight < 1 || weight > OPTIONS_MAX_WEIGHT)
        return false;
    options->weight = (uint32_t)weight;
    return true;
}

static bool parse_limit(const char *text, struct options *options)
{
    uint64_t percent = 100;
    if (strcmp(text, "none") != 0) {
        if (!parse_decimal(&text, 1, &percent) || percent < 1 || percent > 100 || text[text[0] == '%'])
            return false;
    }
    options->limit_percent = (uint32_t)percent;
    return true;
}

static bool parse_priority(const char *text, struct options *options)
{
    for (uint32_t i = 0; i < PRIORITY_COUNT; i++) {
        if (strcmp(text, priority_name(i)) == 0) {
            options->priority = (enum priority)i;
            return true;
        }
    }
    return false;
}

static bool parse_quantum(const char *text, struct options *options)
{
    uint64_t ns = 0;
    if (strcmp(text, "auto") != 0 && (!parse_decimal(&text, NS_PER_MS, &ns) || *text || ns < NS_PER_MS || ns > NS_PER_S))
        return false;
    options->quantum_ns = ns;
    return true;
}

static bool parse_concurrency(const char *text, struct options *options)
{
    uint64_t count;
    if (!parse_decimal(&text, 1, &count) || *text || count < 1 || count > OPTIONS_MAX_CONCURRENCY)
        return false;
    options->concurrency = (uint32_t)count;
    return true;
}

static bool parse_name(const char *text, struct options *options)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strlen(text);
    if (length >= OPTIONS_NAME_BYTES || strspn(text, allowed) != length)
        return false;
    memcpy(options->name, text, length + 1);
    return true;
}

static bool parse_path(const char *text, char path[PATH_MAX])
{
    size_t length = strlen(text);
    // A relative path would mean another file as soon as a program changes its directory.
    if (length >= PATH_MAX || text[0] != '/' || text[length - 1] == '/')
        return false;
    memcpy(path, text, length + 1);
    return true;
}

static bool parse_chunk(const char *text, struct options *options)
{
    uint64_t bytes;
    if (!parse_size(&text, &bytes) || *text || bytes < MIN_CHUNK || bytes > MAX_CHUNK || (bytes & (bytes - 1)))
        return false;
    options->chunk_bytes = bytes;
    return true;
}

static bool parse_allocator(const char *text, struct options *options)
{
    options->chunk_allocator = strcmp(text, "chunk") == 0;
    return options->chunk_allocator || strcmp(text, "native") == 0;
}

static bool parse_switch(const char *text, bool *value)
{
    if ((text[0] != '0' && text[0] != '1') || text[1])
        return false;
    *value = text[0] == '1';
    return true;
}

static bool parse_log(const char *text, struct options *options)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(text, levels[i]) == 0) {
            options->log = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static bool parse(struct options *options, enum option_id id, const char *text)
{
    switch (id) {
    case OPTION_MEMORY:
        return parse_memory(text, options);
    case OPTION_WEIGHT:
        return parse_weight(text, options);
    case OPTION_COMPUTE_LIMIT:
        return parse_limit(text, options);
    case OPTION_PRIORITY:
        return parse_priority(text, options);
    case OPTION_QUANTUM:
        return parse_quantum(text, options);
    case OPTION_CONCURRENCY:
        return parse_concurrency(text, options);
    case OPTION_NAME:
        return parse_name(text, options);
    case OPTION_POOL:
        return parse_path(text, options->pool);
    case OPTION_CHUNK:
        return parse_chunk(text, options);
    case OPTION_ALLOCATOR:
        return parse_allocator(text, options);
    case OPTION_REQUIRE_QUOTA:
        return parse_switch(text, &options->require_quota);
    case OPTION_LOG:
        return parse_log(text, options);
    case OPTION_LOG_FILE:
        return parse_path(text, options->log_file);
    case OPTION_COUNT:
        break;
    }
    return false;
}

void options_defaults(struct options *options)
{
    *options = (struct options){.log = LOG_INFO};
}

// A refused value is shown to a person: at most its beginning, and nothing that a terminal would act on.
int options_refuse(const char *variable, const char *text, const char *allowed, struct error *error)
{
    char shown[81];
    size_t length = 0;
    for (; length < sizeof shown - 1 && text[length]; length++)
        shown[length] = (unsigned char)text[length] < ' ' || text[length] == 0x7f ? '?' : text[length];
    shown[length] = '\0';
    return error_set(error, -EINVAL, "%s=%s is not understood: allowed is %s", variable, shown, allowed);
}

int options_parse(struct options *options, enum option_id id, const char *text, struct error *error)
{
    if (!text[0] || !parse(options, id, text))
        return options_refuse(option_table[id].variable, text, option_table[id].allowed, error);
    options->given[id] = true;
    return 0;
}

int options_complete(struct options *options, struct error *error)
{
    for (int id = 0; id < OPTION_COUNT; id++) {
        const char *text = options->given[id] ? NULL : getenv(option_table[id].variable);
        int rc = text ? options_parse(options, (enum option_id)id, text, error) : 0;
        if (rc)
            return rc;
    }
    return aliases_parse(options, error);
}

int options_from_environment(struct options *options, struct error *error)
{
    options_defaults(options);
    return options_complete(options, error);
}

void options_source(enum option_id id, int device, char source[OPTIONS_SOURCE_BYTES])
{
    char alias[ALIAS_NAME_BYTES];
    const char *variable = option_table[id].variable, *text = getenv(variable);
    if (!text) {
        text = aliases_find(id, device, alias);
        if (text)
            variable = alias;
    }
    snprintf(source, OPTIONS_SOURCE_BYTES, "%s=%.80s", variable, text ? text : "");
}

const char *options_unknown_variable(void)
{
    for (char **entry = environ; entry && *entry; entry++) {
        size_t length = strcspn(*entry, "=");
        bool known = strncmp(*entry, "VGPU_", 5) != 0;
        for (int id = 0; id < OPTION_COUNT && !known; id++)
            known = strlen(option_table[id].variable) == length && strncmp(option_table[id].variable, *entry, length) == 0;
        if (!known)
            return *entry;
    }
    return NULL;
}

uint64_t options_memory_bytes(const struct option_memory *memory, uint64_t total_bytes)
{
    if (memory->bytes)
        return memory->bytes;
    return (uint64_t)((unsigned __int128)total_bytes * memory->millionths / MILLION);
}
