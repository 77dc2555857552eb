#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Memory that is not asked for by its size: arrays, graphs, modules, what contexts grow by.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=3G VGPU_LOG=warn
}

teardown() { common_teardown; }

@test "small arrays are charged by the blocks they share, sparse ones not at all" {
    silent "$PROGRAMS/mem_arrays"
}

@test "mappings that fail change no charge, and a part of a sparse array keeps its memory until it is unmapped" {
    silent "$PROGRAMS/mem_vmm"
}

@test "memory nodes of a graph are charged when it is launched and given back by trimming" {
    silent "$PROGRAMS/mem_graph" explicit
}

@test "memory nodes of a graph are charged however it is instantiated" {
    local form
    for form in v2 params params_ptsz; do
        silent "$PROGRAMS/mem_graph" explicit "$form"
    done
}

@test "captured allocations are charged when their graph is launched and given back by trimming" {
    silent "$PROGRAMS/mem_graph" captured
}

@test "global variables of modules and libraries are charged until they are unloaded" {
    silent "$PROGRAMS/mem_module"
}

@test "code is charged when a kernel is asked for, refused where it does not fit, and given back with its module" {
    local rounds=20
    if real_gpu; then rounds=2; fi # a real driver takes a second or more to load so much code
    SIMGPU_CODE=2M silent "$PROGRAMS/mem_code" "$rounds"
}

@test "raised limits, large frames, attached and green contexts are charged and given back" {
    silent "$PROGRAMS/context_grow" "$KERNELS/memkernels.ptx"
}

@test "what a family is charged is what the driver's free memory has lost" {
    # What a context takes is measured by whoever comes first, best while nobody else uses the GPU.
    export SIMGPU_CODE=2M
    VGPU_MEMORY=8G run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    VGPU_MEMORY=8G run --separate-stderr shim "$PROGRAMS/mem_truth" "$PROGRAMS/watch_free" "$KERNELS/memkernels.ptx"
    echo "$output"
    assert_equal "$stderr" ""
    refute_contains "$output" WRONG
    assert_contains "$output" "contexts with large frames, given back: "
    assert_equal "$status" 0
}

@test "memory of another process is not charged to who imports it" {
    run -0 --separate-stderr shim "$PROGRAMS/mem_import"
    assert_equal "$stderr" ""
    if ! real_gpu; then assert_equal "$output" ""; fi
}

@test "memory is charged to the GPU that it is on, whichever is current" {
    two_gpus
    VGPU_MEMORY=0=2G,1=3G silent "$PROGRAMS/mem_devices"
}
