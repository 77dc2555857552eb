#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Memory: a quota is exact, holds for every family of functions, and what a program is told agrees with it.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=2G VGPU_LOG=warn
}

teardown() { common_teardown; }

# figure KEY: one figure of the only virtual GPU
figure() {
    "$VGPU" list --json --interval 0 | jq ".vgpus[0].$1"
}

all_have() { # TEXT FILE...
    local text=$1 file
    shift
    for file; do
        file_has "$file" "$text" || return
    done
}

@test "linear memory meets the quota" {
    silent "$PROGRAMS/mem_family" linear
}

@test "pitched memory meets the quota" {
    silent "$PROGRAMS/mem_family" pitched
}

@test "managed memory meets the quota" {
    silent "$PROGRAMS/mem_family" managed
}

@test "stream-ordered memory of the default pool meets the quota" {
    silent "$PROGRAMS/mem_family" async
}

@test "stream-ordered memory of the program's own pool meets the quota" {
    silent "$PROGRAMS/mem_family" pool
}

@test "stream-ordered memory of a thread's own default stream meets the quota" {
    silent "$PROGRAMS/mem_family" async_ptsz
    silent "$PROGRAMS/mem_family" pool_ptsz
}

@test "physical memory that only a mapping keeps meets the quota" {
    silent "$PROGRAMS/mem_family" mapped
}

@test "physical memory that only a handle keeps meets the quota" {
    silent "$PROGRAMS/mem_family" unmapped
}

@test "an array meets the quota" {
    silent "$PROGRAMS/mem_family" array
    silent "$PROGRAMS/mem_family" plain_array
}

@test "a mipmapped array meets the quota" {
    silent "$PROGRAMS/mem_family" mipmapped
}

@test "memory that only an array with deferred mapping keeps meets the quota" {
    silent "$PROGRAMS/mem_family" deferred
    silent "$PROGRAMS/mem_family" deferred_ptsz
}

@test "what a pool keeps counts until it gives it back" {
    silent "$PROGRAMS/mem_pool"
}

@test "asking a destroyed pool for memory charges nothing" {
    sim_only "a real driver need not survive a handle that is none"
    silent "$PROGRAMS/mem_pool" destroyed
}

@test "threads that allocate in stream order all the time are not refused what there is" {
    silent "$PROGRAMS/pool_threads"
}

@test "small allocations are counted by the blocks they share" {
    silent "$PROGRAMS/mem_small"
}

@test "wrong calls get the driver's answers and cost nothing" {
    silent "$PROGRAMS/mem_errors"
}

@test "calls that find no host memory for the books fail as out of memory, and cost nothing" {
    silent "$PROGRAMS/mem_books" "$SHIM"
}

@test "threads that allocate at once beyond the quota leave nothing behind" {
    silent "$PROGRAMS/mem_threads"
}

@test "total is the quota and free is what a context leaves of it" {
    run -0 --separate-stderr shim "$PROGRAMS/mem_told"
    local quota=$((2 << 30)) context
    context=$("$VGPU" list --json --interval 0 | jq '.gpus[0].context_bytes')
    assert_equal "$output" "device $quota total $quota free $((quota - context))"
}

@test "without a quota the program is told of what nobody has reserved" {
    unset VGPU_MEMORY
    local all rest
    spawn_shim env VGPU_MEMORY=25% "$PROGRAMS/attach_try" keep
    wait_until file_has "$out" "cuInit 0"
    run -0 --separate-stderr shim "$PROGRAMS/mem_told"
    all=$("$VGPU" list --json --interval 0 | jq '.gpus[0].total_bytes')
    rest=$("$VGPU" list --json --interval 0 | jq '.gpus[0] | (.total_bytes / 2097152 | floor) * 2097152 - .reserved_bytes')
    [[ $rest -lt $all ]]
    assert_contains "$output" "device $rest total $rest "
}

@test "a percentage means that part of the GPU, in whole chunks" {
    sim_only "a GPU of known size"
    SIMGPU_MEMORY=10G VGPU_MEMORY=33.3% run -0 --separate-stderr shim "$PROGRAMS/mem_told"
    assert_contains "$output" "total $((10 * 1024 * 333 / 1000 / 2 * 2 << 20)) "
}

@test "a refusal is counted where monitoring sees it" {
    spawn_shim "$PROGRAMS/mem_fill" $((64 << 20))
    wait_until file_has "$out" full
    assert_equal "$(figure refusals)" 1
    assert_equal "$(figure refused_bytes)" $((64 << 20))
}

@test "processes that allocate at once under one name fill one quota to the last chunk" {
    local files=() file count=0 contexts
    for _ in 1 2 3 4 5; do
        spawn_shim env VGPU_MEMORY=4G VGPU_NAME=together "$PROGRAMS/mem_fill" $((2 << 20)) "$BATS_TEST_TMPDIR/go"
        files+=("$out")
    done
    wait_until -t 60 all_have ready "${files[@]}"
    touch "$BATS_TEST_TMPDIR/go"
    wait_until -t 60 all_have full "${files[@]}"
    assert_equal "$(figure used_bytes)" $((4 << 30))
    contexts=$("$VGPU" list --json --interval 0 | jq '.gpus[0].context_bytes * 5')
    for file in "${files[@]}"; do
        count=$((count + $(sed -n 's/full //p' "$file")))
    done
    assert_equal $((count * (2 << 20) + contexts)) $((4 << 30))
}

@test "what a killed process held is there for the others of its name, who only have to ask" {
    spawn_shim env VGPU_NAME=together "$PROGRAMS/mem_fill"
    local victim=$pid
    wait_until -t 30 file_has "$out" full
    kill -KILL "$victim"
    # The real driver takes a moment to take a process down; until then what it holds is in use.
    wait_until env LD_PRELOAD="$SHIM" VGPU_NAME=together "$PROGRAMS/mem_told"
    spawn_shim env VGPU_NAME=together "$PROGRAMS/mem_fill"
    wait_until -t 30 file_has "$out" full
    assert_equal "$(figure used_bytes)" $((2 << 30))
    assert_equal "$(figure 'processes | length')" 1
}

@test "neighbours' quotas are theirs, however much one asks for" {
    spawn_shim env VGPU_NAME=greedy "$PROGRAMS/mem_fill"
    wait_until -t 30 file_has "$out" full
    VGPU_NAME=modest run -0 --separate-stderr shim "$PROGRAMS/mem_family" linear
    assert_equal "$output" ""
}

@test "large chunks are counted whole" {
    sim_only "the whole chunks of a free GPU"
    export VGPU_CHUNK=64M
    spawn_shim "$PROGRAMS/mem_fill" $((24 << 20))
    wait_until file_has "$out" full
    assert_equal "$(figure used_bytes)" $((2 << 30))
    VGPU_MEMORY=100M run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    assert_contains "$output" "cuInit 2"
}
