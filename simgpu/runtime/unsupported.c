// What the simulated runtime does not do: textures, surfaces, external memory, and newer or rarer variants of what it does.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A program may link against these and be told so. They take any arguments and look at none, so no header that knows their
// types is included. Weak: a definition elsewhere comes first.

enum { NOT_SUPPORTED = 801 }; // cudaErrorNotSupported

#define ROW(name)                                                                                                              \
    int name(void);                                                                                                            \
    __attribute__((weak)) int name(void)                                                                                       \
    {                                                                                                                          \
        return NOT_SUPPORTED;                                                                                                  \
    }
#include "simgpu/runtime/unsupported.def"
#undef ROW
