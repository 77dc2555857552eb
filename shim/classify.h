// SPDX-License-Identifier: AGPL-3.0-or-later
// How each function of the driver and of the CUDA runtime is treated: hooked, passed through for a reason, or not known to this
// version. Header only and without dependencies, so that the command can use it as the library does.
#ifndef VGPU_SHIM_CLASSIFY_H
#define VGPU_SHIM_CLASSIFY_H

#include <stddef.h>
#include <string.h>

// The newest CUDA whose functions the tables name, as cuDriverGetVersion counts.
#define CLASSIFY_CUDA_VERSION 13000

enum coverage { COVERAGE_UNKNOWN, COVERAGE_HOOKED, COVERAGE_PASSED };

enum pass_reason {
#define REASON(reason, text) PASS_##reason,
#include "shim/passthrough.def"
    PASS_REASON_COUNT
};

// How a function with this exported name is treated. *reason (may be NULL) is the reason in words if it is passed through, else
// NULL. Searches the whole table: not for a hot path.
static inline enum coverage classify(const char *name, const char **reason)
{
    static const char *const hooked[] = {
#define DRIVER_HOOK(name) #name,
#define RUNTIME_HOOK(name) #name,
#define NVML_HOOK(name) #name,
#include "shim/hooks.def"
    };
    static const struct {
        const char *name;
        enum pass_reason reason;
    } passed[] =
        {
#define PASS(reason, name) {#name, PASS_##reason},
#include "shim/passthrough.def"
        },
      families[] = {
#define PASS_FAMILY(reason, prefix) {#prefix, PASS_##reason},
#include "shim/passthrough.def"
      };
    static const char *const reasons[] = {
#define REASON(reason, text) text,
#include "shim/passthrough.def"
    };

    const char *unused;
    reason = reason ? reason : &unused;
    *reason = NULL;
    for (size_t i = 0; i < sizeof hooked / sizeof hooked[0]; i++)
        if (strcmp(hooked[i], name) == 0)
            return COVERAGE_HOOKED;
    for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
        if (strcmp(passed[i].name, name) == 0) {
            *reason = reasons[passed[i].reason];
            return COVERAGE_PASSED;
        }
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strncmp(families[i].name, name, strlen(families[i].name)) == 0) {
            *reason = reasons[families[i].reason];
            return COVERAGE_PASSED;
        }
    return COVERAGE_UNKNOWN;
}

#endif
