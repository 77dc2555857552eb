#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Every door into CUDA leads to the hooks, and whoever does not ask for CUDA notices nothing.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=1G
}

teardown() { common_teardown; }

# limited PROGRAM [ARGUMENT...]: 16 MiB are granted and 2 GiB refused, by the quota and not by the GPU
limited() {
    local program=$1
    shift
    run -0 --separate-stderr shim "$program" 16 "$@"
    assert_equal "$output" "granted"
    run -0 --separate-stderr shim "$program" 2048 "$@"
    assert_equal "$output" "refused 2"
    run -0 --separate-stderr env -u VGPU_MEMORY "$program" 2048 "$@"
    assert_equal "$output" "granted"
}

# same_lookup ARGUMENTS...: a look-up by a program without CUDA ends as it does without the library
same_lookup() {
    local plain
    plain=$("$PROGRAMS/lookup" "$@")
    run -0 --separate-stderr shim "$PROGRAMS/lookup" "$@"
    assert_equal "$output" "$plain"
    assert_equal "$stderr" ""
}

@test "a program linked against libcuda meets its quota" {
    limited "$PROGRAMS/door_direct"
}

@test "a program that finds the driver by dlsym on its handle meets its quota" {
    limited "$PROGRAMS/door_dlsym"
}

@test "a driver opened by its path is the same driver" {
    sim_only "the path of the real driver varies"
    limited "$PROGRAMS/door_dlsym" "$BUILD/simgpu/libcuda.so.1"
}

@test "a program that finds the driver by RTLD_DEFAULT meets its quota" {
    limited "$PROGRAMS/door_default"
}

@test "a program that finds the driver by RTLD_NEXT meets its quota" {
    limited "$PROGRAMS/door_default" next
}

@test "a program that finds the driver by its own handle meets its quota" {
    limited "$PROGRAMS/door_default" main
}

@test "a program that finds the driver by cuGetProcAddress_v2 meets its quota" {
    limited "$PROGRAMS/door_procaddress"
}

@test "a program that finds the driver by the first cuGetProcAddress meets its quota" {
    limited "$PROGRAMS/door_procaddress" v1
}

@test "a program that finds cuGetProcAddress by cuGetProcAddress meets its quota" {
    limited "$PROGRAMS/door_procaddress" self
}

@test "a program that asks for the per-thread default stream's functions meets its quota" {
    limited "$PROGRAMS/door_procaddress" ptsz
}

@test "a program of the shared runtime meets its quota" {
    limited "$PROGRAMS/door_runtime"
}

@test "a program of the static runtime meets its quota" {
    real_only "the simulated driver serves the simulated runtime only"
    limited "$BUILD/tests/programs-static/door_runtime"
}

@test "a program that gets a driver function from the runtime meets its quota" {
    limited "$PROGRAMS/door_entrypoint"
    limited "$PROGRAMS/door_entrypoint" version
}

@test "a program that exports variables named like driver functions meets its quota" {
    limited "$PROGRAMS/door_variables"
}

@test "a runtime bound past the library is limited at its own functions, and the user told once" {
    local runtime
    runtime=$(sed -n 's/^CUDART_SONAME := //p' "$BUILD/cuda.mk")
    run -0 --separate-stderr shim "$PROGRAMS/door_deepbind" 300 "$runtime"
    assert_equal "${lines[0]}" "0 2 0 0"
    assert_equal "${lines[1]}" "total 1024 MiB"
    assert_equal "$(grep -c 'past the driver hooks' <<<"$stderr")" 1
    run -0 --separate-stderr shim "$PROGRAMS/door_deepbind" 2048 "$runtime"
    assert_equal "${lines[0]}" "2 2 0 2"
}

