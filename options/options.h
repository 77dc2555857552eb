// SPDX-License-Identifier: AGPL-3.0-or-later
// The options of a tenant: parsed once from the environment, by one table (options.def).
//
// Invariants: a value is either understood in full or refused with one line that names the variable, the value and what is
// allowed; nothing is clamped, guessed or read as "unlimited". A variable that is set but empty is refused like any other value
// that is not understood: it is usually a script's unset variable, and reading it as "no quota" would fail open.
#ifndef VGPU_OPTIONS_OPTIONS_H
#define VGPU_OPTIONS_OPTIONS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/priority.h"

#define OPTIONS_MAX_DEVICES 16
#define OPTIONS_NAME_BYTES 49
#define OPTIONS_MAX_WEIGHT 10000u
#define OPTIONS_MAX_CONCURRENCY 64u

enum option_id {
#define OPTION(id, ...) OPTION_##id,
#include "options/options.def"
#undef OPTION
    OPTION_COUNT
};

struct option_info {
    const char *variable; // environment variable
    const char *flag;     // of `vgpu run`, without the dashes
    const char *value;    // placeholder in help texts
    const char *fallback; // the default, in words
    const char *allowed;
    const char *purpose;
};

extern const struct option_info option_table[OPTION_COUNT];

// A memory quota as written: bytes, or a part of the GPU in millionths. Both zero: none.
struct option_memory {
    uint64_t bytes;
    uint32_t millionths;
};

struct options {
    bool given[OPTION_COUNT];
    bool by_alias[OPTION_COUNT];                      // given by another tool's variable, see options/aliases.h
    struct option_memory memory[OPTIONS_MAX_DEVICES]; // by device ordinal, as the program counts
    uint32_t weight;                                  // 0: not given
    uint32_t limit_percent;                           // 100: none; 0: not given
    enum priority priority;
    uint64_t quantum_ns;  // 0: auto, or not given
    uint32_t concurrency; // 0: not given
    char name[OPTIONS_NAME_BYTES];
    char pool[PATH_MAX];
    uint64_t chunk_bytes; // 0: not given
    bool chunk_allocator;
    bool require_quota;
    enum log_level log;
    char log_file[PATH_MAX];
};

// Sets `options` to the defaults: nothing given.
void options_defaults(struct options *options);

// Parses one value. Returns 0, or -EINVAL with `error` saying variable, value and what is allowed; `options` is then unchanged.
int options_parse(struct options *options, enum option_id id, const char *text, struct error *error);

// Fills in `error` with the refused value of a variable and what is allowed, and returns -EINVAL.
int options_refuse(const char *variable, const char *text, const char *allowed, struct error *error);

// Sets options that are not given yet from the environment: from their variables, then from aliases. Stops at the first
// refusal.
int options_complete(struct options *options, struct error *error);

// Defaults, then everything that the environment sets.
int options_from_environment(struct options *options, struct error *error);

// The variable that sets an option for one GPU, with its value, for messages: "VGPU_MEMORY=8G", or an alias.
#define OPTIONS_SOURCE_BYTES 160
void options_source(enum option_id id, int device, char source[OPTIONS_SOURCE_BYTES]);

// An environment variable that looks like an option (VGPU_...) but is not one, most likely misspelt; NULL if there is none. The
// name ends at its '='. Valid until the environment changes.
const char *options_unknown_variable(void);

// The quota, in bytes, that `memory` means on a GPU of total_bytes; 0 for none.
uint64_t options_memory_bytes(const struct option_memory *memory, uint64_t total_bytes);

#endif
