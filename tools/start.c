// SPDX-License-Identifier: AGPL-3.0-or-later
// Lets the command start on a glibc older than the one it was linked with; see base/glibc.h.
//
// The start files of glibc 2.34 ask for a new version of __libc_start_main, which runs the program's constructors without being
// given a function for that. The command has no constructors, so the old version, which every glibc has, will do. The linker's
// --wrap leads the start files here.
#include "base/glibc.h"

typedef int start_main(int argc, char **argv, char **environment);
typedef int start_real(start_main *program, int argc, char **argv, void (*init)(void), void (*fini)(void),
                       void (*loader_fini)(void), void *stack_end);

GLIBC_OLD(__libc_start_main, "2.2.5")
start_real __libc_start_main, __wrap___libc_start_main;

int __wrap___libc_start_main(start_main *program, int argc, char **argv, void (*init)(void), void (*fini)(void),
                             void (*loader_fini)(void), void *stack_end)
{
    return __libc_start_main(program, argc, argv, init, fini, loader_fini, stack_end);
}
