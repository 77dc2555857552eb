#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Every function that the driver and the CUDA runtime export is either hooked or passed through for a reason.
bats_require_minimum_version 1.5.0
load helper

setup() { common_setup; }

teardown() { common_teardown; }

# rows MACRO... : the names that rows of these kinds have in the two tables, one a line
rows() {
    local macro
    {
        for macro; do printf '#define %s(...) ROW(__VA_ARGS__)\n' "$macro"; done
        printf '#include "shim/hooks.def"\n#include "shim/passthrough.def"\n'
    } | cc -E -P -I "$root" -x c - | grep -oE 'ROW\([^)]*\)' | sed -E 's/ROW\((.*)\)/\1/; s/ //g' | awk -F, '{print $NF}' | sort
}

# exported LIBRARY: the names of its functions
exported() {
    nm -D --defined-only "$1" | awk '$2 ~ /^[TWi]$/ { sub(/@.*/, "", $3); print $3 }' | sort -u
}

classified() { # FILE with names: those that no table names
    local families
    families=$(rows PASS_FAMILY | sed 's/^/^/' | paste -sd'|')
    comm -13 <({ rows PASS && hooked; } | sort -u) "$1" | grep -vE "$families" || true
}

# What a TWIN is called stands first, after it its base.
hooked() {
    {
        printf '#define %s(name) ROW(name)\n' DRIVER_HOOK RUNTIME_HOOK NVML_HOOK
        printf '#include "shim/hooks.def"\n'
    } | cc -E -P -I "$root" -x c - | grep -oE 'ROW\([^)]*\)' | sed -E 's/ROW\((.*)\)/\1/' | sort
}

all_classified() { # LIBRARY LEAST
    exported "$1" | grep -v '^_' >"$BATS_TEST_TMPDIR/names"
    [[ $(wc -l <"$BATS_TEST_TMPDIR/names") -ge $2 ]]
    assert_equal "$(classified "$BATS_TEST_TMPDIR/names")" ""
}

driver_library() {
    ldconfig -p | sed -n 's/.*libcuda\.so\.1 .*x86-64.* => //p; s/.*libcuda\.so\.1 .*AArch64.* => //p' | head -n1
}

runtime_library() {
    sed -n 's/^CUDA_LIB := //p' "$BUILD/cuda.mk"
}

@test "every function of the toolkit's driver is in one of the tables" {
    all_classified "$BUILD/stubs/libcuda.so" 500
}

@test "every function of the driver that runs is in one of the tables" {
    if real_gpu; then
        all_classified "$(driver_library)" 500
    else
        all_classified "$BUILD/simgpu/libcuda.so.1" 500
    fi
}

@test "every function of the toolkit's runtime is in one of the tables" {
    local library
    library=$(compgen -G "$(runtime_library)/libcudart.so.1?" | head -n1)
    [[ -n $library ]]
    all_classified "$library" 300
}

@test "no function is in two tables, or twice in one" {
    assert_equal "$({ rows PASS && hooked; } | sort | uniq -d)" ""
}

@test "no table names a function that the newest toolkit does not know" {
    local include version
    version=$(sed -n 's/^CUDA_VERSION := //p' "$BUILD/cuda.mk")
    [[ $(printf '%s\n' 13.0 "$version" | sort -V | head -n1) == 13.0 ]] || skip "needs the toolkit that the tables were written for"
    include=$(sed -n 's/^CUDA_INC := //p' "$BUILD/cuda.mk")
    # The functions for graphics libraries are in headers of their own, which need those libraries' headers to be compiled.
    {
        exported "$BUILD/stubs/libcuda.so"
        exported "$(compgen -G "$(runtime_library)/libcudart.so.1?" | head -n1)"
        grep -hoE '\bcu(GL|VDPAU)[A-Za-z0-9_]+' "$include"/cuda{GL,VDPAU}.h
        # In the runtimes of CUDA 12 only.
        printf "%s\n" cudaGetDeviceProperties_v2 cudaLaunchCooperativeKernelMultiDevice
        # In the drivers (580) only.
        printf "%s\n" cuMemGetAttribute cuMemGetAttribute_v2
    } | sort -u >"$BATS_TEST_TMPDIR/known"
    assert_equal "$({ rows PASS && hooked; } | grep -v '^nvml' | sort -u | comm -23 - "$BATS_TEST_TMPDIR/known")" ""
}

@test "a driver's functions that no table knows are reported once, in one line" {
    sim_only "needs a driver of the future"
    mkdir "$BATS_TEST_TMPDIR/future"
    ln -s "$PROGRAMS/libcuda_future.so" "$BATS_TEST_TMPDIR/future/libcuda.so.1"
    VGPU_LOG=warn LD_LIBRARY_PATH=$BATS_TEST_TMPDIR/future run --separate-stderr shim "$PROGRAMS/attach_try"
    assert_contains "$stderr" "exports 2 functions that this version does not know"
    assert_contains "$stderr" " cuFutureAlloc"
    assert_contains "$stderr" " cuFutureLaunch"
    assert_equal "$(grep -c "does not know" <<<"$stderr")" 1
}

@test "a driver that the tables know is not reported" {
    VGPU_LOG=warn run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    refute_contains "$stderr" "does not know"
}
