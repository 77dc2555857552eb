#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The library, its unit tests and the simulated driver built for aarch64, and run by an emulator. What emulation does not show is timing,
# memory order, and what a forked child inherits.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

setup_file() {
    [[ $(uname -m) == x86_64 ]] || skip "this machine is no x86-64 and needs no emulator"
    export ARM=$BATS_FILE_TMPDIR/arm
    # Headers that are the same for all machines; the compiler for another one does not look where they are.
    mkdir "$BATS_FILE_TMPDIR/include"
    ln -s /usr/include/uthash.h /usr/include/cjson "$BATS_FILE_TMPDIR/include/"
    local name targets=("$ARM/libvgpu_shim.so" "$ARM/simgpu/libcuda.so.1" "$ARM/tests/programs/libnext.so")
    for name in lookup next_caller door_direct door_dlsym door_default door_procaddress; do
        targets+=("$ARM/tests/programs/$name")
    done
    for name in $(unit_tests); do
        targets+=("$ARM/tests/unit/$name")
    done
    # The command is compiled and not linked: it would need an aarch64 cJSON.
    for name in "$root"/tools/*.c; do
        targets+=("$ARM/obj/plain/tools/$(basename "$name" .c).o")
    done
    make -C "$root" -j2 BUILD="$ARM" CC=aarch64-linux-gnu-gcc CPPFLAGS="-isystem $BATS_FILE_TMPDIR/include" WERROR=1 "${targets[@]}" \
        >"$BATS_FILE_TMPDIR/log" 2>&1 || {
        cat "$BATS_FILE_TMPDIR/log" >&2
        return 1
    }
}

setup() {
    common_setup
    unset LD_LIBRARY_PATH
    export VGPU_MEMORY=1G
    cd "$root" || return
}

teardown() { common_teardown; }

# The emulator has no ptrace, by which some step through another process, and ignores MADV_DONTFORK, which liveness rests on; and what
# measures time would measure the emulator.
unit_tests() {
    (cd "$root/tests/unit" && grep -L 'step\.h' test_*.c | sed 's/\.c$//' | grep -vxE 'test_(liveness|scheduler)')
}

# emulate PROGRAM [ARGUMENT...]: by the aarch64 C library and with the simulated driver
emulate() {
    qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$ARM/simgpu" "$@"
}

# emulate_shim PROGRAM [ARGUMENT...]: the same, under the library
emulate_shim() {
    emulate -E LD_PRELOAD="$ARM/libvgpu_shim.so" "$@"
}

@test "the library is aarch64's and starts on glibc 2.31" {
    run -0 readelf -hW "$ARM/libvgpu_shim.so"
    assert_contains "$output" "AArch64"
    run -0 bash -c '{ readelf -VW "$ARM/libvgpu_shim.so" | grep -oE "GLIBC_[0-9.]+"; echo GLIBC_2.31; } | sort -Vu | tail -n1'
    assert_equal "$output" "GLIBC_2.31"
    run -0 scripts/check-elf.sh "$ARM/libvgpu_shim.so" shim/exports.list
}

@test "the unit tests pass on aarch64" {
    local name
    for name in $(unit_tests); do
        run -0 --separate-stderr emulate "$ARM/tests/unit/$name"
        refute_contains "$output" "not ok"
        assert_contains "$output" "1.."
    done
}

@test "on aarch64 every way to a driver function leads to the hooks" {
    local door
    for door in door_direct door_dlsym door_default "door_default - next" "door_default - main" door_procaddress \
        "door_procaddress - v1" "door_procaddress - ptsz"; do
        read -r door _ how <<<"$door"
        # shellcheck disable=SC2086 # how is one word or none
        run -0 --separate-stderr emulate_shim "$ARM/tests/programs/$door" 16 $how
        assert_equal "$output" "granted"
        # shellcheck disable=SC2086
        run -0 --separate-stderr emulate_shim "$ARM/tests/programs/$door" 2048 $how
        assert_equal "$output" "refused 2"
    done
}

@test "on aarch64 look-ups of everything else end as without the library" {
    local scope name plain
    for scope in default next main libm.so.6; do
        for name in puts cos no_such_function cuInit; do
            plain=$(emulate "$ARM/tests/programs/lookup" "$scope" "$name")
            run -0 --separate-stderr emulate_shim "$ARM/tests/programs/lookup" "$scope" "$name"
            assert_equal "$output" "$plain"
        done
    done
}

@test "on aarch64 RTLD_NEXT means the caller's, before the library and behind it" {
    local next=$ARM/tests/programs/libnext.so
    run -0 --separate-stderr emulate -E LD_PRELOAD="$next:$ARM/libvgpu_shim.so" "$ARM/tests/programs/next_caller"
    assert_equal "$output" "2"
    run -0 --separate-stderr emulate -E LD_PRELOAD="$ARM/libvgpu_shim.so:$next" "$ARM/tests/programs/next_caller"
    assert_equal "$output" "2"
}
