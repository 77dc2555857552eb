// Names and descriptions of errors.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/runtime/runtime.h"

static const struct {
    int value;
    const char *name, *description;
} errors[] = {
#define ROW(value, name, description) {value, #name, description},
#include "simgpu/runtime/errors.def"
#undef ROW
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].value == (int)error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].value == (int)error)
            return errors[i].description;
    return "unrecognized error code";
}
