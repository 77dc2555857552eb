#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Writes the C++ source of a device library: the .cu file, and behind it the table of its kernels.
#
#   simgpu/device/register.sh FILE.cu >FILE.cpp
#
# Kernels are recognised in the source text: `__global__ void name(`, with attributes and line breaks anywhere. So is dynamic
# shared memory, `extern __shared__ type name[]`, for which a definition is written; declarations of one name share it. Kernels
# in namespaces, overloaded, static or templates are not for this; they fail to compile.
set -euo pipefail

file=${1:?usage: $0 FILE.cu}

printf '#include "%s"\n#include "simgpu/device/register.hpp"\n\n' "$file"
awk '
    { sub(/\/\/.*/, ""); text = text $0 " " }
    END {
        gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, " ", text)
        gsub(/__launch_bounds__[ ]*\([^)]*\)/, " ", text)
        rest = text
        while (match(rest, /extern +__shared__ +[^;]*;/)) {
            declaration = substr(rest, RSTART, RLENGTH)
            rest = substr(rest, RSTART + RLENGTH)
            sub(/^extern +__shared__ +/, "", declaration)
            sub(/__align__ *\([^)]*\)|alignas *\([^)]*\)/, " ", declaration)
            sub(/ *\[.*/, "", declaration)
            name = declaration
            sub(/.*[^A-Za-z0-9_]/, "", name)
            type = substr(declaration, 1, length(declaration) - length(name))
            gsub(/^ +| +$/, "", type)
            if (!(name in shared)) printf "SIMGPU_DYNAMIC_SHARED(%s, %s)\n", type, name
            shared[name]
        }
        print "SIMGPU_KERNEL_TABLE("
        while (match(text, /__global__[^;{()]*\(/)) {
            name = substr(text, RSTART, RLENGTH - 1)
            text = substr(text, RSTART + RLENGTH)
            sub(/ +$/, "", name)
            sub(/.*[^A-Za-z0-9_:]/, "", name)
            if (!(name in kernels)) printf "    SIMGPU_KERNEL(%s)\n", name
            kernels[name]
        }
        print ")"
    }' "$file"
