#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Attaching: what cuInit does for a program under the library, what it refuses, and that a refusal is clear and leaves nothing behind.
bats_require_minimum_version 1.5.0
load helper

INVALID_VALUE=1 OUT_OF_MEMORY=2 NOT_PERMITTED=800 NOT_READY=802

setup() { common_setup; }
teardown() { common_teardown; }

with=() # VARIABLE=VALUE, for `refused`

# refused CODE PART...: cuInit fails with CODE, one line on stderr has all the parts, and nothing can be done with the GPU
refused() {
    local code=$1 part
    shift
    run -0 --separate-stderr shim env "${with[@]}" "$PROGRAMS/attach_try"
    assert_equal "$output" "cuInit $code"$'\nclosed'
    assert_equal "${#stderr_lines[@]}" 1
    for part; do
        assert_contains "$stderr" "$part"
    done
}

granted() {
    run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    assert_equal "$output" "cuInit 0"
}

tenants() {
    "$VGPU" list --json --interval 0 | jq -r '.vgpus | length'
}

# childless HOW [VARIABLE=VALUE]: a child that no fork handler has seen gets the driver's error and disturbs nobody
childless() {
    VGPU_LOG=warn run -0 --separate-stderr shim env "${@:2}" "$PROGRAMS/attach_clone" "$KERNELS/testkernels.ptx" "$1"
    assert_equal "$output" ""
    assert_equal "$stderr" ""
}

# tenant [VARIABLE=VALUE]...: a program that attaches and stays
tenant() {
    spawn env LD_PRELOAD="$SHIM" "$@" "$PROGRAMS/attach_try" keep
    wait_until file_has "$out" "cuInit 0"
}

@test "one line on stderr says what the program got" {
    run -0 --separate-stderr shim env VGPU_MEMORY=2G VGPU_WEIGHT=250 VGPU_NAME=me "$PROGRAMS/attach_try"
    assert_equal "$output" "cuInit 0"
    assert_equal "${#stderr_lines[@]}" 1
    assert_contains "$stderr" "me on GPU 0"
    assert_contains "$stderr" "quota 2.00 GiB"
    assert_contains "$stderr" "weight 250"
    assert_contains "$stderr" "pool $VGPU_POOL"
}

@test "the line says class and limit where they are not the defaults" {
    run -0 --separate-stderr shim env VGPU_COMPUTE_LIMIT=30 VGPU_PRIORITY=high "$PROGRAMS/attach_try"
    assert_contains "$stderr" ", weight 100, at most 30 % of its time, high priority, pool "
    run -0 --separate-stderr shim env VGPU_COMPUTE_LIMIT=none VGPU_PRIORITY=normal "$PROGRAMS/attach_try"
    assert_contains "$stderr" ", weight 100, pool "
}

@test "a program that runs without a quota is told so" {
    run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    assert_contains "$stderr" "no quota: shares"
    VGPU_MEMORY=7=1G run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    assert_contains "$stderr" "no quota, since quotas are given for other GPUs: shares"
}

@test "a variable that looks like an option and is none is warned of by name" {
    run -0 --separate-stderr shim env VGPU_MEMROY=2G "$PROGRAMS/attach_try"
    assert_equal "$output" "cuInit 0"
    assert_contains "$stderr" "VGPU_MEMROY is not an option"
    refute_contains "$stderr" "VGPU_POOL is not an option"
}

@test "another tool's variable is taken for the quota, and a line says so" {
    run -0 --separate-stderr shim env CUDA_DEVICE_MEMORY_LIMIT=2048m "$PROGRAMS/attach_try"
    assert_equal "$output" "cuInit 0"
    assert_contains "${stderr_lines[0]}" "CUDA_DEVICE_MEMORY_LIMIT=2048m is taken as VGPU_MEMORY"
    assert_contains "${stderr_lines[1]}" "quota 2.00 GiB"
    run -0 --separate-stderr shim env CUDA_DEVICE_MEMORY_LIMIT=2048m CUDA_DEVICE_MEMORY_LIMIT_0=3g "$PROGRAMS/attach_try"
    assert_contains "$stderr" "quota 3.00 GiB"
    run -0 --separate-stderr shim env VGPU_MEMORY=1G CUDA_DEVICE_SM_LIMIT=30 "$PROGRAMS/attach_try"
    assert_contains "$stderr" "CUDA_DEVICE_SM_LIMIT=30 is taken as VGPU_COMPUTE_LIMIT"
    assert_contains "$stderr" "at most 30 % of its time"
}

