// SPDX-License-Identifier: AGPL-3.0-or-later
// The one clear line that accompanies a refusal: what was refused, which value, what is allowed or what to do.
//
// A function that can refuse takes a `struct error *`, returns -errno and fills in the line. The caller decides where it goes.
#ifndef VGPU_BASE_ERROR_H
#define VGPU_BASE_ERROR_H

#include <stdarg.h>
#include <stdio.h>

struct error {
    char text[512];
};

// Writes the line and returns `code`, so a refusal is one statement: return error_set(error, -EINVAL, "...").
__attribute__((format(printf, 3, 4))) static inline int error_set(struct error *error, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return code;
}

#endif
