#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# What the build makes, what it rebuilds, and what the set-up scripts say when something is missing.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

setup_file() {
    # The library and the command once more: by the other compiler, in another folder.
    export OTHER=$BATS_FILE_TMPDIR/other
    make_in "$OTHER" -j2 CC=clang WERROR=1 "$OTHER/libvgpu_shim.so" "$OTHER/vgpu" >"$BATS_FILE_TMPDIR/other.log" 2>&1 || {
        cat "$BATS_FILE_TMPDIR/other.log" >&2
        return 1
    }
}

setup() {
    common_setup
    unset LD_LIBRARY_PATH # the tools below are the system's
    cd "$root" || return
}

teardown() { common_teardown; }

# make_in FOLDER ARGUMENTS...: the project's make with another build folder
make_in() {
    local folder=$1
    shift
    make -C "$root" BUILD="$folder" "$@"
}

@test "clang builds the library and the command without a warning, in any folder" {
    [ -e "$OTHER/libvgpu_shim.so" ]
    [ -x "$OTHER/vgpu" ]
    readelf -p .comment "$OTHER/libvgpu_shim.so" | grep -q clang
}

@test "the library needs nothing but the C library and exports exactly what the list says" {
    [ -e shim/exports.list ]
    run -0 scripts/check-elf.sh "$SHIM" shim/exports.list
    run -0 scripts/check-elf.sh "$OTHER/libvgpu_shim.so" shim/exports.list
}

@test "the check of the library refuses one that needs libcuda" {
    echo 'int cuInit(unsigned); int f(void) { return cuInit(0); }' >"$BATS_TEST_TMPDIR/f.c"
    gcc -shared -fPIC -Wl,-z,now -o "$BATS_TEST_TMPDIR/f.so" "$BATS_TEST_TMPDIR/f.c" -L"$BUILD/stubs" -lcuda
    run -1 scripts/check-elf.sh "$BATS_TEST_TMPDIR/f.so"
    assert_contains "$output" "needs libcuda.so.1"
}

@test "the check of the library refuses an export that is not listed and a listed one that is missing" {
    echo 'int extra(void) { return 0; }' >"$BATS_TEST_TMPDIR/f.c"
    echo 'missing # a listed function' >"$BATS_TEST_TMPDIR/list"
    gcc -shared -fPIC -Wl,-z,now -o "$BATS_TEST_TMPDIR/f.so" "$BATS_TEST_TMPDIR/f.c"
    run -1 scripts/check-elf.sh "$BATS_TEST_TMPDIR/f.so" "$BATS_TEST_TMPDIR/list"
    assert_contains "$output" "< missing"
    assert_contains "$output" "> extra"
}

@test "a second make finds nothing to do" {
    run -0 make_in "$OTHER" -q CC=clang WERROR=1 "$OTHER/libvgpu_shim.so" "$OTHER/vgpu"
}

@test "the user's CFLAGS and CPPFLAGS reach the compiler beside what the build needs" {
    local b=$BATS_TEST_TMPDIR/b
    run -0 make_in "$b" V=1 CFLAGS=-O1 CPPFLAGS=-DUSER=1 "$b/obj/plain/base/log.o"
    assert_contains "$output" " -O1 "
    assert_contains "$output" " -DUSER=1 "
    assert_contains "$output" " -fvisibility=hidden "
    refute_contains "$output" "-O2"
}

@test "other flags make everything again, the same flags nothing" {
    local b=$BATS_TEST_TMPDIR/b
    make_in "$b" "$b/obj/plain/base/log.o"
    run -0 make_in "$b" "$b/obj/plain/base/log.o"
    assert_contains "$output" "up to date"
    run -0 make_in "$b" CFLAGS=-O1 "$b/obj/plain/base/log.o"
    assert_contains "$output" "base/log.c"
}

@test "warnings as errors make nothing again" {
    local b=$BATS_TEST_TMPDIR/b
    make_in "$b" WERROR=0 "$b/obj/plain/base/log.o"
    run -0 make_in "$b" WERROR=1 -q "$b/obj/plain/base/log.o"
}

@test "install puts the library, the command, header and man pages under DESTDIR, and uninstall takes them away" {
    local dest=$BATS_TEST_TMPDIR/dest
    make_in "$OTHER" CC=clang WERROR=1 DESTDIR="$dest" prefix=/opt/vgpu install
    run -0 find "$dest" -type f -printf '%P %m\n'
    assert_contains "$output" "opt/vgpu/lib/libvgpu_shim.so 644"
    assert_contains "$output" "opt/vgpu/bin/vgpu 755"
    assert_contains "$output" "opt/vgpu/include/vgpu.h 644"
    assert_contains "$output" "opt/vgpu/lib/libvgpu.so.0 644"
    assert_contains "$output" "opt/vgpu/lib/pkgconfig/vgpu.pc 644"
    if compgen -G 'docs/*.1.scd' >/dev/null; then assert_contains "$output" "opt/vgpu/share/man/man1/"; fi
    grep -qaF /opt/vgpu/lib/libvgpu_shim.so "$dest/opt/vgpu/bin/vgpu"
    make_in "$OTHER" DESTDIR="$dest" prefix=/opt/vgpu uninstall
    run -0 find "$dest" -type f -o -type l
    assert_equal "$output" ""
}

