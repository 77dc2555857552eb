// SPDX-License-Identifier: AGPL-3.0-or-later
#include "options/aliases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_BYTES 32 // more than any value that can be understood

// A translation writes the option's own notation, or returns false if the text is not the alias's.
typedef bool translation(const char *text, char value[VALUE_BYTES]);

// HAMi-core's sizes: a whole number, in bytes if no letter follows.
static bool hami_size(const char *text, char value[VALUE_BYTES])
{
    size_t digits = strspn(text, "0123456789"), letters = strspn(text + digits, "kKmMgG");
    if (digits == 0 || letters > 1 || text[digits + letters] || digits + letters + 2 > VALUE_BYTES)
        return false;
    snprintf(value, VALUE_BYTES, "%s%s", text, letters ? "" : "B");
    return true;
}

// HAMi-core's percentages: its deployments write 0 for no limit.
static bool hami_percentage(const char *text, char value[VALUE_BYTES])
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] || digits >= VALUE_BYTES)
        return false;
    snprintf(value, VALUE_BYTES, "%s", text[strspn(text, "0")] ? text : "none");
    return true;
}

const struct option_alias alias_table[] = {
#define ALIAS(variable, option, numbered, translate, allowed) {variable, OPTION_##option, numbered, allowed},
#include "options/aliases.def"
#undef ALIAS
};

static translation *const translations[] = {
#define ALIAS(variable, option, numbered, translate, allowed) translate,
#include "options/aliases.def"
#undef ALIAS
};

const unsigned alias_count = sizeof alias_table / sizeof alias_table[0];

// The value of an alias for one GPU or, with a negative number, of the plain one; and the name of its variable.
static const char *value_of(const struct option_alias *alias, int device, char name[ALIAS_NAME_BYTES])
{
    if (device < 0)
        snprintf(name, ALIAS_NAME_BYTES, "%s", alias->variable);
    else
        snprintf(name, ALIAS_NAME_BYTES, "%s_%d", alias->variable, device);
    return device < 0 || alias->numbered ? getenv(name) : NULL;
}

const char *aliases_find(enum option_id option, int device, char name[ALIAS_NAME_BYTES])
{
    const char *value = NULL;
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count && !value; alias++) {
        if (alias->option == option)
            value = value_of(alias, device, name);
        if (alias->option == option && !value)
            value = value_of(alias, -1, name);
    }
    return value;
}

// Translates one variable's value into the option's own notation. The option's parser has the last word on it.
static int translate(struct options *options, const struct option_alias *alias, const char *name, const char *text,
                     char value[VALUE_BYTES], struct error *error)
{
    if (!translations[alias - alias_table](text, value) || options_parse(options, alias->option, value, error))
        return options_refuse(name, text, alias->allowed, error);
    return 0;
}

static int parse_alias(struct options *options, const struct option_alias *alias, struct error *error)
{
    char name[ALIAS_NAME_BYTES], plain[VALUE_BYTES] = "", list[OPTIONS_MAX_DEVICES * (VALUE_BYTES + sizeof "15=,")];
    size_t length = 0;
    bool numbered = false;
    const char *text = value_of(alias, -1, name);
    int rc = text ? translate(options, alias, name, text, plain, error) : 0;
    for (int device = 0; device < OPTIONS_MAX_DEVICES && rc == 0; device++) {
        char value[VALUE_BYTES];
        memcpy(value, plain, sizeof value);
        text = value_of(alias, device, name);
        if (text) {
            rc = translate(options, alias, name, text, value, error);
            numbered = true;
        }
        if (value[0])
            length += (size_t)snprintf(list + length, sizeof list - length, "%s%d=%s", length ? "," : "", device, value);
    }
    return rc == 0 && numbered ? options_parse(options, alias->option, list, error) : rc;
}

int aliases_parse(struct options *options, struct error *error)
{
    int rc = 0;
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count && rc == 0; alias++) {
        if (!options->given[alias->option]) {
            rc = parse_alias(options, alias, error);
            options->by_alias[alias->option] = options->given[alias->option];
        }
    }
    return rc;
}

void aliases_tell(const struct options *options,
                  void (*say)(const char *alias, const char *value, const char *option, bool used))
{
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count; alias++) {
        for (int device = -1; device < OPTIONS_MAX_DEVICES; device++) {
            char name[ALIAS_NAME_BYTES];
            const char *value = value_of(alias, device, name);
            if (value)
                say(name, value, option_table[alias->option].variable, options->by_alias[alias->option]);
        }
    }
}

void aliases_forget(void)
{
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count; alias++) {
        for (int device = -1; device < OPTIONS_MAX_DEVICES; device++) {
            char name[ALIAS_NAME_BYTES];
            if (value_of(alias, device, name))
                unsetenv(name);
        }
    }
}
