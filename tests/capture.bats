#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Stream capture is never disturbed: not by the gate, not by the window's marks, not by the agent at work, in any capture mode.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_LOG=warn
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

# survives MODE: captures go on while another tenant wants the GPU, and the token changed hands meanwhile
survives() {
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300
    wait_until file_has "$out" busy
    run -0 --separate-stderr shim env VGPU_NAME=capturer "$PROGRAMS/capture_loop" "$module" 3 "$1"
    assert_equal "$stderr" ""
    assert_contains "$output" "captures "
    [[ ${output#captures } -gt 3 ]]
    [[ $("$VGPU" list --json --interval 0 | jq '.vgpus | map(select(.name == "rival")) | .[0].revokes') -gt 3 ]]
}

@test "a capture in global mode survives contention" {
    survives global
}

@test "a capture in thread-local mode survives contention" {
    survives thread
}

@test "a capture in relaxed mode survives contention" {
    survives relaxed
}

@test "captures work alone" {
    run -0 --separate-stderr shim "$PROGRAMS/capture_loop" "$module" 1 global
    assert_contains "$output" "captures "
    assert_equal "$stderr" ""
}
