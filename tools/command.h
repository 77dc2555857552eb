// SPDX-License-Identifier: AGPL-3.0-or-later
// The commands of `vgpu`, and what they have in common.
//
// Each command takes its own arguments, with argv[0] being "vgpu COMMAND", and returns the exit status. Messages go to stderr,
// one line each, prefixed with the name of the command. Results go to stdout through stdio; main() checks at the end that all
// were written.
#ifndef VGPU_TOOLS_COMMAND_H
#define VGPU_TOOLS_COMMAND_H

#include <limits.h>

#include "base/error.h"

enum exit_status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,       // something could not be read or written
    STATUS_USAGE = 2,        // unknown command or option, or a value that is not understood
    STATUS_NOT_SET_UP = 125, // `vgpu run` could not set the program up; 125 to 127 are those of env(1), nohup(1), timeout(1)
    STATUS_NOT_STARTED = 126,
    STATUS_NOT_FOUND = 127,
};

struct command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *synopsis; // what follows the name
    const char *summary;
    void (*details)(void); // the rest of the command's help, on stdout; may be NULL
};

// Ends with an entry without a name.
extern const struct command command_table[];

// NULL if there is no such command.
const struct command *command_find(const char *name);

int command_run(int argc, char **argv);
int command_set(int argc, char **argv);
int command_list(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_help(int argc, char **argv);
int command_version(int argc, char **argv);

void run_details(void);
void list_details(void);
void set_details(void);
void doctor_details(void);
void help_details(void);

// The library that `vgpu run` preloads. Looks beside the executable first, so that a build tree and an installation use their
// own. Returns 0, or -errno with `error` filled in.
int run_find_library(char path[PATH_MAX], struct error *error);

// Prints the help of one command on stdout.
void help_command(const struct command *command);

// Prints the overview on stdout.
void help_overview(void);

// "Try 'NAME --help'.", NAME as in argv[0], on stderr; returns STATUS_USAGE.
int usage_hint(const char *name);

// One line on stderr, prefixed with `name`.
void complain(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The pool that a command uses: `flag` if --pool was given, else what the environment says. Returns 0, or STATUS_USAGE with a
// line on stderr, prefixed with `name`.
int choose_pool(const char *name, const char *flag, char path[PATH_MAX]);

// Flushes stdout. Returns status, or STATUS_FAILED with a line on stderr if some output could not be written.
int finish_output(const char *name, int status);

#endif
