#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# vgpu doctor: finds what is wrong, says what to do, and changes nothing.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    # Where the machine that runs the tests has these, the daemon's state is not what is tested.
    export CUDA_MPS_PIPE_DIRECTORY=$BATS_TEST_TMPDIR/mps
}

teardown() { common_teardown; }

# finds STATUS CHECK PART...: a line of the output says so
finds() {
    local part lines
    lines=$(grep "^$1 *$2: " <<<"$output") || {
        printf 'no line %s %s in:\n%s\n' "$1" "$2" "$output" >&2
        return 1
    }
    for part in "${@:3}"; do
        assert_contains "$lines" "$part"
    done
}

# odd WHAT: doctor on a driver with that one thing wrong
odd() {
    mkdir -p "$BATS_TEST_TMPDIR/odd"
    ln -sf "$PROGRAMS/libcuda_odd.so" "$BATS_TEST_TMPDIR/odd/libcuda.so.1"
    ln -sf "$PROGRAMS/libcuda_odd.so" "$BATS_TEST_TMPDIR/odd/libnvidia-ml.so.1"
    ODD_DRIVER=$1 LD_LIBRARY_PATH=$BATS_TEST_TMPDIR/odd:$LD_LIBRARY_PATH run -1 --separate-stderr "$VGPU" doctor
    assert_equal "$stderr" ""
}

finds_dead() {
    run -0 --separate-stderr "$VGPU" doctor
    finds ok pool "used by 0 programs" "takes back what dead ones left"
}

no_folder() {
    ! compgen -G "/dev/shm/vgpu-doctor.*"
}

@test "a machine in order passes, and every door leads to the library" {
    local door
    run -0 --separate-stderr "$VGPU" doctor
    assert_equal "$stderr" ""
    refute_contains "$output" "FAIL"
    finds ok driver "CUDA 1"
    finds ok gpu "0: "
    finds ok pool "$VGPU_POOL does not exist yet"
    finds ok library "$SHIM"
    finds ok start "gets its GPUs"
    finds ok coverage " functions "
    for door in "a direct link" "dlsym with RTLD_DEFAULT" "dlsym with RTLD_NEXT" "dlsym with a handle" cuGetProcAddress \
        cuGetProcAddress_v2 cudaGetDriverEntryPoint; do
        finds ok door "$door leads to the library"
    done
    finds ok door "dlvsym"
}

@test "nothing is left behind, no pool and no folder of the doctor's own" {
    run -0 "$VGPU" doctor
    [ ! -e "$VGPU_POOL" ]
    wait_until no_folder # of nobody who runs at the same time either
}

@test "every line begins with ok, warn or FAIL and the name of a check" {
    run -0 --separate-stderr "$VGPU" doctor
    run -1 grep -vE '^(ok  |warn|FAIL)  [a-z ]+: .+$' <<<"$output"
}

@test "as JSON it says the same" {
    local text
    text=$(VGPU_MEMORY=lots "$VGPU" doctor) || true
    VGPU_MEMORY=lots run -1 --separate-stderr "$VGPU" doctor --json
    assert_equal "$(jq -r '.checks[] | "\(.status) \(.check): \(.text)"' <<<"$output")" "$(sed -E 's/^(ok|warn|FAIL) +/\1 /' <<<"$text")"
    jq -e '.status == "FAIL" and (.version | test("^[0-9.]+$"))' <<<"$output"
}

@test "a machine without a driver is told to install one" {
    if ldconfig -p | grep -q 'libcuda\.so\.1'; then skip "needs a machine without a driver"; fi
    LD_LIBRARY_PATH='' run -1 --separate-stderr "$VGPU" doctor
    finds FAIL driver "libcuda.so.1" "install NVIDIA's driver"
    finds warn door "without a driver"
}

