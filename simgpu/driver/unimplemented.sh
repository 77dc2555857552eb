#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Writes, on stdout, a C file with the entry points that the toolkit's stub libcuda.so exports and the simulated driver does not
# define: each returns CUDA_ERROR_NOT_SUPPORTED and, with SIMGPU_LOG set, names itself on stderr.
#
#   unimplemented.sh STUB OBJECT... > unimplemented.c
#
# STUB is the stub library; the OBJECTs are the driver's compiled files, whose defined symbols are left out. The result needs no
# header and no include path; it is linked with the OBJECTs.
# SPDX-License-Identifier: AGPL-3.0-or-later
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: unimplemented.sh STUB OBJECT..." >&2
    exit 2
fi
stub=$1
shift

cat <<'END'
// Entry points that the simulated driver does not have. Made by simgpu/driver/unimplemented.sh.
#include <stdio.h>
#include <stdlib.h>

#define CUDA_ERROR_NOT_SUPPORTED 801

static int unimplemented(const char *name)
{
    const char *wanted = getenv("SIMGPU_LOG");

    if (wanted && *wanted && *wanted != '0')
        fprintf(stderr, "simgpu: %s is not implemented\n", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

#define UNIMPLEMENTED(name)                                      \
    __attribute__((visibility("protected"))) int name(void);     \
    int name(void)                                               \
    {                                                            \
        return unimplemented(#name);                             \
    }

END
LC_ALL=C comm -23 \
    <(nm -D --defined-only "$stub" | awk '$3 ~ /^cu/ {print $3}' | LC_ALL=C sort -u) \
    <(nm --defined-only "$@" | awk '$2 == "T" {print $3}' | LC_ALL=C sort -u) |
    sed 's/.*/UNIMPLEMENTED(&)/'
