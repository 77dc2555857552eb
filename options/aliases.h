// SPDX-License-Identifier: AGPL-3.0-or-later
// Aliases: variables of other tools that stand for an option, by one table (aliases.def).
//
// Invariants: an option that its own variable sets, or a flag, is not touched by an alias; a numbered alias counts for its GPU before the
// plain one; an alias's value is understood in full or refused by one line that names the alias.
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

// Sets, from the aliases in the environment, what is not given yet. Returns 0, or -EINVAL with `error` filled in.
int aliases_parse(struct options *options, struct error *error);

// Tells `say` of each alias that the environment sets, and whether it counts; if not, the option's own variable is set.
void aliases_tell(const struct options *options,
                  void (*say)(const char *alias, const char *value, const char *option, bool used));

// The alias that gives this GPU its value of an option: the variable's name in `name`, and its value; NULL where there is none.
#define ALIAS_NAME_BYTES 64
const char *aliases_find(enum option_id option, int device, char name[ALIAS_NAME_BYTES]);

// Takes every alias out of the environment.
void aliases_forget(void);

#endif
