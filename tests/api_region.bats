#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The C API: shared regions within a process and between processes.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export LD_LIBRARY_PATH=$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} VGPU_LOG=warn
    region=$PROGRAMS/api_region
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

# uses NAME BYTES: whether the virtual GPU has that much of its quota in use
uses() {
    "$VGPU" list --json --interval 0 | python3 -c '
import json, sys
sys.exit(not any(v["name"] == sys.argv[1] and v["used_bytes"] == int(sys.argv[2]) for v in json.load(sys.stdin)["vgpus"]))' "$@"
}

gone() { # PATTERN
    ! compgen -G "$1"
}

# started: a maker and a taker of the region "shared"; maker and taker are their pids
started() {
    spawn "$region" "$module" make shared
    maker=$pid
    wait_until file_has "$out" made
    mkfifo "$BATS_TEST_TMPDIR/hold"
    exec 4<>"$BATS_TEST_TMPDIR/hold"
    spawn bash -c '"$@" <"$0"' "$BATS_TEST_TMPDIR/hold" "$region" "$module" take shared
    taker_out=$out
    wait_until file_has "$taker_out" read
}

@test "virtual GPUs of one process share a region, charged once, in the order of their work" {
    run -0 --separate-stderr "$region" "$module" alone
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
    gone "$VGPU_POOL.region.*"
}

@test "the same under the preload library" {
    VGPU_MEMORY=1G run -0 --separate-stderr shim "$region" "$module" alone
    assert_equal "$output" "done"
}

@test "another process opens a region by name and reads what was published; its maker pays" {
    started
    uses maker 6291456
    uses taker 0
    run -0 stat -c '%F %a' "$VGPU_POOL.region.shared"
    assert_equal "$output" "socket 600"
}

@test "a region outlives its killed maker: a survivor pays for it and hands it on" {
    started
    kill -KILL "$maker"
    wait_until uses taker 6291456
    run -0 --separate-stderr "$region" "$module" have shared
    assert_contains "$output" read
    uses taker 6291456
    exec 4>&-
    kill -KILL "$pid"
}

@test "the last one to close a region gives its memory back and takes its name away" {
    spawn "$region" "$module" make shared
    wait_until file_has "$out" made
    run -0 --separate-stderr "$region" "$module" have shared
    assert_contains "$output" "done"
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    run -1 --separate-stderr "$region" "$module" have shared
    assert_contains "$output" "no region shared"
}

@test "whoever awaits a generation waits for its work, also when another stream publishes meanwhile" {
    run -0 --separate-stderr "$PROGRAMS/api_publish"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

# connections: sockets of owners of a region "shared", and of those who ask them
connections() {
    grep -c '\.region\.shared$' /proc/net/unix
}

more_connections() { # BEFORE
    [[ $(connections) -gt $1 ]]
}

@test "opening a region whose owner dies meanwhile reaches the survivor" {
    local before
    started
    kill -STOP "$maker"
    wait_until process_stopped "$maker"
    before=$(connections)
    spawn "$region" "$module" have shared
    wait_until more_connections "$before" # it waits for the answer
    kill -KILL "$maker"
    wait_until process_gone "$pid"
    assert_equal "$(<"$out")" $'read\ndone'
}

@test "opening a region whose owner is stopped fails in time, however often it is tried" {
    spawn "$region" "$module" make shared
    wait_until file_has "$out" made
    kill -STOP "$pid"
    wait_until process_stopped "$pid"
    run -0 timeout 60 "$region" "$module" stopped shared
}

@test "a region does not become a standard stream that the program has closed" {
    spawn "$region" "$module" make shared
    wait_until file_has "$out" made
    run -0 "$region" "$module" closed shared
}

# as_nobody CODE: a Python program of another user, in the pool's folder
as_nobody() {
    local code
    printf -v code '%s\n' 'import os, socket, time' 'os.setgroups([]), os.setgid(65534), os.setuid(65534)' \
        'end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)' 'end.settimeout(10)' "$@"
    chmod a+rwx "$BATS_TEST_TMPDIR"
    cd "$BATS_TEST_TMPDIR" || return
    spawn python3 -c "$code"
}

@test "a region is handed to nobody, and taken from nobody, whose the pool is not" {
    [[ $(id -u) -eq 0 ]] || skip "needs to be another user"
    spawn "$region" "$module" make shared
    wait_until file_has "$out" made
    chmod a+w "$VGPU_POOL.region.shared"
    as_nobody 'end.connect("pool.region.shared")' 'print(*map(len, socket.recv_fds(end, 8, 2)[:2]))'
    wait_until process_gone "$pid"
    assert_equal "$(<"$out")" "0 0"
    as_nobody 'end.bind("pool.region.false")' 'end.listen()' 'print("listens", flush=True)' 'time.sleep(100)'
    wait_until file_has "$out" listens
    run -1 --separate-stderr "$region" "$module" have false
    assert_contains "$output" "the region false belongs to another user"
}
