# shellcheck shell=bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# What every suite loads first:
#
#   bats_require_minimum_version 1.5.0
#   load helper
#   setup() { common_setup; }
#   teardown() { common_teardown; }
#
# common_setup gives each test a pool and a simulated node of its own under $BATS_TEST_TMPDIR and clears every VGPU_ and SIMGPU_
# option of the caller, so that a test sees what it sets itself. common_teardown kills what `spawn` started.

root=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
BUILD=${VGPU_TEST_BUILD:-$root/build}
SHIM=$BUILD/libvgpu_shim.so
VGPU=$BUILD/vgpu
# VGPU_TEST_CUDART=static: run the programs that carry their own CUDA runtime.
if [[ ${VGPU_TEST_CUDART:-shared} == static ]]; then
    KERNELS=$BUILD/kernels-static
else
    KERNELS=$BUILD/kernels
fi
PROGRAMS=$BUILD/tests/programs
# Not BUILD: make would take it for its own.
export -n BUILD
export SHIM VGPU KERNELS PROGRAMS

spawned=() # processes that common_teardown kills, each the leader of its own session

real_gpu() {
    [[ ${VGPU_TEST_GPU:-sim} == real ]]
}

# Skips a test that only a simulation can do: another capacity, another device count, a failing driver.
sim_only() {
    if real_gpu; then skip "${1:-needs the simulated GPU}"; fi
}

several_gpus() {
    [[ $(compgen -G '/dev/nvidia[0-9]*' | wc -l) -ge 2 ]]
}

# Two GPUs: of the simulation, or the first two of this machine. Skips a test where there are fewer.
two_gpus() {
    if ! real_gpu; then
        export SIMGPU_DEVICES=2
    elif several_gpus; then
        export CUDA_VISIBLE_DEVICES=0,1
    else
        skip "needs two GPUs"
    fi
}

# Skips a test that only the real driver can answer.
real_only() {
    if ! real_gpu; then skip "${1:-needs a real GPU}"; fi
}

common_setup() {
    local name
    for name in "${!VGPU_@}" "${!SIMGPU_@}"; do
        [[ $name == VGPU_TEST_* ]] || unset "$name"
    done
    export -n "${!VGPU_TEST_@}" # they are the suites' own; a program under test would be warned of options it does not know
    unset LD_PRELOAD "${!CUDA_DEVICE_@}" # aliases of options are options too
    export VGPU_POOL=$BATS_TEST_TMPDIR/pool
    spawned=()
    if real_gpu; then
        real_env
    else
        sim_env
    fi
}

# The simulated libcuda, libcudart and libnvidia-ml, and a node of its own for this test.
sim_env() {
    export LD_LIBRARY_PATH=$BUILD/simgpu
    export SIMGPU_STATE=$BATS_TEST_TMPDIR/simgpu
}

# The driver is where it is; programs built with the shared runtime need the toolkit's. One GPU is visible, as in the simulation.
real_env() {
    local lib
    if several_gpus; then export CUDA_VISIBLE_DEVICES=0; fi
    lib=$(sed -n 's/^CUDA_LIB := //p' "$BUILD/cuda.mk" 2>/dev/null)
    [[ -d $lib ]] || lib=${CUDA_HOME:-/usr/local/cuda}/lib64
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

common_teardown() {
    local pid
    for pid in "${spawned[@]}"; do
        kill -KILL -- "-$pid" 2>/dev/null || true # also what it started, and also when stopped
        wait "$pid" 2>/dev/null || true
    done
    spawned=()
}

# shim COMMAND...: runs a program under the built library.
shim() {
    env LD_PRELOAD="$SHIM${LD_PRELOAD:+:$LD_PRELOAD}" "$@"
}

# silent PROGRAM [ARGUMENT...]: runs it under the library; it exits with 0 and has nothing to complain about.
silent() {
    run -0 --separate-stderr shim "$@"
    assert_equal "$output$stderr" ""
}

# spawn COMMAND...: starts a program (no function) in the background. Sets pid, and out and err to the files that it writes to.
spawn() {
    out=$BATS_TEST_TMPDIR/spawn.${#spawned[@]}.out
    err=$BATS_TEST_TMPDIR/spawn.${#spawned[@]}.err
    # File descriptor 3 is Bats's own: a process that kept it open would hold the whole suite up.
    setsid "$@" >"$out" 2>"$err" </dev/null 3>&- &
    pid=$!
    spawned+=("$pid")
}

# spawn_shim COMMAND...: the same, under the built library; pid is the program's own.
spawn_shim() {
    spawn env LD_PRELOAD="$SHIM${LD_PRELOAD:+:$LD_PRELOAD}" "$@"
}

# wait_until [-t SECONDS] COMMAND...: polls until COMMAND succeeds; fails after the deadline (10 s).
wait_until() {
    local seconds=10 deadline
    if [[ $1 == -t ]]; then
        seconds=$2
        shift 2
    fi
    deadline=$((SECONDS + seconds + 1))
    until "$@" >/dev/null 2>&1; do
        if [[ $SECONDS -ge $deadline ]]; then
            echo "not within $seconds seconds: $*" >&2
            return 1
        fi
        sleep 0.02
    done
}

file_has() { # FILE TEXT
    grep -qF -- "$2" "$1"
}

process_gone() { # PID; a zombie counts as gone
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
    [[ -z $state || $state == Z ]]
}

process_stopped() { # PID
    grep -qE '^State:[[:space:]]*T' "/proc/$1/status"
}

assert_equal() { # ACTUAL EXPECTED
    if [[ $1 != "$2" ]]; then
        printf 'expected: %s\nactual:   %s\n' "$2" "$1" >&2
        return 1
    fi
}

assert_contains() { # TEXT PART
    if [[ $1 != *"$2"* ]]; then
        printf 'not found: %s\nin:        %s\n' "$2" "$1" >&2
        return 1
    fi
}

refute_contains() { # TEXT PART
    if [[ $1 == *"$2"* ]]; then
        printf 'found:     %s\nin:        %s\n' "$2" "$1" >&2
        return 1
    fi
}