@test "a runtime bound past the library gets nothing where the process is refused" {
    local runtime
    runtime=$(sed -n 's/^CUDART_SONAME := //p' "$BUILD/cuda.mk")
    VGPU_MEMORY=nonsense run -0 --separate-stderr shim "$PROGRAMS/door_deepbind" 16 "$runtime"
    assert_equal "${lines[0]}" "3 3 0 3"
    assert_contains "$stderr" "VGPU_MEMORY"
}

@test "each of two runtimes in a process gets the calls of those that depend on it" {
    mkdir "$BATS_TEST_TMPDIR/old"
    ln -s "$PROGRAMS/libruntime_old.so" "$BATS_TEST_TMPDIR/old/libcudart.so.10.2"
    local path=$BATS_TEST_TMPDIR/old:$LD_LIBRARY_PATH new=$PROGRAMS/libplugin_new.so old=$PROGRAMS/libplugin_old.so
    LD_LIBRARY_PATH=$path run -0 --separate-stderr shim "$PROGRAMS/runtimes" "$new" "$old"
    assert_equal "${lines[*]}" "0 10202 0 10202"
    LD_LIBRARY_PATH=$path run -0 --separate-stderr shim "$PROGRAMS/runtimes" "$old" "$new"
    assert_equal "${lines[*]}" "10202 0 10202 0"
}

@test "a library loaded where one has been unloaded gets the runtime that it depends on itself" {
    mkdir "$BATS_TEST_TMPDIR/old"
    ln -s "$PROGRAMS/libruntime_old.so" "$BATS_TEST_TMPDIR/old/libcudart.so.10.2"
    local path=$BATS_TEST_TMPDIR/old:$LD_LIBRARY_PATH new=$PROGRAMS/libplugin_new.so old=$PROGRAMS/libplugin_old.so
    LD_LIBRARY_PATH=$path run -0 --separate-stderr shim "$PROGRAMS/runtime_reload" "$old" "$new" "$old" "$new"
    assert_equal "${lines[*]}" "10202 0 10202 0"
}

@test "an entry point of a hooked function that is newer than the hooks is warned of once, and handed out" {
    sim_only "needs a driver of the future"
    mkdir "$BATS_TEST_TMPDIR/newer"
    ln -s "$PROGRAMS/libcuda_newer.so" "$BATS_TEST_TMPDIR/newer/libcuda.so.1"
    LD_LIBRARY_PATH=$BATS_TEST_TMPDIR/newer run -1 --separate-stderr shim "$PROGRAMS/door_procaddress" 16
    assert_contains "$stderr" "entry point of cuMemAlloc that is not covered"
    assert_equal "$(grep -c 'not covered' <<<"$stderr")" 1
}

@test "a program that refers to the driver weakly and has none is told that there is no GPU" {
    run -0 --separate-stderr shim "$PROGRAMS/door_weak"
    assert_equal "$output" "100 500 35"
}

