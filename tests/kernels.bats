#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Unmodified programs: the same results, bit for bit, with and without the library.
bats_require_minimum_version 1.5.0
load helper

setup() { common_setup; }
teardown() { common_teardown; }

checksum_of() {
    [[ $1 =~ checksum=([0-9a-f]+) ]] && echo "${BASH_REMATCH[1]}"
}

# same_result PROGRAM [OPTION]...: runs it natively and under the library and compares what it computed
same_result() {
    local program=$1 native
    shift
    run -0 --separate-stderr "$KERNELS/$program" "$@"
    assert_contains "$output" verified=yes
    native=$(checksum_of "$output")
    run -0 --separate-stderr "$VGPU" run --memory 2G -- "$KERNELS/$program" "$@"
    assert_contains "$output" verified=yes
    assert_equal "$(checksum_of "$output")" "$native"
}

@test "vectoradd computes the same with and without the library" {
    same_result vectoradd --iterations 20
}

@test "matmul computes the same with and without the library" {
    same_result matmul --iterations 5
}

@test "triad computes the same with and without the library" {
    same_result triad --iterations 20
}

@test "reduce computes the same with and without the library" {
    same_result reduce --iterations 20
}

@test "nbody computes the same with and without the library" {
    same_result nbody --iterations 10
}

@test "spin launches the same with and without the library" {
    same_result spin --iterations 50 --kernel-us 100
}

@test "timeline launches the same with and without the library, and leaves the times of every kernel" {
    local trace=$BATS_TEST_TMPDIR/trace
    same_result timeline --size 64 --iterations 50 --records 50 --trace "$trace"
    # Two numbers of 8 bytes each, and each kernel begins when the one before has ended.
    run -0 od -A n -v -t u8 -w16 "$trace"
    assert_equal "${#lines[@]}" 50
    awk '$1 < last || $2 < $1 { exit 1 } { last = $2 }' <<<"$output"
}

@test "timeline waits for each burst and says how long it took" {
    run -0 --separate-stderr "$KERNELS/timeline" --size 64 --burst 5 --rate 1000 --iterations 8 --latencies "$BATS_TEST_TMPDIR/latencies"
    assert_contains "$output" "bursts=8"
    assert_contains "$output" "kernels=41 " # the first one loads the kernel
    assert_equal "$(stat -c %s "$BATS_TEST_TMPDIR/latencies")" 64
}

@test "launch_pair launches the same with and without the library, and goes around it" {
    same_result launch_pair --iterations 5
    assert_contains "$output" "around=yes"
    run -0 --separate-stderr "$KERNELS/launch_pair" --iterations 5
    assert_contains "$output" "around=no"
}

@test "a driver API program computes the same with and without the library" {
    same_result driver_spin --iterations 50 --kernel-us 100
}

@test "hog gets its quota and no more, and goes on with what it has" {
    run -0 --separate-stderr "$VGPU" run --memory 1G -- "$KERNELS/hog" --seconds 0.5
    assert_contains "$output" "refused=cudaErrorMemoryAllocation"
    assert_contains "$output" verified=yes
    [[ $output =~ bytes=([0-9]+) ]]
    local got=${BASH_REMATCH[1]}
    echo "hog got $got bytes of 1 GiB"
    [[ $got -gt 0 && $got -le $((1 << 30)) ]]
}

@test "the program's exit status, output and error messages are its own" {
    run -2 --separate-stderr "$VGPU" run --memory 1G -- "$KERNELS/matmul" --frobnicate
    assert_equal "$output" ""
    assert_contains "$stderr" "--frobnicate"
}
