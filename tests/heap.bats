#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# VGPU_ALLOCATOR=chunk: programs find the same memory, told in the same way, within the same quota.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=2G VGPU_LOG=warn VGPU_ALLOCATOR=chunk
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

@test "linear memory meets the quota" {
    silent "$PROGRAMS/mem_family" linear
}

@test "pitched memory meets the quota" {
    silent "$PROGRAMS/mem_family" pitched
}

@test "memory that is not from the heap meets the quota beside it" {
    silent "$PROGRAMS/mem_family" managed
    silent "$PROGRAMS/mem_family" async
    silent "$PROGRAMS/mem_family" mapped
}

@test "wrong calls get the driver's answers and cost nothing" {
    silent "$PROGRAMS/mem_errors"
}

@test "small allocations share chunks, up to the limit" {
    silent "$PROGRAMS/mem_small"
}

@test "stream-ordered pools make room for the heap" {
    silent "$PROGRAMS/mem_pool"
}

@test "threads that allocate at once beyond the quota leave nothing behind" {
    silent "$PROGRAMS/mem_threads"
}

@test "ranges, attributes and errors are those of allocations by themselves" {
    silent "$PROGRAMS/heap_told"
}

@test "the driver gives the same answers without the heap" {
    VGPU_ALLOCATOR=native silent "$PROGRAMS/heap_told"
}

@test "freed memory is not given out again while queued work uses it" {
    run -0 --separate-stderr shim "$PROGRAMS/heap_order" "$module"
    assert_equal "$stderr" ""
    # Work of 5 ms is queued at each free, so at most of them it is not yet done when memory is wanted again.
    [[ ${output#moved } -gt 0 ]]
}

@test "a capture survives allocating and freeing, and freed memory is still safe" {
    run -0 --separate-stderr shim "$PROGRAMS/heap_order" "$module" capture
    assert_equal "$stderr" ""
    assert_contains "$output" "moved "
}

@test "what a capture forbids is refused as without the heap" {
    local native
    native=$(VGPU_ALLOCATOR=native shim "$PROGRAMS/heap_capture")
    run -0 --separate-stderr shim "$PROGRAMS/heap_capture"
    assert_equal "$output" "$native"
}

@test "the heap serves again after a capture that was never ended, but not during one" {
    run -0 --separate-stderr shim "$PROGRAMS/heap_abandoned"
    assert_equal "${lines[*]}" "801 801 801 801 0"
}

@test "the heap serves again after a capture whose thread has ended" {
    sim_only "when the driver ends such a capture is its own affair"
    run -0 --separate-stderr shim "$PROGRAMS/heap_abandoned" thread
    assert_equal "${lines[*]}" "801 0"
}

@test "what the heap keeps is there for all other memory, and ends with its context" {
    silent "$PROGRAMS/heap_room"
}

@test "NVML tells the same as without the heap" {
    local native
    native=$(VGPU_ALLOCATOR=native shim "$PROGRAMS/nvml_memory")
    run -0 --separate-stderr shim "$PROGRAMS/nvml_memory"
    assert_equal "$output" "$native"
    assert_contains "$output" "attached: total 2048 "
}

@test "exporting such memory is refused, and one line says why" {
    run -0 --separate-stderr shim "$PROGRAMS/heap_ipc"
    assert_equal "$output" "801 801"
    assert_contains "$stderr" "VGPU_ALLOCATOR=native"
    [[ $(grep -c cuIpcGetMemHandle <<<"$stderr") -eq 1 ]]
}

@test "CUDA programs compute what they compute without it" {
    local name native
    for name in vectoradd matmul nbody reduce triad alloc_loop; do
        native=$(VGPU_ALLOCATOR=native shim "$KERNELS/$name" --iterations 2 | sed -n 's/.*\(checksum=[^ ]*\).*/\1/p')
        run -0 --separate-stderr shim "$KERNELS/$name" --iterations 2
        assert_contains "$output" "$native"
        assert_contains "$output" "verified=yes"
    done
}

@test "a program that fills its quota is refused at the same place" {
    spawn_shim "$PROGRAMS/mem_fill" $((64 << 20))
    wait_until file_has "$out" full
    local chunk
    chunk=$(<"$out")
    spawn_shim env VGPU_ALLOCATOR=native "$PROGRAMS/mem_fill" $((64 << 20))
    wait_until file_has "$out" full
    assert_equal "$chunk" "$(<"$out")"
}

@test "a child made by fork uses CUDA by itself" {
    run -0 --separate-stderr shim "$PROGRAMS/attach_fork"
}