@test "a program is built with what the installed pkg-config file says, and runs" {
    local dest=$BATS_TEST_TMPDIR/dest
    make_in "$OTHER" CC=clang WERROR=1 prefix="$dest" install
    export PKG_CONFIG_PATH=$dest/lib/pkgconfig
    run -0 pkg-config --modversion vgpu
    grep -qF "\"$output\"" base/version.h
    # shellcheck disable=SC2046 # several words are meant
    gcc -o "$BATS_TEST_TMPDIR/two" examples/two_instances.c $(pkg-config --cflags --libs vgpu)
    LD_LIBRARY_PATH=$dest/lib:$BUILD/simgpu run -0 "$BATS_TEST_TMPDIR/two"
    assert_contains "$output" "heavy: weight 300, 20 tasks, last byte 42"
}

@test "clean removes the build folder and nothing else" {
    local b=$BATS_TEST_TMPDIR/b
    make_in "$b" "$b/obj/plain/base/log.o"
    make_in "$b" clean
    [ ! -e "$b" ]
    [ -e base/log.c ]
}

@test "the simulated libraries carry the names that programs ask for" {
    local name
    for name in libcuda.so.1 libnvidia-ml.so.1 "$(sed -n 's/^CUDART_SONAME := //p' "$BUILD/cuda.mk")"; do
        readelf -d "$BUILD/simgpu/$name" | grep -qF "soname: [$name]"
    done
}

@test "a CUDA program is built with the shared and with the static runtime, and neither needs this project" {
    run -0 --separate-stderr readelf -d "$BUILD/kernels/vectoradd"
    assert_contains "$output" "[libcudart.so."
    refute_contains "$output" vgpu
    run -0 --separate-stderr readelf -d "$BUILD/kernels-static/vectoradd"
    refute_contains "$output" "[libcudart.so."
    refute_contains "$output" vgpu
}

# A copy of the set-up alone, so that a toolkit fetched into this tree does not count.
bare_tree() {
    mkdir -p "$BATS_TEST_TMPDIR/tree"
    cp -r Makefile scripts "$BATS_TEST_TMPDIR/tree/"
    cd "$BATS_TEST_TMPDIR/tree" || return
}

@test "without a CUDA Toolkit make says in one line what to do" {
    bare_tree
    VGPU_IGNORE_TOOLKIT=1 run -2 --separate-stderr make
    assert_contains "${stderr_lines[0]}" "no usable CUDA Toolkit of 11.8 or newer"
    assert_contains "${stderr_lines[0]}" "run scripts/deps.sh"
}

@test "help and clean work without a CUDA Toolkit" {
    bare_tree
    VGPU_IGNORE_TOOLKIT=1 run -0 make help
    assert_contains "$output" "test-gpu"
    VGPU_IGNORE_TOOLKIT=1 run -0 make clean
}

@test "a toolkit that is too old is passed over" {
    bare_tree
    mkdir -p old/bin
    printf '#!/bin/sh\necho "Cuda compilation tools, release 11.4, V11.4.1"\n' >old/bin/nvcc
    chmod +x old/bin/nvcc
    CUDA_HOME=$PWD/old run --separate-stderr scripts/cuda.sh home
    refute_contains "$output" "$PWD/old"
    [ "$status" -eq 0 ] || assert_contains "$stderr" "CUDA 11.4 is older than 11.8"
}

@test "set-up is silent where nothing is missing" {
    run -0 scripts/deps.sh test
    assert_equal "$output" ""
}

@test "set-up without root prints one command with what is missing" {
    local program
    bare_tree
    mkdir bin
    for program in bash dirname env cat sed awk grep sort head uname readlink readelf python3 gcc g++ make; do
        ln -s "$(command -v "$program")" bin/
    done
    printf '#!/bin/sh\necho 1000\n' >bin/id
    printf '#!/bin/sh\nexit 1\n' >bin/apt-get
    chmod +x bin/id bin/apt-get
    run -1 --separate-stderr env PATH="$PWD/bin" scripts/deps.sh build
    assert_contains "$output" "missing: scdoc (man pages)"
    assert_contains "$stderr" "sudo apt-get install -y --no-install-recommends "
    assert_contains "$stderr" " scdoc"
}
