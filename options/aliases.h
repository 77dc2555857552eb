// SPDX-License-Identifier: AGPL-3.0-or-later
// Aliases: variables of other tools that stand for an option, from one table (aliases.def).
//
// Invariants: an alias never changes an option that a flag or the option's own variable sets; for its GPU, a numbered alias
// takes precedence over the plain one; an alias's value is understood in full or refused by one line that names the alias.
#ifndef VGPU_OPTIONS_ALIASES_H
#define VGPU_OPTIONS_ALIASES_H

#include "options/options.h"

struct option_alias {
    const char *variable;
    enum option_id option;
    bool numbered; // VARIABLE_0, VARIABLE_1, ...: the same for one GPU
    const char *allowed;
};

extern const struct option_alias alias_table[];
extern const unsigned alias_count;

// Sets options that are not given yet from the aliases in the environment. Returns 0, or -EINVAL with `error` filled in.
int aliases_parse(struct options *options, struct error *error);

// Calls `say` for each alias that the environment sets, with whether it counts; if not, the option's own variable is set.
void aliases_tell(const struct options *options,
                  void (*say)(const char *alias, const char *value, const char *option, bool used));

// The alias that gives this GPU its value of an option: returns the value and sets `name` to the variable's name; NULL if there
// is none.
#define ALIAS_NAME_BYTES 64
const char *aliases_find(enum option_id option, int device, char name[ALIAS_NAME_BYTES]);

// Removes every alias from the environment.
void aliases_forget(void);

#endif