@test "the library's own variable counts before another tool's, and a line says so" {
    run -0 --separate-stderr shim env VGPU_MEMORY=1G CUDA_DEVICE_MEMORY_LIMIT_0=nonsense "$PROGRAMS/attach_try"
    assert_contains "${stderr_lines[0]}" "CUDA_DEVICE_MEMORY_LIMIT_0 is ignored, since VGPU_MEMORY is set"
    assert_contains "${stderr_lines[1]}" "quota 1.00 GiB"
}

@test "another tool's variable that is not understood or does not fit is refused by its own name" {
    with=(CUDA_DEVICE_MEMORY_LIMIT_0=lots)
    refused "$INVALID_VALUE" "CUDA_DEVICE_MEMORY_LIMIT_0=lots is not understood"
    with=(VGPU_LOG=warn CUDA_DEVICE_MEMORY_LIMIT=2m)
    refused "$OUT_OF_MEMORY" "CUDA_DEVICE_MEMORY_LIMIT=2m is 2 MiB, and a context alone takes"
}

@test "a log file that cannot be opened is refused" {
    with=(VGPU_LOG_FILE=/nonexistent/log)
    refused "$INVALID_VALUE" "VGPU_LOG_FILE=/nonexistent/log" "No such file or directory"
}

@test "messages go to the log file where one is named" {
    run -0 --separate-stderr shim env VGPU_LOG_FILE="$BATS_TEST_TMPDIR/log" "$PROGRAMS/attach_try"
    assert_equal "$stderr" ""
    assert_contains "$(<"$BATS_TEST_TMPDIR/log")" "on GPU 0"
}

@test "a pool that the limit on file sizes forbids is refused in one line" {
    run -0 "$PROGRAMS/door_direct" 16 # makes what the simulated GPU needs
    run -1 bash -c 'ulimit -f 0 && exec env LD_PRELOAD="$SHIM" "$PROGRAMS/door_direct" 16'
    assert_contains "$output" "error: cannot fill the new pool $VGPU_POOL: File too large"
    assert_contains "$output" "cuInit: 802"
}

@test "a message that the limit on file sizes forbids is lost, and the program goes on" {
    run -0 shim "$PROGRAMS/door_direct" 16 # makes the pool
    run -0 bash -c 'ulimit -f 0 && exec env LD_PRELOAD="$SHIM" "$PROGRAMS/door_direct" 16 2>>"$BATS_TEST_TMPDIR/stderr"'
    assert_equal "$output" "granted"
    run -0 bash -c 'ulimit -f 0 && exec env LD_PRELOAD="$SHIM" VGPU_LOG_FILE="$BATS_TEST_TMPDIR/log" "$PROGRAMS/door_direct" 16'
    assert_equal "$output" "granted"
}

@test "nothing happens before the program initialises CUDA" {
    run -0 --separate-stderr shim true
    assert_equal "$output$stderr" ""
    [[ ! -e $VGPU_POOL ]]
}

@test "each option that is not understood is refused by name, value and what is allowed" {
    local pair
    for pair in VGPU_MEMORY=8 VGPU_MEMORY=0 VGPU_MEMORY=-1G VGPU_MEMORY=101% VGPU_MEMORY= VGPU_WEIGHT=0 VGPU_WEIGHT=10001 VGPU_QUANTUM=0 \
        VGPU_QUANTUM=soon VGPU_CONCURRENCY=0 VGPU_CONCURRENCY=65 "VGPU_NAME=two words" VGPU_CHUNK=3M VGPU_CHUNK=1M VGPU_ALLOCATOR=mine VGPU_REQUIRE_QUOTA=yes VGPU_LOG=loud VGPU_LOG_FILE=/tmp/ \
        VGPU_POOL=/tmp/; do
        echo "$pair"
        with=("$pair")
        refused $INVALID_VALUE "$pair is not understood: allowed is"
    done
    [[ ! -e $VGPU_POOL ]]
}

@test "a second copy of the library in one process is refused, and named" {
    cp "$SHIM" "$BATS_TEST_TMPDIR/copy.so"
    with=("LD_PRELOAD=$SHIM:$BATS_TEST_TMPDIR/copy.so")
    refused $NOT_READY "$BATS_TEST_TMPDIR/copy.so"
}

@test "a pool that cannot be made is refused" {
    with=("VGPU_POOL=$BATS_TEST_TMPDIR/missing/pool")
    refused $NOT_READY "$BATS_TEST_TMPDIR/missing/pool"
}

