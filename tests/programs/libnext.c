// SPDX-License-Identifier: AGPL-3.0-or-later
// A preloaded library like others in the field: interposes a libc function and the driver's cuMemAlloc_v2, each by RTLD_NEXT, and looks
// something up in its constructor, before the constructors of libraries loaded earlier have run.
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static int early;

__attribute__((constructor)) static void start(void)
{
    early = dlsym(RTLD_DEFAULT, "puts") != NULL && dlsym(RTLD_DEFAULT, "no_such_function") == NULL;
}

// One more than libc's: RTLD_NEXT must have meant the library after this one, whatever comes before.
long a64l(const char *text)
{
    long (*next)(const char *) = (long (*)(const char *))dlsym(RTLD_NEXT, "a64l");
    return early && next && next != a64l ? next(text) + 1 : -1;
}

int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes);
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes)
{
    int (*next)(unsigned long long *, size_t) = (int (*)(unsigned long long *, size_t))dlsym(RTLD_NEXT, "cuMemAlloc_v2");
    fputs("interposed\n", stderr);
    return next && next != cuMemAlloc_v2 ? next(pointer, bytes) : 3;
}

int cudaMalloc(void **pointer, size_t bytes);
int cudaMalloc(void **pointer, size_t bytes)
{
    int (*next)(void **, size_t) = (int (*)(void **, size_t))dlsym(RTLD_NEXT, "cudaMalloc");
    fputs("interposed\n", stderr);
    return next ? next(pointer, bytes) : 3;
}
