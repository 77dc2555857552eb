// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu run: puts the options and the preload library into the environment and becomes the program.
//
// Invariant: the program starts with the library preloaded and every option understood, or not at all.
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options/options.h"
#include "tools/command.h"

#define LIBRARY "libvgpu_shim.so"
#define HELP_FLAG OPTION_COUNT

// The dynamic linker splits LD_PRELOAD at these and has no way to quote them.
static const char preload_separators[] = " :";

void run_details(void)
{
    for (const struct option_info *option = option_table; option < option_table + OPTION_COUNT; option++) {
        char flag[32];
        snprintf(flag, sizeof flag, "--%s %s", option->flag, option->value);
        printf("  %-24s %s\n  %-24s   %s (default: %s)\n", flag, option->purpose, "", option->allowed, option->fallback);
    }
    puts("\nEach flag sets an environment variable: see 'vgpu help env'. Options end at the first argument that is not one.\n"
         "Exit status: the program's; 2 if an option is not understood, 125 the library is missing, 126 the program cannot be\n"
         "started, 127 it is not found.");
}

static bool is_library(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, R_OK) == 0;
}

int run_find_library(char path[PATH_MAX], struct error *error)
{
    static const char *const places[] = {"", "../lib/", "../lib64/"};
    char executable[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable);
    if (length > 0 && (size_t)length < sizeof executable) {
        while (length > 0 && executable[length - 1] != '/')
            length--;
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            char candidate[PATH_MAX + sizeof "../lib64/" LIBRARY];
            snprintf(candidate, sizeof candidate, "%.*s%s" LIBRARY, (int)length, executable, places[i]);
            if (is_library(candidate) && realpath(candidate, path))
                return 0;
        }
    }
    if (is_library(VGPU_LIBDIR "/" LIBRARY) && realpath(VGPU_LIBDIR "/" LIBRARY, path))
        return 0;
    return error_set(error, -ENOENT,
                     "cannot find " LIBRARY " beside this command, in ../lib, ../lib64 or " VGPU_LIBDIR
                     "%s: the program was not started, since nothing would be enforced",
                     length < 0 ? " (/proc must be mounted, to tell where this command is)" : "");
}

// The new value of LD_PRELOAD: the library, then what was there. Entries of the library's name are dropped: a second copy, or a
// path that leads nowhere, would enforce nothing.
static char *make_preload(const char *library, const char *before)
{
    char *value = malloc(strlen(library) + strlen(before) + 2);
    if (!value)
        return NULL;
    char *end = stpcpy(value, library);
    while (*(before += strspn(before, preload_separators))) {
        size_t length = strcspn(before, preload_separators);
        const char *slash = memrchr(before, '/', length);
        const char *name = slash ? slash + 1 : before;
        size_t name_length = length - (size_t)(name - before);
        if (name_length != strlen(LIBRARY) || memcmp(name, LIBRARY, name_length) != 0) {
            *end++ = ':';
            end = mempcpy(end, before, length);
        }
        before += length;
    }
    *end = '\0';
    return value;
}

static int preload_library(struct error *error)
{
    char library[PATH_MAX];
    int rc = run_find_library(library, error);
    if (rc)
        return rc;
    if (strpbrk(library, preload_separators))
        return error_set(
            error, -EINVAL,
            "cannot preload %.200s: LD_PRELOAD has no way to write a path with a space or a colon; install vgpu elsewhere",
            library);
    const char *before = getenv("LD_PRELOAD");
    char *value = make_preload(library, before ? before : "");
    if (!value || setenv("LD_PRELOAD", value, 1) < 0)
        rc = error_set(error, -ENOMEM, "out of memory");
    free(value);
    return rc;
}

int command_run(int argc, char **argv)
{
    struct option flags[OPTION_COUNT + 2] = {[HELP_FLAG] = {"help", no_argument, NULL, HELP_FLAG}};
    for (int id = 0; id < OPTION_COUNT; id++)
        flags[id] = (struct option){option_table[id].flag, required_argument, NULL, id};

    struct error error;
    static struct options options;
    options_defaults(&options);
    // "+": what follows the program's name is the program's.
    for (int id; (id = getopt_long(argc, argv, "+h", flags, NULL)) != -1;) {
        if (id == HELP_FLAG || id == 'h') {
            help_command(command_find("run"));
            return STATUS_OK;
        }
        if (id < 0 || id >= OPTION_COUNT)
            return usage_hint(argv[0]);
        if (options_parse(&options, (enum option_id)id, optarg, &error)) {
            complain(argv[0], "--%s: %s", option_table[id].flag, error.text);
            return STATUS_USAGE;
        }
        if (setenv(option_table[id].variable, optarg, 1) < 0) {
            complain(argv[0], "out of memory");
            return STATUS_NOT_SET_UP;
        }
    }
    // Options in the environment without a flag are checked too: the program would otherwise fail later, while starting.
    if (options_complete(&options, &error)) {
        complain(argv[0], "%s", error.text);
        return STATUS_USAGE;
    }
    if (!argv[optind]) {
        complain(argv[0], "no program given");
        return usage_hint(argv[0]);
    }
    if (preload_library(&error)) {
        complain(argv[0], "%s", error.text);
        return STATUS_NOT_SET_UP;
    }
    execvp(argv[optind], argv + optind);
    int reason = errno;
    complain(argv[0], "cannot run %s: %s", argv[optind], strerror(reason));
    return reason == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_STARTED;
}