@test "a pool that cannot be made without /proc is refused, and the line says so" {
    sim_only "a real driver wants /proc for itself"
    unshare -m true 2>/dev/null || skip "needs root, to hide /proc"
    with=(unshare -m sh -c 'mount -t tmpfs none /proc && exec "$@"' sh)
    refused $NOT_READY "/proc must be mounted"
}

@test "a file that is no pool is refused and left alone" {
    printf 'precious, and long enough to have a header in it; the length of one is sixty-four bytes' >"$VGPU_POOL"
    chmod 600 "$VGPU_POOL"
    refused $NOT_READY "$VGPU_POOL is not a pool"
    assert_contains "$(<"$VGPU_POOL")" precious
}

@test "a pool of another layout version is refused" {
    granted
    printf '\x63' | dd of="$VGPU_POOL" bs=1 seek=8 conv=notrunc status=none
    refused $NOT_READY "layout version 99"
}

@test "a pool that others could write is refused" {
    granted
    chmod 666 "$VGPU_POOL"
    refused $NOT_READY "$VGPU_POOL is open to all users"
}

@test "a pool of another user is refused" {
    [[ $EUID -eq 0 ]] || skip "needs root, to give a file away"
    granted
    chown 4242 "$VGPU_POOL"
    refused $NOT_READY "$VGPU_POOL belongs to user 4242"
}

@test "members of a group meet in the folder that it may write, whoever comes first" {
    sim_only "needs a driver that any user may open"
    unshare -m true 2>/dev/null || skip "needs root, to be others and to have a /run"
    unset VGPU_POOL
    local hidden='
        mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && mkdir /run/vgpu /run/build && chgrp 1234 /run/vgpu && chmod 775 /run/vgpu || exit
        cp -r "$SHIM" "$BUILD/simgpu" "$PROGRAMS/attach_try" /run/build && chmod -R a+rX /run/build || exit
        for user in 1001 1002; do
            setpriv --reuid=$user --regid=$user --groups=1234 env SIMGPU_STATE=/dev/shm/$user LD_LIBRARY_PATH=/run/build/simgpu \
                LD_PRELOAD=/run/build/libvgpu_shim.so /run/build/attach_try
        done'
    BUILD=$BUILD run -0 --separate-stderr unshare -m sh -c "$hidden"
    assert_equal "$output" $'cuInit 0\ncuInit 0'
    assert_contains "$stderr" "pool /run/vgpu/pool"
    refute_contains "$stderr" "Permission denied"
}

@test "a symbolic link is not followed to a pool" {
    ln -s "$BATS_TEST_TMPDIR/elsewhere" "$VGPU_POOL"
    refused $NOT_READY "$VGPU_POOL"
    [[ ! -e $BATS_TEST_TMPDIR/elsewhere ]]
}

@test "a chunk that differs from the pool's is refused" {
    granted
    VGPU_CHUNK=4M refused $NOT_READY "VGPU_CHUNK asks for chunks of 4 MiB" "has chunks of 2 MiB"
}

@test "a joiner whose options differ is refused, whichever differs" {
    tenant VGPU_NAME=shared VGPU_MEMORY=2G VGPU_WEIGHT=200 VGPU_QUANTUM=10 VGPU_COMPUTE_LIMIT=30 VGPU_CONCURRENCY=2
    export VGPU_NAME=shared
    VGPU_MEMORY=3G refused $NOT_PERMITTED "VGPU_MEMORY asks for 3072 MiB" "shared has 2048 MiB"
    VGPU_WEIGHT=300 refused $NOT_PERMITTED "VGPU_WEIGHT asks for 300" "shared has 200"
    VGPU_QUANTUM=30 refused $NOT_PERMITTED "VGPU_QUANTUM asks for 30 ms" "shared has 10 ms"
    VGPU_QUANTUM=auto refused $NOT_PERMITTED "VGPU_QUANTUM asks for 0 ms (auto)" "shared has 10 ms"
    VGPU_COMPUTE_LIMIT=40 refused $NOT_PERMITTED "VGPU_COMPUTE_LIMIT asks for 40 %" "shared has 30 %"
    VGPU_CONCURRENCY=1 refused $NOT_PERMITTED "VGPU_CONCURRENCY asks for 1" "shared has 2"
    VGPU_PRIORITY=low refused $NOT_PERMITTED "VGPU_PRIORITY asks for low" "shared has normal"
    VGPU_MEMORY=2G VGPU_WEIGHT=200 VGPU_QUANTUM=10 VGPU_COMPUTE_LIMIT=30% VGPU_PRIORITY=normal VGPU_CONCURRENCY=2 granted
    granted
    assert_contains "$stderr" "quota 2.00 GiB"
}

