// SPDX-License-Identifier: AGPL-3.0-or-later
// A process whose libraries come and go: opens each library named on the command line, prints what the runtime that it depends on
// answers, and closes it. Fails unless each comes to lie where the one before it was.
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    int (*before)(void) = NULL;
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        int (*call)(void) = library ? (int (*)(void))dlsym(library, "plugin_call") : NULL;
        if (!call) {
            puts(dlerror());
            return 1;
        }
        if (before && call != before) {
            puts("elsewhere");
            return 1;
        }
        before = call;
        printf("%d\n", call());
        dlclose(library);
    }
    return 0;
}
