// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu: runs programs on virtual GPUs and shows those that exist.
#include "tools/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/line.h"
#include "options/options.h"
#include "pool/pool.h"

const struct command command_table[] = {
    {"run", command_run, "[OPTION]... [--] PROGRAM [ARGUMENT]...", "run a program on a virtual GPU", run_details},
    {"list", command_list, "[--json] [--watch[=SECONDS]] [--interval SECONDS] [--pool PATH]",
     "show the virtual GPUs and their use", list_details},
    {"set", command_set, "NAME [OPTION]...", "change the options of a live virtual GPU", set_details},
    {"doctor", command_doctor, "[--json]", "check this machine and say what to do", doctor_details},
    {"help", command_help, "[COMMAND | env [--markdown]]", "explain a command, or the environment variables", help_details},
    {"version", command_version, "", "print the version", NULL},
    {0},
};

const struct command *command_find(const char *name)
{
    for (const struct command *command = command_table; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

void complain(const char *name, const char *format, ...)
{
    char line[PATH_MAX + sizeof(struct error)];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    line_clean(line);
    fprintf(stderr, "%s: %s\n", name, line);
}

int usage_hint(const char *name)
{
    fprintf(stderr, "Try '%s --help'.\n", name);
    return STATUS_USAGE;
}

int choose_pool(const char *name, const char *flag, char path[PATH_MAX])
{
    static struct options options;
    struct error error;
    const char *text = flag ? flag : getenv(option_table[OPTION_POOL].variable);
    options_defaults(&options);
    if (text && options_parse(&options, OPTION_POOL, text, &error)) {
        complain(name, "%s%s", flag ? "--pool: " : "", error.text);
        return STATUS_USAGE;
    }
    pool_default_path(path, options.pool);
    return STATUS_OK;
}

int finish_output(const char *name, int status)
{
    // A full disk may show only when the buffer is written out, so ferror alone says nothing.
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    complain(name, "cannot write the output: %s", strerror(errno));
    return STATUS_FAILED;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0)
        name = "version";

    const struct command *command = command_find(name);
    if (!command) {
        if (argc < 2)
            complain("vgpu", "no command given");
        else
            complain("vgpu", "there is no %s '%s'", name[0] == '-' ? "option" : "command", name);
        return usage_hint("vgpu");
    }
    // getopt begins its messages with argv[0].
    char full_name[32];
    snprintf(full_name, sizeof full_name, "vgpu %s", command->name);
    argv[1] = full_name;
    int status = command->main(argc - 1, argv + 1);
    // A command that failed has said why.
    return status == STATUS_OK ? finish_output(full_name, STATUS_OK) : status;
}
