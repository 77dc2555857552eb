// SPDX-License-Identifier: AGPL-3.0-or-later
// Door a: linked against libcuda.
#include "door.h"

#include <string.h>

static void *find(const char *family, const char *name)
{
    static const struct {
        const char *name;
        void *function;
    } linked[] = {{"cuInit", (void *)cuInit},
                  {"cuDeviceGet", (void *)cuDeviceGet},
                  {"cuDevicePrimaryCtxRetain", (void *)cuDevicePrimaryCtxRetain},
                  {"cuCtxSetCurrent", (void *)cuCtxSetCurrent},
                  {"cuMemAlloc_v2", (void *)cuMemAlloc}};
    (void)family;
    for (size_t i = 0; i < sizeof linked / sizeof linked[0]; i++)
        if (strcmp(linked[i].name, name) == 0)
            return linked[i].function;
    return NULL;
}

int main(int argc, char **argv)
{
    return door_try(find, argc, argv);
}