@test "a machine without a GPU is told where it may have gone" {
    sim_only
    SIMGPU_DEVICES=0 run -1 --separate-stderr "$VGPU" doctor
    finds FAIL gpu "no GPU is visible" "CUDA_VISIBLE_DEVICES"
}

@test "a driver that crashes is a finding, with the last that it said" {
    odd crash
    finds FAIL driver "crashed after 'driver'" "about to fall over"
    finds ok library "$SHIM"
}

@test "a driver that is too old, or does not fit its kernel module, is told" {
    odd old
    finds FAIL driver "CUDA 11.4" "11.8 is the oldest" "install a newer driver"
    odd mismatch
    finds FAIL gpu "different versions" "restart"
}

@test "a GPU for one program at a time, and more GPUs than are supported, are told with the remedy" {
    odd exclusive
    finds FAIL "compute mode" "one program at a time" "nvidia-smi -i 0 -c DEFAULT"
    odd many
    finds FAIL gpu "17 are visible" "CUDA_VISIBLE_DEVICES"
}

@test "a GPU that falls asleep between programs, and one that is divided, are told" {
    odd sleepy
    finds ok nvml "driver 1.2.3"
    finds warn persistence "off for GPU 0" "nvidia-smi -pm 1"
    refute_contains "$output" " mig: "
    odd divided
    finds warn mig "on for GPU 0"
    refute_contains "$output" " persistence: "
}

@test "functions of a driver that are newer than the tables are named" {
    odd none
    finds warn coverage "1 of the driver's 8 functions are newer than this version" "not limited: cuFutureAlloc"
}

@test "the C library, the toolkit at hand and the container are told" {
    run -0 --separate-stderr "$VGPU" doctor
    finds ok system "glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2), Linux $(uname -r), $(uname -m)"
    mkdir -p "$BATS_TEST_TMPDIR/toolkit/include"
    echo '#define CUDA_VERSION 12040' >"$BATS_TEST_TMPDIR/toolkit/include/cuda.h"
    CUDA_HOME=$BATS_TEST_TMPDIR/toolkit KUBERNETES_SERVICE_HOST=here run -0 --separate-stderr "$VGPU" doctor
    finds ok toolkit "CUDA 12.4 in $BATS_TEST_TMPDIR/toolkit"
    finds ok container "the same pool" "VGPU_POOL"
}

@test "a door that leads past the library is found" {
    sim_only "needs a driver of the future"
    mkdir "$BATS_TEST_TMPDIR/newer"
    ln -s "$PROGRAMS/libcuda_newer.so" "$BATS_TEST_TMPDIR/newer/libcuda.so.1"
    LD_LIBRARY_PATH=$BATS_TEST_TMPDIR/newer run -1 --separate-stderr "$VGPU" doctor
    finds FAIL driver "has no cuDriverGetVersion"
    finds FAIL door "cuGetProcAddress_v2 leads past the library" "newer/libcuda.so.1"
    finds ok door "dlsym with a handle leads to the library"
}

@test "a library that is missing, or that the loader does not take, is told" {
    cp "$VGPU" "$BATS_TEST_TMPDIR/vgpu"
    run -1 --separate-stderr "$BATS_TEST_TMPDIR/vgpu" doctor
    finds FAIL library "cannot find libvgpu_shim.so"
    echo nonsense >"$BATS_TEST_TMPDIR/libvgpu_shim.so"
    run -1 --separate-stderr "$BATS_TEST_TMPDIR/vgpu" doctor
    finds FAIL door "not preloaded"
}

