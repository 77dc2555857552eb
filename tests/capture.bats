#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Stream capture is never disturbed: not by the gate, not by the window's marks, not by the agent at work, in any capture mode. And
# what else streams do is as it was.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_LOG=warn
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

# survives MODE [THREADS [FORM]]: captures go on while another tenant wants the GPU, and the token changed hands meanwhile
survives() {
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300
    wait_until file_has "$out" busy
    run -0 --separate-stderr shim env VGPU_NAME=capturer "$PROGRAMS/capture_loop" "$module" 3 "$@"
    assert_equal "$stderr" ""
    assert_contains "$output" "captures "
    [[ ${output#captures } -gt 3 ]]
    [[ $("$VGPU" list --json --interval 0 | jq '.vgpus | map(select(.name == "rival")) | .[0].revokes') -gt 3 ]]
}

# as_without CASE: the same output as without the library, alone and while another tenant wants the GPU
as_without() {
    run -0 "$PROGRAMS/stream_cases" "$module" "$1"
    local plain=$output
    run -0 shim "$PROGRAMS/stream_cases" "$module" "$1"
    assert_equal "$output" "$plain"
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300
    wait_until file_has "$out" busy
    run -0 shim "$PROGRAMS/stream_cases" "$module" "$1"
    assert_equal "$output" "$plain"
}

figure() { # NAME KEY
    "$VGPU" list --json --interval 0 | jq --arg name "$1" ".vgpus | map(select(.name == \$name)) | .[0].$2 // 0"
}

overran() { # NAME
    [[ $(figure "$1" overruns) -ge 1 ]]
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

@test "captures in several threads at once survive contention" {
    survives thread 3
}

@test "captures in the relaxed mode in several threads at once survive contention" {
    survives relaxed 3
}

@test "captures by the first and the per-thread forms of the calls survive contention" {
    survives global 1 first
    survives global 1 first_ptsz
    survives relaxed 1 ptsz
}

@test "captures work alone" {
    run -0 --separate-stderr shim "$PROGRAMS/capture_loop" "$module" 1 global
    assert_contains "$output" "captures "
    assert_equal "$stderr" ""
}

@test "a capture that is broken off fails as without the library, and the next one succeeds" {
    as_without invalidated
    assert_contains "$output" "synchronize 900 launch 901 end 901 again 401"
}

@test "a capture into an existing graph goes into that graph" {
    as_without to_graph
}

@test "streams get the priorities that they get without the library" {
    as_without priorities
    as_without asked
}

@test "a virtual GPU of the low class gets the lowest priority by every road, and the range as it is" {
    run -0 shim env VGPU_PRIORITY=low "$PROGRAMS/stream_cases" "$module" priorities
    [[ ${lines[0]} =~ ^0\ to\ -[0-9]+:(\ 0)+$ ]]
    run -0 shim env VGPU_PRIORITY=low "$PROGRAMS/stream_cases" "$module" asked
    [[ ${lines[0]} =~ ^-[0-9]+:\ launch\ 0\ node\ 0\ stream\ 0\ green\ 0$ ]]
}

@test "a host function that waits for a later launch gets it, whoever has the turn" {
    as_without host_waits
}

@test "a callback that waits for a later launch gets it, whoever has the turn" {
    as_without callback_waits
}

@test "work in another thread's own default stream is waited for while a stream is being captured" {
    spawn_shim env VGPU_NAME=capturer "$PROGRAMS/stream_cases" "$module" own_streams "$BATS_TEST_TMPDIR/go"
    local capturer_out=$out
    wait_until file_has "$out" waiting
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300
    wait_until file_has "$out" busy
    # It cannot end, so the drain gives up at its deadline; work that nobody knows of would not be waited for at all.
    overran capturer
    touch "$BATS_TEST_TMPDIR/go"
    wait_until file_has "$capturer_out" "done"
}

# kept_short CASE: half a second of work that is queued at once does not keep another tenant waiting for all of it
kept_short() {
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300
    wait_until file_has "$out" busy
    spawn_shim env VGPU_NAME=tenant "$PROGRAMS/stream_cases" "$module" "$1"
    wait_until file_has "$out" worked
    [[ $(figure rival revokes) -ge 1 && $(figure tenant revokes) -ge 1 ]]
    assert_equal "$(figure tenant overruns)" 0
}

@test "work queued in a green context is kept short for others, and drained" {
    kept_short green
}

@test "work queued in the stream of a context that is not current is kept short for others, and drained" {
    kept_short elsewhere
}
