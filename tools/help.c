// SPDX-License-Identifier: AGPL-3.0-or-later
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "options/aliases.h"
#include "tools/command.h"

void help_command(const struct command *command)
{
    printf("usage: vgpu %s%s%s\n\n%c%s.\n", command->name, command->synopsis[0] ? " " : "", command->synopsis,
           command->summary[0] - 'a' + 'A', command->summary + 1);
    if (command->details) {
        putchar('\n');
        command->details();
    }
}

void help_overview(void)
{
    puts("usage: vgpu COMMAND [ARGUMENT]...\n\n"
         "Runs unmodified CUDA programs on virtual GPUs: each has its memory quota and its share of GPU time.\n");
    for (const struct command *command = command_table; command->name; command++)
        printf("  vgpu %-10s %s\n", command->name, command->summary);
    puts("\n'vgpu help COMMAND' explains a command, 'vgpu help env' the environment variables.");
}

void help_details(void)
{
    puts("  --markdown     with env: print the variables as the table in README.md");
}

// What may follow an alias's name.
static const char *numbers(const struct option_alias *alias)
{
    return alias->numbered ? ", and with _0, _1, ... for one GPU" : "";
}

static void help_env(void)
{
    puts("Environment variables that a program under libvgpu_shim.so obeys. 'vgpu run' has a flag for each.\n"
         "A value that is not understood, or is empty, makes the program's CUDA initialisation fail.");
    for (const struct option_info *option = option_table; option < option_table + OPTION_COUNT; option++)
        printf("\n%s=%s (--%s)\n    %s\n    allowed: %s\n    default: %s\n", option->variable, option->value, option->flag,
               option->purpose, option->allowed, option->fallback);
    puts("\nVariables of other tools that stand in for one of these if it is not set:");
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count; alias++)
        printf("\n%s%s\n    stands for %s\n    allowed: %s\n", alias->variable, numbers(alias),
               option_table[alias->option].variable, alias->allowed);
}

// A bar would end the cell.
static void put_markdown(const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            putchar('\\');
        putchar(*text);
    }
}

static void help_env_markdown(void)
{
    puts("| Variable | `vgpu run` | Meaning | Allowed | Default |\n|---|---|---|---|---|");
    for (const struct option_info *option = option_table; option < option_table + OPTION_COUNT; option++) {
        printf("| `%s` | `--%s ", option->variable, option->flag);
        put_markdown(option->value);
        printf("` | %s | ", option->purpose);
        put_markdown(option->allowed);
        printf(" | %s |\n", option->fallback);
    }
    puts("\n| Alias | Stands for | Allowed |\n|---|---|---|");
    for (const struct option_alias *alias = alias_table; alias < alias_table + alias_count; alias++)
        printf("| `%s`%s | `%s` | %s |\n", alias->variable, numbers(alias), option_table[alias->option].variable,
               alias->allowed);
}

int command_help(int argc, char **argv)
{
    static const struct option flags[] = {{"markdown", no_argument, NULL, 'm'}, {"help", no_argument, NULL, 'h'}, {0}};
    int markdown = 0;
    for (int flag; (flag = getopt_long(argc, argv, "h", flags, NULL)) != -1;) {
        if (flag == 'h') {
            help_command(command_find("help"));
            return STATUS_OK;
        }
        if (flag != 'm')
            return usage_hint(argv[0]);
        markdown = 1;
    }
    const char *topic = argv[optind];
    if (topic && argv[optind + 1]) {
        complain(argv[0], "unexpected argument '%s'", argv[optind + 1]);
        return usage_hint(argv[0]);
    }
    if (markdown && (!topic || strcmp(topic, "env") != 0)) {
        complain(argv[0], "--markdown is for 'vgpu help env'");
        return usage_hint(argv[0]);
    }
    const struct command *command = topic ? command_find(topic) : NULL;
    if (command) {
        help_command(command);
    } else if (!topic) {
        help_overview();
    } else if (strcmp(topic, "env") == 0) {
        if (markdown)
            help_env_markdown();
        else
            help_env();
    } else {
        complain(argv[0], "there is no help on '%s'", topic);
        return usage_hint(argv[0]);
    }
    return STATUS_OK;
}

int command_version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        help_command(command_find("version"));
        return STATUS_OK;
    }
    if (argc > 1) {
        complain(argv[0], "unexpected argument '%s'", argv[1]);
        return usage_hint("vgpu");
    }
    puts("vgpu " VGPU_VERSION);
    return STATUS_OK;
}