@test "options that are not understood, misspelt or another tool's are told; none of them confuses the other checks" {
    VGPU_MEMORY=lots run -1 --separate-stderr "$VGPU" doctor
    finds FAIL options "VGPU_MEMORY=lots is not understood"
    finds ok start
    VGPU_MEMROY=8G run -0 --separate-stderr "$VGPU" doctor
    finds warn options "VGPU_MEMROY is not an option"
    CUDA_DEVICE_MEMORY_LIMIT=1g run -0 --separate-stderr "$VGPU" doctor
    finds ok options "CUDA_DEVICE_MEMORY_LIMIT=1g is taken as VGPU_MEMORY"
    CUDA_DEVICE_SM_LIMIT=lots run -1 --separate-stderr "$VGPU" doctor
    finds FAIL options "CUDA_DEVICE_SM_LIMIT=lots is not understood"
    finds ok start
    VGPU_REQUIRE_QUOTA=1 run -1 --separate-stderr "$VGPU" doctor
    finds FAIL options "VGPU_REQUIRE_QUOTA=1 and no VGPU_MEMORY"
}

@test "a pool in use is described, with the programs that live and what dead ones left" {
    spawn_shim "$PROGRAMS/attach_try" keep
    wait_until file_has "$out" "cuInit 0"
    run -0 --separate-stderr "$VGPU" doctor
    finds ok pool "$VGPU_POOL of user $(id -u), mode 0600, layout version" "used by 1 program"
    refute_contains "$output" "dead ones"
    kill -KILL "$pid"
    # The driver's threads of a killed program may end a while after its first.
    wait_until finds_dead
}

@test "a pool of another layout, one open to all and a file that is none are told with the remedy" {
    run -0 shim "$PROGRAMS/attach_try"
    chmod 666 "$VGPU_POOL"
    run -1 --separate-stderr "$VGPU" doctor
    finds FAIL pool "open to all users" "chmod o-rw"
    chmod 600 "$VGPU_POOL"
    printf '\377' | dd of="$VGPU_POOL" bs=1 seek=8 conv=notrunc status=none
    run -1 --separate-stderr "$VGPU" doctor
    finds FAIL pool "layout version 255" "remove it"
    head -c 4096 /dev/zero >"$VGPU_POOL"
    run -1 --separate-stderr "$VGPU" doctor
    finds FAIL pool "is not a pool"
}

@test "a pool that this user may not read, and a place where none can be made, are told" {
    [[ $(id -u) -eq 0 ]] || skip "needs root, to be somebody else"
    local folder
    folder=$(mktemp -d /dev/shm/vgpu-test.XXXXXX)
    chmod 755 "$folder"
    VGPU_POOL=$folder/pool run -0 shim "$PROGRAMS/attach_try"
    cp "$VGPU" "$SHIM" "$folder/"
    VGPU_POOL=$folder/pool SIMGPU_STATE=/dev/shm/vgpu-test.$$ run --separate-stderr \
        setpriv --reuid=65534 --clear-groups "$folder/vgpu" doctor
    local first=$output
    VGPU_POOL=$folder/none SIMGPU_STATE=/dev/shm/vgpu-test.$$ run --separate-stderr \
        setpriv --reuid=65534 --clear-groups "$folder/vgpu" doctor
    rm -rf "$folder" "/dev/shm/vgpu-test.$$"
    finds FAIL pool "$folder/none cannot be created: Permission denied"
    output=$first
    finds FAIL pool "cannot open the pool $folder/pool: Permission denied: set VGPU_POOL to a path of your own"
}

@test "where /dev/shm cannot be written, the doors are tried in a pool elsewhere" {
    unshare -m true 2>/dev/null || skip "needs root, to hide /dev/shm"
    run -0 --separate-stderr unshare -m sh -c 'mount -t tmpfs -o ro none /dev/shm && exec "$@"' sh "$VGPU" doctor
    finds ok driver "CUDA 1"
    finds ok start "gets its GPUs"
    run ! compgen -G "/tmp/vgpu-doctor.*"
}

@test "where a program under the library cannot start, the library's own words are told" {
    unshare -m true 2>/dev/null || skip "needs root, to make /dev/shm small"
    run -1 --separate-stderr unshare -m sh -c 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"' sh "$VGPU" doctor
    finds ok driver "CUDA 1"
    finds FAIL start "error 802 from cuInit" "cannot fill the new pool /dev/shm/vgpu-doctor." "No space left on device"
}

