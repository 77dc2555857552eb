#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The C API: two virtual GPUs of one process take turns by weight. How exactly, tests/programs/api_bench.c measures on a real GPU.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export LD_LIBRARY_PATH=$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} VGPU_LOG=warn
}

teardown() { common_teardown; }

@test "of two queues of tasks the one with three times the weight runs more" {
    run -0 --separate-stderr "$PROGRAMS/api_tasks" "$KERNELS/testkernels.ptx" 2
    read -r one three <<<"${lines[0]}"
    echo "$one tasks to $three" >&2
    [ $((three * 2)) -ge $((one * 3)) ]
    [ $((one * 10)) -ge "$three" ]
}
