// SPDX-License-Identifier: AGPL-3.0-or-later
// A second library that interposes dlsym, and finds the real one as such libraries do. Says on stderr that it was asked for a
// function of the driver.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

void *dlsym(void *handle, const char *name)
{
    static void *(*real)(void *, const char *);
    static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"};
    for (size_t i = 0; !real && i < sizeof versions / sizeof versions[0]; i++)
        real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    if (strncmp(name, "cuMem", 5) == 0)
        fputs("asked\n", stderr);
    return real(handle, name);
}
