#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# One source for every CUDA since 11.8 and one binary for every runtime and every glibc. The headers and runtimes are NVIDIA's, from PyPI:
# scripts/cuda.sh keeps them in .cuda/, and a test that cannot have them fails.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=1G
    cd "$root" || return
}

teardown() { common_teardown; }

# of_cuda VERSION: sets cuda to the folder of that version's headers and runtime, and runtime to the runtime's soname
of_cuda() {
    cuda=$(scripts/cuda.sh runtime "$1")
    runtime=$(basename "$cuda"/lib/libcudart.so.*)
}

# The toolkit's folder has one header that NVIDIA counts among the compiler's and that the runtime's headers need.
compiler_headers() {
    mkdir -p "$BATS_TEST_TMPDIR/compiler"
    ln -sfn "$(sed -n 's/^CUDA_INC := //p' "$BUILD/cuda.mk")/crt" "$BATS_TEST_TMPDIR/compiler/crt"
    echo "$BATS_TEST_TMPDIR/compiler"
}

# builds_with VERSION: the library and the command, from nothing; what comes out is a library like any other
builds_with() {
    sim_only "a matter of headers"
    local b=$BATS_TEST_TMPDIR/b door
    of_cuda "$1"
    # The simulated GPU is built with the toolkit: a path on the command line reaches no simgpu/ object that these targets need.
    run -0 --separate-stderr env -u LD_LIBRARY_PATH make -j2 BUILD="$b" WERROR=1 CUDA_INC="$cuda/include" \
        CPPFLAGS="-isystem $(compiler_headers)" "$b/libvgpu_shim.so" "$b/vgpu"
    assert_equal "$stderr" ""
    run -0 "$b/vgpu" version
    assert_equal "$(exports "$b/libvgpu_shim.so")" "$(exports "$SHIM")"
    for door in door_direct door_dlsym door_procaddress; do
        LD_PRELOAD=$b/libvgpu_shim.so run -0 --separate-stderr "$PROGRAMS/$door" 16
        assert_equal "$output" "granted"
        LD_PRELOAD=$b/libvgpu_shim.so run -0 --separate-stderr "$PROGRAMS/$door" 2048
        assert_equal "$output" "refused 2"
    done
}

exports() {
    nm --dynamic --defined-only "$1" | awk '{ print $2, $3 }'
}

# program_of VERSION: a program made with that version's headers and runtime, as `program`
program_of() {
    of_cuda "$1"
    program=$BATS_TEST_TMPDIR/program-$1
    gcc -x c -I"$cuda/include" -I"$(compiler_headers)" -o "$program" tests/programs/door_runtime.cu -x none "$cuda/lib/$runtime"
    objdump -T "$program" | grep -qE "\($runtime\) *cudaMalloc\$" # what it asks for has its runtime's version
}

# The simulated runtime under the name of another version; programs that keep to functions that all versions have alike cannot tell.
simulate_runtime() {
    local folder=$BATS_TEST_TMPDIR/$1
    mkdir -p "$folder"
    echo "$1 { global: cuda*; __cuda*; local: *; };" >"$folder/map"
    gcc -shared -Wl,-Bsymbolic -Wl,-soname,"$1" -Wl,--version-script="$folder/map" -o "$folder/$1" \
        "$BUILD"/obj/plain/simgpu/runtime/*.o
    echo "$folder"
}

# runs_with VERSION: its programs meet their quota under the one library; on a real GPU with NVIDIA's own runtime
runs_with() {
    local path
    program_of "$1"
    if real_gpu; then path=$cuda/lib; else path=$(simulate_runtime "$runtime"); fi
    path=$path:$LD_LIBRARY_PATH
    LD_LIBRARY_PATH=$path run -0 --separate-stderr shim "$program" 16
    assert_equal "$output" "granted"
    assert_contains "$stderr" "quota 1.00 GiB"
    LD_LIBRARY_PATH=$path run -0 --separate-stderr shim "$program" 2048
    assert_equal "$output" "refused 2"
    LD_LIBRARY_PATH=$path run -0 --separate-stderr "$program" 2048
    assert_equal "$output" "granted"
}

@test "the library and the command build against CUDA 11.8 without a warning, and have the same hooks" {
    builds_with 11.8
}

@test "the library and the command build against CUDA 12.0 without a warning, and have the same hooks" {
    builds_with 12.0
}

@test "the library and the command build against CUDA 12.4 without a warning, and have the same hooks" {
    builds_with 12.4
}

@test "the library and the command build against CUDA 12.9 without a warning, and have the same hooks" {
    builds_with 12.9
}

@test "the library and the command build against CUDA 13.0 without a warning, and have the same hooks" {
    builds_with 13.0
}

@test "a program of CUDA 11.8 meets its quota" {
    runs_with 11.8
}

@test "a program of CUDA 12.0 meets its quota" {
    runs_with 12.0
}

@test "a program of CUDA 12.4 meets its quota" {
    runs_with 12.4
}

@test "a program of CUDA 12.9 meets its quota" {
    runs_with 12.9
}

@test "a program of CUDA 13.0 meets its quota" {
    runs_with 13.0
}

@test "NVIDIA's own runtimes, which do not start on a simulated driver, say the same with the library" {
    sim_only
    local version
    for version in 11.8 12.0 12.4 12.9 13.0; do
        program_of "$version"
        LD_LIBRARY_PATH=$cuda/lib:$LD_LIBRARY_PATH run --separate-stderr "$program" 16
        local said="$status $output"
        LD_LIBRARY_PATH=$cuda/lib:$LD_LIBRARY_PATH run --separate-stderr shim "$program" 16
        assert_equal "$status $output" "$said"
    done
}

@test "a version that cannot be fetched is said in one line" {
    mkdir -p "$BATS_TEST_TMPDIR/tree"
    cp -r scripts "$BATS_TEST_TMPDIR/tree/"
    cd "$BATS_TEST_TMPDIR/tree"
    PIP_INDEX_URL=http://127.0.0.1:9/ PIP_FIND_LINKS='' PIP_RETRIES=0 run -1 --separate-stderr scripts/cuda.sh runtime 12.4
    assert_equal "$output" ""
    assert_equal "${stderr_lines[-1]}" "could not fetch nvidia-cuda-runtime-cu12==12.4.127, the headers and the runtime of CUDA 12.4, from PyPI (is this machine online?)"
    run -2 --separate-stderr scripts/cuda.sh runtime 9.9
    assert_equal "$stderr" "scripts/cuda-runtimes.txt has no CUDA 9.9"
}

@test "the library and the command start on glibc 2.31, whatever they were built with" {
    local file newer
    for file in "$SHIM" "$VGPU"; do
        newer=$(objdump -T "$file" | sed -nE 's/.*\(?GLIBC_([0-9.]+)\)? +([^ ]+)$/\1 \2/p' |
            awk '{ split($1, v, "."); if (v[1] > 2 || v[2] > 31) print $2 " of glibc " $1 }')
        assert_equal "$newer" ""
        # Where glibc is older than 2.34, threads and dlopen are in libraries of their own.
        run -0 readelf -dW "$file"
        assert_contains "$output" "[libpthread.so.0]"
        assert_contains "$output" "[libdl.so.2]"
    done
}
