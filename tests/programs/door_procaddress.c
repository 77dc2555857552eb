// SPDX-License-Identifier: AGPL-3.0-or-later
// Door d: cuGetProcAddress, the _v2 form found by dlsym as the CUDA runtime does it. With "v1" in argv[2]: the first form. With
// "self": cuGetProcAddress found by itself. With "ptsz": the functions of the per-thread default stream.
#include "door.h"

#include <dlfcn.h>
#include <string.h>

typedef CUresult get_v1(const char *, void **, int, cuuint64_t);
typedef CUresult get_v2(const char *, void **, int, cuuint64_t, int *);

static get_v1 *v1;
static get_v2 *v2;
static cuuint64_t flags;

static void *find(const char *family, const char *name)
{
    void *function = NULL;
    (void)name;
    CUresult result = v1 ? v1(family, &function, 12000, flags) : v2(family, &function, 12000, flags, NULL);
    return result == CUDA_SUCCESS ? function : NULL;
}

int main(int argc, char **argv)
{
    const char *how = argc > 2 ? argv[2] : "v2";
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        puts(dlerror());
        return 1;
    }
    v2 = (get_v2 *)dlsym(library, "cuGetProcAddress_v2");
    if (strcmp(how, "v1") == 0)
        v1 = (get_v1 *)dlsym(library, "cuGetProcAddress");
    if (strcmp(how, "self") == 0)
        v2 = (get_v2 *)find("cuGetProcAddress", NULL);
    if (strcmp(how, "ptsz") == 0)
        flags = 2; // CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM
    if (!v1 && !v2) {
        puts("no cuGetProcAddress");
        return 2;
    }
    return door_try(find, argc, argv);
}