@test "a required quota that is missing is refused" {
    export VGPU_REQUIRE_QUOTA=1
    refused $NOT_PERMITTED "VGPU_REQUIRE_QUOTA=1" VGPU_MEMORY
    VGPU_MEMORY=2G granted
}

@test "joining a virtual GPU that has a quota meets the requirement" {
    tenant VGPU_NAME=shared VGPU_MEMORY=2G
    VGPU_NAME=shared VGPU_REQUIRE_QUOTA=1 granted
}

@test "a quota of less than one chunk is refused" {
    VGPU_MEMORY=1M refused $OUT_OF_MEMORY "VGPU_MEMORY=1M" "2 MiB"
}

@test "a quota of more than the GPU has is refused" {
    VGPU_MEMORY=900T refused $OUT_OF_MEMORY "VGPU_MEMORY=900T" "GPU 0"
}

@test "a quota smaller than a context is refused with both numbers" {
    granted
    local context
    context=$("$VGPU" list --json --interval 0 | jq '.gpus[0].context_bytes / 1048576')
    [[ $context -gt 2 ]]
    VGPU_MEMORY=$((context - 2))M refused $OUT_OF_MEMORY "is $((context - 2)) MiB" "takes $context MiB"
    VGPU_MEMORY=${context}M granted
}

@test "two tenants of 60 %: the second is refused with a line that names the first" {
    tenant VGPU_MEMORY=60% VGPU_NAME=first
    VGPU_MEMORY=60% refused $OUT_OF_MEMORY "does not fit" "first has reserved"
    VGPU_MEMORY=30% granted
}

@test "a quota is refused where tenants without one hold too much, and they are named" {
    sim_only "a GPU of known size"
    spawn_shim env VGPU_NAME=glutton "$PROGRAMS/mem_fill" $((512 << 20))
    wait_until file_has "$out" full
    VGPU_MEMORY=60% refused $OUT_OF_MEMORY "glutton holds"
}

@test "a refusal leaves nothing behind, and a later cuInit may succeed" {
    VGPU_MEMORY=900T refused $OUT_OF_MEMORY
    assert_equal "$(tenants)" 0
    run -0 --separate-stderr shim env VGPU_MEMORY=900T "$PROGRAMS/attach_try" retry
    assert_equal "$output" $'cuInit 2\nclosed\nagain 0'
}

@test "a tenant that is killed is gone at the next attach" {
    tenant VGPU_MEMORY=60%
    assert_equal "$(tenants)" 1
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    VGPU_MEMORY=60% granted
}

@test "forked children attach by themselves or not at all" {
    VGPU_MEMORY=60% run -0 --separate-stderr shim "$PROGRAMS/attach_fork"
    assert_equal "$output" ""
}

@test "a child made by a bare clone finds CUDA not initialised, and its parent goes on" {
    childless clone
    if ! real_gpu; then childless clone_all; fi
}

@test "a child made by vfork leaves its parent's GPU alone" {
    childless vfork
}

@test "with several GPUs a child that no fork handler has seen finds CUDA not initialised" {
    sim_only "needs two GPUs"
    childless clone_all SIMGPU_DEVICES=2
}

@test "the helper thread starts whatever thread-local data the program has" {
    VGPU_LOG=warn run -0 --separate-stderr shim "$PROGRAMS/attach_tls" "$KERNELS/testkernels.ptx"
    assert_equal "$stderr" ""
}

@test "a program that executes others in its place keeps its quota through all of them" {
    VGPU_MEMORY=60% run -0 --separate-stderr shim "$PROGRAMS/attach_exec" 3
    assert_equal "$output" "done"
}

@test "threads that initialise at once attach once" {
    VGPU_MEMORY=2G run -0 --separate-stderr shim "$PROGRAMS/attach_threads"
    assert_equal "${#stderr_lines[@]}" 1
}

@test "with several GPUs each has its own quota" {
    two_gpus
    run -0 --separate-stderr shim env VGPU_MEMORY=0=2G,1=3G "$PROGRAMS/attach_try"
    assert_equal "${#stderr_lines[@]}" 2
    assert_contains "${stderr_lines[0]}" "GPU 0"
    assert_contains "${stderr_lines[0]}" "quota 2.00 GiB"
    assert_contains "${stderr_lines[1]}" "GPU 1"
    assert_contains "${stderr_lines[1]}" "quota 3.00 GiB"
    VGPU_REQUIRE_QUOTA=1 VGPU_MEMORY=0=2G refused $NOT_PERMITTED "GPU 1"
    assert_equal "$(tenants)" 0
}
