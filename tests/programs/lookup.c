// SPDX-License-Identifier: AGPL-3.0-or-later
// Looks up names without any CUDA library: lookup SCOPE NAME [VERSION]. SCOPE is default, next, main, a library to open, or
// "beside" and a library to open out of the way: then the next is asked for, which it is not. Prints the
// object that the answer lies in, or dlerror() without the object's name before the colon; then what dlerror() says next.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    Dl_info info;
    if (argc < 3)
        return 1;
    if (strncmp(argv[1], "beside ", 7) == 0 && !dlopen(argv[1] + 7, RTLD_LAZY | RTLD_LOCAL))
        return 1;
    void *scope = strcmp(argv[1], "default") == 0                                       ? RTLD_DEFAULT
                  : strcmp(argv[1], "next") == 0 || strncmp(argv[1], "beside ", 7) == 0 ? RTLD_NEXT
                  : strcmp(argv[1], "main") == 0                                        ? dlopen(NULL, RTLD_LAZY)
                                                                                        : dlopen(argv[1], RTLD_LAZY);
    dlerror();
    void *found = argc > 3 ? dlvsym(scope, argv[2], argv[3]) : dlsym(scope, argv[2]);
    const char *error = dlerror();
    if (found && dladdr(found, &info))
        printf("%s\n", info.dli_fname);
    else
        puts("NULL");
    printf("%s\n", error ? strchr(error, ':') + 2 : "no error");
    printf("%s\n", dlerror() ? "one more error" : "no more");
    return 0;
}
