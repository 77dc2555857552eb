// SPDX-License-Identifier: AGPL-3.0-or-later
// A driver of the future: its cuGetProcAddress hands out a cuMemAlloc that no hook knows.
#include <stddef.h>
#include <string.h>

int cuInit(unsigned flags);
int cuDeviceGet(int *device, int ordinal);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes);
int cuMemAlloc_v9(unsigned long long *pointer, size_t bytes, int more);
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, int *status);

int cuInit(unsigned flags)
{
    return (int)flags + 999;
}

int cuDeviceGet(int *device, int ordinal)
{
    (void)device;
    return ordinal + 998;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
    (void)context;
    return device + 997;
}

int cuCtxSetCurrent(void *context)
{
    (void)context;
    return 996;
}

int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes)
{
    (void)pointer;
    return (int)bytes + 995;
}

int cuMemAlloc_v9(unsigned long long *pointer, size_t bytes, int more)
{
    (void)pointer;
    return (int)bytes + more;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, int *status)
{
    static const struct {
        const char *name;
        void *function;
    } table[] = {{"cuInit", (void *)cuInit},
                 {"cuDeviceGet", (void *)cuDeviceGet},
                 {"cuDevicePrimaryCtxRetain", (void *)cuDevicePrimaryCtxRetain},
                 {"cuCtxSetCurrent", (void *)cuCtxSetCurrent},
                 {"cuGetProcAddress", (void *)cuGetProcAddress_v2},
                 {"cuMemAlloc", (void *)cuMemAlloc_v9}};
    (void)version;
    (void)flags;
    (void)status;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, name) == 0) {
            *function = table[i].function;
            return 0;
        }
    return 500;
}
