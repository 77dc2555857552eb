// SPDX-License-Identifier: AGPL-3.0-or-later
// A process with two CUDA runtimes: opens each library named on the command line, as a framework opens its plugins, and prints what
// the runtime that it depends on answers. Then asks each again.
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    int (*call[8])(void);
    for (int i = 1; i < argc && i < 8; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        call[i] = library ? (int (*)(void))dlsym(library, "plugin_call") : NULL;
        if (!call[i]) {
            puts(dlerror());
            return 1;
        }
    }
    for (int round = 0; round < 2; round++)
        for (int i = 1; i < argc && i < 8; i++)
            printf("%d\n", call[i]());
    return 0;
}
