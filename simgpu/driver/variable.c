// Global variables of modules, as far as PTX declares them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <stdio.h>
#include <string.h>

#include "simgpu/driver/module.h"

static bool is_ptx(const char *image)
{
    return strncmp(image, ".version", 8) == 0 || strncmp(image, "//", 2) == 0;
}

CUresult variables_parse(const char *image, struct variable **list)
{
    *list = NULL;
    if (!image || !is_ptx(image))
        return CUDA_SUCCESS;
    for (const char *at = strstr(image, ".global "); at; at = strstr(at + 1, ".global ")) {
        struct variable read = {.bytes = 0};
        const char *type = strstr(at, ".b8 "), *end = strchr(at, ';');
        if (!type || !end || type > end || sscanf(type, ".b8 %63[A-Za-z0-9_$][%zu]", read.name, &read.bytes) != 2 ||
            !read.bytes)
            continue;
        struct variable *variable = malloc(sizeof *variable);
        if (!variable) {
            variables_free(*list);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        *variable = read;
        variable->next = *list;
        *list = variable;
    }
    return CUDA_SUCCESS;
}

void variables_free(struct variable *list)
{
    for (struct variable *next; list; list = next) {
        next = list->next;
        free(list);
    }
}

CUresult variable_find(const struct CUmod_st *module, const char *name, CUdeviceptr *ptr, size_t *bytes)
{
    const struct variable *variable = module->variables;

    while (variable && strcmp(variable->name, name) != 0)
        variable = variable->next;
    if (!variable)
        return CUDA_ERROR_NOT_FOUND;
    if (ptr)
        *ptr = variable->base;
    if (bytes)
        *bytes = variable->bytes;
    return CUDA_SUCCESS;
}
