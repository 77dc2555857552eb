#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Prints C source with an empty function for every driver function that the toolkit's headers declare, to link programs against.
#
#   scripts/libcuda-stub.sh CUDA_INCLUDE_DIR > libcuda.c
#
# The toolkit's own stub library will not do: the wheels on PyPI lack it. The preprocessor gives the names that a program asks the
# linker for, such as cuMemAlloc_v2; the second pass adds those of the per-thread default stream, such as cuMemcpy_ptds. What is defined
# in the header itself (static inline) is not the driver's.
set -euo pipefail

include=${1:?usage: $0 CUDA_INCLUDE_DIR}

declarations() {
    printf '#include <cuda.h>\n#include <cudaProfiler.h>\n' | ${CC:-cc} -E -P -x c "$@" -I "$include" -
}

names=$({ declarations && declarations -DCUDA_API_PER_THREAD_DEFAULT_STREAM && declarations -D__CUDA_API_VERSION_INTERNAL; } |
    sed -E '/^static|^ *inline/s/cu[A-Z][A-Za-z0-9_]* *\(/(/' | grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u)
for name in $names; do
    printf 'int %s(void) { return 0; }\n' "$name"
done
