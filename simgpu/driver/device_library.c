// Finding and loading the shared objects that hold the kernels.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simgpu/driver/module.h"

#define MAX_TABLES 64

static const struct simgpu_kernel_table *tables[MAX_TABLES];
static unsigned table_count;

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct simgpu_kernel_table *table = library ? dlsym(library, SIMGPU_KERNEL_TABLE_SYMBOL) : NULL;

    if (!table || table->abi != SIMGPU_KERNEL_ABI || table_count == MAX_TABLES) {
        api_log("%s is not a device library: %s", path, library ? "no table of this version" : dlerror());
        if (library)
            dlclose(library);
        return;
    }
    tables[table_count++] = table;
}

static int is_shared_object(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 3 && !strcmp(entry->d_name + length - 3, ".so");
}

static void load_directory(const char *directory)
{
    char path[PATH_MAX];
    struct dirent **entries;
    int count = scandir(directory, &entries, is_shared_object, alphasort);

    for (int i = 0; i < count; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name) < sizeof path)
            load(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

// The default: the folder `device` beside this library.
static void load_default(void)
{
    static const char here;
    char path[PATH_MAX];
    Dl_info info;

    if (!dladdr(&here, &info))
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    int length = slash ? (int)(slash - info.dli_fname) : 1;
    if ((size_t)snprintf(path, sizeof path, "%.*s/device", length, slash ? info.dli_fname : ".") < sizeof path)
        load_directory(path);
}

static void load_all(void)
{
    static bool loaded;
    const char *wanted = getenv("SIMGPU_KERNELS");

    if (loaded)
        return;
    loaded = true;
    char *list = wanted && *wanted ? strdup(wanted) : NULL, *rest = list;
    if (!list) {
        load_default();
        return;
    }
    for (char *directory; (directory = strsep(&rest, ":"));)
        if (*directory)
            load_directory(directory);
    free(list);
}

const struct simgpu_kernel *device_library_find(const char *name)
{
    load_all();
    for (unsigned i = 0; i < table_count; i++)
        for (uint32_t k = 0; k < tables[i]->count; k++)
            if (!strcmp(tables[i]->kernels[k].name, name))
                return &tables[i]->kernels[k];
    return NULL;
}

const struct simgpu_kernel *device_library_kernel(unsigned index)
{
    load_all();
    for (unsigned i = 0; i < table_count; i++) {
        if (index < tables[i]->count)
            return &tables[i]->kernels[index];
        index -= tables[i]->count;
    }
    return NULL;
}
