#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Runs the behaviour suites against the real driver of this machine: once with the shared CUDA runtime, then the suites that run
# CUDA programs once more with the runtime linked statically. What only a simulation can do is skipped and counted as such.
#
# usage: scripts/test-gpu.sh [SUITE...]      (default: all)
#
# BATS=path/to/bats where Bats is not installed. Builds nothing: `make` first, or `make test-gpu`.
set -euo pipefail
cd "$(dirname "$0")/.."

static_suites=(kernels scheduler)

if ! ldconfig -p | grep -q 'libcuda\.so\.1' || ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    echo "test-gpu: this machine has no NVIDIA GPU, or its driver is not installed; make test uses the simulated one" >&2
    exit 1
fi

status=0
echo "== shared CUDA runtime"
scripts/test.sh --gpu "$@" || status=1
if [[ $# -eq 0 ]]; then
    echo "== static CUDA runtime"
    VGPU_TEST_CUDART=static scripts/test.sh --gpu "${static_suites[@]}" || status=1
fi
exit "$status"
