// SPDX-License-Identifier: AGPL-3.0-or-later
// Door c: dlsym on a handle of libcuda, opened by its soname, or by the path in argv[2].
#include "door.h"

#include <dlfcn.h>

static void *library;

static void *find(const char *family, const char *name)
{
    (void)family;
    return dlsym(library, name);
}

int main(int argc, char **argv)
{
    library = dlopen(argc > 2 ? argv[2] : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        puts(dlerror());
        return 1;
    }
    return door_try(find, argc, argv);
}