@test "a machine without /proc is told what that prevents, and to mount it" {
    sim_only "a real driver wants /proc for itself"
    unshare -m true 2>/dev/null || skip "needs root, to hide /proc"
    local hidden=(unshare -m sh -c 'mount -t tmpfs none /proc && exec "$@"' sh "$VGPU")
    run -1 --separate-stderr "${hidden[@]}" doctor
    finds FAIL driver "cannot be checked" "/proc must be mounted"
    finds FAIL pool "$VGPU_POOL cannot be created" "/proc must be mounted"
    finds FAIL library "/proc must be mounted"
    run -125 --separate-stderr "${hidden[@]}" run true
    assert_contains "$stderr" "the program was not started" "/proc must be mounted"
}

@test "a folder without a pool and without a place for one is told" {
    VGPU_POOL=$BATS_TEST_TMPDIR/nowhere/pool run -1 --separate-stderr "$VGPU" doctor
    finds FAIL pool "nowhere/pool cannot be created: No such file or directory" "its directory must exist"
}

@test "a pool whose lock is kept by a stopped program is told" {
    run -0 shim "$PROGRAMS/attach_try"
    spawn python3 -c "
import fcntl, time
file = open('$VGPU_POOL', 'r+b')
fcntl.lockf(file, fcntl.LOCK_EX, 1, 1 << 40)
print('locked', flush=True)
time.sleep(600)"
    wait_until file_has "$out" locked
    run -1 --separate-stderr "$VGPU" doctor
    finds FAIL pool "cannot lock the pool $VGPU_POOL" "no program can start"
}

# mps_listens: somebody holds the daemon's pipe open, until the test ends
mps_listens() {
    spawn bash -c 'exec <>"$1"; echo listening; exec sleep infinity' - "$CUDA_MPS_PIPE_DIRECTORY/control"
    wait_until file_has "$out" listening
}

@test "an MPS folder without its daemon is told, a daemon that listens as well" {
    mkdir "$CUDA_MPS_PIPE_DIRECTORY"
    mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"
    run -0 --separate-stderr "$VGPU" doctor
    finds warn mps "no daemon behind it"
    mps_listens
    run -0 --separate-stderr "$VGPU" doctor
    finds ok mps "its daemon runs"
}

@test "concurrency without MPS is told to be of no use, with the remedy; with MPS it is not" {
    VGPU_CONCURRENCY=2 run -0 --separate-stderr "$VGPU" doctor
    finds warn mps "VGPU_CONCURRENCY=2 is of no use" "without MPS" "nvidia-cuda-mps-control -d" "leave it out"
    VGPU_CONCURRENCY=1 run -0 --separate-stderr "$VGPU" doctor
    refute_contains "$output" "of no use"
    mkdir "$CUDA_MPS_PIPE_DIRECTORY"
    mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"
    VGPU_CONCURRENCY=2 run -0 --separate-stderr "$VGPU" doctor
    finds warn mps "no daemon behind it" "VGPU_CONCURRENCY=2 is of no use"
    mps_listens
    VGPU_CONCURRENCY=2 run -0 --separate-stderr "$VGPU" doctor
    refute_contains "$output" "of no use"
}

@test "under the library itself it says the same" {
    local plain
    plain=$("$VGPU" doctor)
    run -0 shim "$VGPU" doctor
    assert_equal "$output" "$plain"
}

@test "arguments that it does not know are refused" {
    run -2 --separate-stderr "$VGPU" doctor --frob
    assert_equal "${stderr_lines[-1]}" "Try 'vgpu doctor --help'."
    run -2 --separate-stderr "$VGPU" doctor now
    assert_contains "$stderr" "unexpected argument 'now'"
    run -1 --separate-stderr bash -c '"$VGPU" doctor >/dev/full'
    assert_contains "$stderr" "cannot write the output"
}
