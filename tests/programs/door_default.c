// SPDX-License-Identifier: AGPL-3.0-or-later
// Door c: dlsym with RTLD_DEFAULT, libcuda in the global scope. With "next" in argv[2]: with RTLD_NEXT. With "main": with a handle of
// the program itself.
#include "door.h"

#include <dlfcn.h>
#include <string.h>

static void *scope = RTLD_DEFAULT;

static void *find(const char *family, const char *name)
{
    (void)family;
    return dlsym(scope, name);
}

int main(int argc, char **argv)
{
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) {
        puts(dlerror());
        return 1;
    }
    if (argc > 2 && strcmp(argv[2], "next") == 0)
        scope = RTLD_NEXT;
    if (argc > 2 && strcmp(argv[2], "main") == 0)
        scope = dlopen(NULL, RTLD_LAZY);
    return door_try(find, argc, argv);
}
