#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The runtime layer: a runtime whose driver calls pass the library by is limited at its own functions, whatever it is asked for.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=1G
    library=$(sed -n 's/^CUDART_SONAME := //p' "$BUILD/cuda.mk")
}

teardown() { common_teardown; }

unseen() { # CASE ARGUMENT
    run -0 --separate-stderr shim "$PROGRAMS/runtime_unseen" "$library" "$@"
}

figure() { # NAME KEY
    "$VGPU" list --json --interval 0 | jq --arg name "$1" ".vgpus | map(select(.name == \$name)) | .[0].$2 // 0"
}

@test "memory of an unseen runtime is charged and given back" {
    unseen linear 300
    assert_equal "$output" "$(printf '0 2 0 0\n%.0s' 1 2 3 4 5 6 7 8)"
    assert_equal "$(grep -c 'past the driver hooks' <<<"$stderr")" 1
}

@test "arrays of an unseen runtime are charged and given back" {
    unseen arrays 300
    assert_equal "$output" "$(printf '0 2 0 0\n%.0s' 1 2 3)"
    assert_equal "$(grep -c 'past the driver hooks' <<<"$stderr")" 1
}

@test "an array of an unseen runtime that does not fit is refused, also as its first call" {
    unseen arrays 700
    assert_equal "$output" "$(printf '2 2 -1 2\n%.0s' 1 2 3)"
}

@test "an unseen runtime gets no array where the process is refused" {
    VGPU_MEMORY=nonsense unseen arrays 16
    assert_equal "${lines[0]}" "3 3 -1 3"
    assert_contains "$stderr" "VGPU_MEMORY"
}

@test "the device of an unseen runtime has the quota, and its reset gives everything back" {
    unseen reset 300
    assert_equal "$output" "0 0 0 1024"
}

@test "launches and graphs of an unseen runtime wait for their turn and count once, and its captures are left alone" {
    export VGPU_LOG=error
    spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$KERNELS/testkernels.ptx" 300
    wait_until file_has "$out" busy
    spawn_shim env VGPU_NAME=tenant "$PROGRAMS/runtime_unseen" "$library" launches "$KERNELS/testkernels.ptx"
    wait_until grep -q . "$out"
    assert_equal "$(<"$out")" launched
    assert_equal "$(figure tenant launches)" 20
    [[ $(figure tenant waits) -ge 1 ]]
}

@test "a stream of an unseen runtime gets the lowest priority where the virtual GPU is of the low class" {
    unseen priority -2
    assert_equal "$output" -2
    VGPU_PRIORITY=low unseen priority -2
    assert_equal "$output" 0
}
