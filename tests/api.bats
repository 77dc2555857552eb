#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The C API: virtual GPUs inside one program, with and without the preload library.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export LD_LIBRARY_PATH=$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} VGPU_LOG=warn
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

@test "two virtual GPUs in one process allocate, copy and compute, and give everything back" {
    run -0 --separate-stderr "$PROGRAMS/api_instance" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "the same holds under the preload library, beside a virtual GPU of the process" {
    VGPU_MEMORY=1G run -0 --separate-stderr shim "$PROGRAMS/api_instance" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "wrong configurations and calls are refused with a line that says what" {
    sim_only "counts on one device"
    run -0 --separate-stderr "$PROGRAMS/api_errors"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "the library needs no libcuda to be loaded and says in one line that there is none" {
    sim_only
    run -0 readelf -d "$BUILD/libvgpu.so.0"
    refute_contains "$output" libcuda
    assert_contains "$output" "soname: [libvgpu.so.0]"
    LD_LIBRARY_PATH=$BUILD run --separate-stderr python3 -c '
import ctypes
lib = ctypes.CDLL("libvgpu.so.0")
lib.vgpu_detail.restype = ctypes.c_char_p
config = (ctypes.c_uint64 * 9)(72)
out = ctypes.c_void_p()
print(lib.vgpu_create(config, ctypes.byref(out)), lib.vgpu_detail().decode())'
    [[ $output == "-19 the NVIDIA driver cannot be loaded"* ]]
}

@test "tasks run in order, can be waited for and cancelled, press back, and are drained" {
    run -0 --separate-stderr "$PROGRAMS/api_tasks" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "tasks do the same under the preload library" {
    VGPU_MEMORY=1G run -0 --separate-stderr shim "$PROGRAMS/api_tasks" "$module"
    assert_equal "$output" "done"
}

@test "what a task launches by plain calls under the preload library passes one gate, not two, and one agent serves both" {
    run -0 --separate-stderr shim "$PROGRAMS/api_plain" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "a virtual GPU can be changed while it lives, and figures tell what is" {
    run -0 --separate-stderr "$PROGRAMS/api_stats" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "calls neither fail nor spoil it while another thread captures in global mode" {
    run -0 --separate-stderr "$PROGRAMS/api_capture"
    VGPU_MEMORY=2G run -0 --separate-stderr shim "$PROGRAMS/api_capture"
}

@test "what an unmodified program has reserved is refused to the API, and comes back when it is killed" {
    sim_only "the sizes are those of the simulated GPU"
    create() {
        PYTHONPATH=$root/bindings/python python3 -c 'import vgpu; vgpu.VirtualGPU("late", memory=8 << 30)'
    }
    VGPU_MEMORY=12G spawn_shim "$PROGRAMS/mem_fill" $((1 << 30))
    wait_until file_has "$out" full
    run -1 --separate-stderr create
    assert_contains "$stderr" "a quota of 8.0 GiB does not fit on"
    kill -KILL "$pid"
    wait_until create
}

@test "the sanitizers find nothing while the same is done" {
    sim_only "the driver is not made for them"
    local variant
    for variant in asan tsan; do
        run -0 --separate-stderr "$BUILD/$variant/tests/programs/api_instance" "$module"
        run -0 --separate-stderr "$BUILD/$variant/tests/programs/api_tasks" "$module"
        run -0 --separate-stderr "$BUILD/$variant/tests/programs/api_stats" "$module"
        run -0 --separate-stderr "$BUILD/$variant/tests/programs/api_region" "$module" alone
    done
}