@test "NVML tells of the quota as the driver does, before the process attaches and afterwards" {
    run -0 --separate-stderr shim "$PROGRAMS/nvml_memory"
    assert_equal "${lines[0]}" "before: total 1024 free 1024 used 0, v2 total 1024 free 1024 used 0"
    local free=${lines[2]#driver: total 1024 free }
    assert_contains "${lines[1]}" "total 1024 free $free used $((1024 - free)), v2 total 1024 free $free used $((1024 - free))"
}

@test "threads that come at once all get the same hook" {
    run -0 --separate-stderr shim "$PROGRAMS/door_threads"
    assert_equal "$output" "1 $SHIM"
}

@test "another preloaded library that interposes the driver goes through the hooks, before this one and behind it" {
    local order
    for order in "$PROGRAMS/libnext.so:$SHIM" "$SHIM:$PROGRAMS/libnext.so"; do
        LD_PRELOAD=$order run -0 --separate-stderr "$PROGRAMS/door_direct" 16
        assert_equal "$output" "granted"
        LD_PRELOAD=$order run -0 --separate-stderr "$PROGRAMS/door_direct" 2048
        assert_equal "$output" "refused 2"
    done
    LD_PRELOAD=$PROGRAMS/libnext.so:$SHIM run -0 --separate-stderr "$PROGRAMS/door_direct" 16
    assert_contains "$stderr" "interposed"
}

@test "another preloaded library that interposes the runtime sees the calls once, before this one and behind it" {
    local order
    for order in "$PROGRAMS/libnext.so:$SHIM" "$SHIM:$PROGRAMS/libnext.so"; do
        LD_PRELOAD=$order run -0 --separate-stderr "$PROGRAMS/door_runtime" 16
        assert_equal "$output" "granted"
        assert_equal "$(grep -cx interposed <<<"$stderr")" 1
        LD_PRELOAD=$order run -0 --separate-stderr "$PROGRAMS/door_runtime" 2048
        assert_equal "$output" "refused 2"
    done
}

@test "another preloaded library that interposes only launches sees each once, before this one and behind it" {
    local order launches
    for order in "$PROGRAMS/liblaunches.so:$SHIM" "$SHIM:$PROGRAMS/liblaunches.so"; do
        LD_PRELOAD=$order run -0 --separate-stderr "$KERNELS/vectoradd" --seconds 0.2
        launches=$(sed -n 's/.* kernels=\([0-9]*\) .*/\1/p' <<<"$output")
        assert_contains "$output" "verified=yes"
        [[ $(sed -n 's/^interposed //p' <<<"$stderr") -eq $launches ]]
    done
}

@test "another preloaded library that interposes dlsym still gets to see the calls, and bypasses nothing" {
    local order
    for order in "$PROGRAMS/libdlsym.so:$SHIM" "$SHIM:$PROGRAMS/libdlsym.so"; do
        LD_PRELOAD=$order run -0 --separate-stderr "$PROGRAMS/door_dlsym" 2048
        assert_equal "$output" "refused 2"
        assert_contains "$stderr" "asked"
    done
}

@test "RTLD_NEXT means the caller's, before this library and behind it" {
    LD_PRELOAD=$PROGRAMS/libnext.so:$SHIM run -0 --separate-stderr "$PROGRAMS/next_caller"
    assert_equal "$output" "2"
    LD_PRELOAD=$SHIM:$PROGRAMS/libnext.so run -0 --separate-stderr "$PROGRAMS/next_caller"
    assert_equal "$output" "2"
}

@test "nothing is found that is not there, and dlerror says so" {
    local scope name
    for scope in default next main libc.so.6 "beside libcuda.so.1"; do
        for name in cuInit cuMemAlloc_v2 cuGetProcAddress cudaMalloc nvmlDeviceGetMemoryInfo; do
            same_lookup "$scope" "$name"
        done
    done
}

@test "look-ups of everything else end as without the library" {
    local scope name
    for scope in default next main libm.so.6; do
        for name in puts cos no_such_function cublasCreate_v2 curl_easy_init cu nvml; do
            same_lookup "$scope" "$name"
        done
    done
}

@test "versioned look-ups end as without the library" {
    local version
    version=$(objdump -T "$(ldconfig -p | sed -n 's/.*libc\.so\.6 .*=> //p' | head -n1)" |
        sed -n 's/.*(\(GLIBC_[0-9.]*\)) *puts$/\1/p; s/.*  \(GLIBC_[0-9.]*\) *puts$/\1/p' | head -n1)
    [ -n "$version" ]
    same_lookup default puts "$version"
    same_lookup next puts "$version"
    same_lookup default puts GLIBC_0.1
    same_lookup next cuInit GLIBC_0.1
    same_lookup default cudaMalloc libcudart.so.13
}

@test "a program built with a sanitizer meets its quota" {
    VGPU_MEMORY=2G VGPU_LOG=warn ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0:protect_shadow_gap=0 \
        run -0 --separate-stderr shim "$PROGRAMS/door_sanitized"
    assert_equal "$output" "total $((2 << 30))"
    assert_equal "$stderr" ""
}
