// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/newer.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "shim/classify.h"
#include "shim/hooks.h"
#include "shim/loader.h"

// How much of a line the names may take.
#define NAMES_BYTES 400u

struct unknown {
    char names[NAMES_BYTES];
    size_t length;
    unsigned count;
};

static void visit(const char *name, void *argument)
{
    struct unknown *unknown = argument;
    if (strncmp(name, "cu", 2) != 0 || classify(name, NULL) != COVERAGE_UNKNOWN)
        return;
    unknown->count++;
    size_t room = sizeof unknown->names - unknown->length;
    if (strlen(name) + 2 <= room)
        unknown->length += (size_t)snprintf(unknown->names + unknown->length, room, " %s", name);
}

void newer_report(void)
{
    static bool reported; // the attach mutex is held
    int version = 0;
    if (reported || REAL(cuDriverGetVersion)(&version) != CUDA_SUCCESS || version <= CLASSIFY_CUDA_VERSION)
        return;
    reported = true;
    int saved = errno;
    struct unknown unknown = {.length = 0};
    const struct link_map *driver = loader_object((const void *)REAL(cuInit));
    if (driver)
        loader_each_function(driver, visit, &unknown);
    if (unknown.count)
        log_warn(
            "the driver is newer (CUDA %d.%d) and exports %u functions that this version does not know; what goes through them "
            "is not limited:%s",
            version / 1000, version % 1000 / 10, unknown.count, unknown.names);
    errno = saved;
}
