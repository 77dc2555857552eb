#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# GPU time among real programs: shares, give-away, and holders that are killed or stopped. Shares are asserted with wide margins; how
# exact they are is a matter for the benchmark.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() { common_setup; }
teardown() {
    common_teardown
    if [[ ${CUDA_MPS_PIPE_DIRECTORY:-} == "$BATS_TEST_TMPDIR"/* ]]; then nvidia-cuda-mps-control <<<quit; fi
}

# tenant NAME WEIGHT [SPIN OPTION]...: a program that keeps the GPU busy under the library, until the test ends
tenant() {
    local name=$1 weight=$2
    shift 2
    spawn "$VGPU" run --name "$name" --weight "$weight" -- "$KERNELS/spin" --seconds 600 --kernel-us 500 "$@"
}

# figure NAME KEY: one figure of a virtual GPU, 0 where there is none of that name
figure() {
    "$VGPU" list --json --interval 0 | jq --arg name "$1" ".vgpus | map(select(.name == \$name)) | .[0].$2 // 0"
}

has_launched() { # NAME COUNT
    [[ $(figure "$1" launches) -ge $2 ]]
}

# launches_on NAME: succeeds once the virtual GPU has launched 200 kernels more
launches_on() {
    wait_until -t 20 has_launched "$1" $(($(figure "$1" launches) + 200))
}

# share NAME SECONDS OTHER...: the part of the contended GPU time that NAME gets in so many seconds, in percent
share() {
    local name=$1 seconds=$2
    shift
    shift
    local before after
    before=$("$VGPU" list --json --interval 0)
    sleep "$seconds"
    after=$("$VGPU" list --json --interval 0)
    jq -n --argjson a "$before" --argjson b "$after" --arg name "$name" '
        def charged($list; $who): $list.vgpus | map(select(.name == $who) | .charged_ns) | add // 0;
        ([$b.vgpus[].name | charged($b; .) - charged($a; .)] | add) as $sum
        | 100 * (charged($b; $name) - charged($a; $name)) / $sum | round'
}

@test "two programs share GPU time by weight" {
    tenant light 100
    tenant heavy 300
    wait_until has_launched light 10
    wait_until has_launched heavy 10
    run -0 share light 4
    echo "light has $output %, 25 % is due"
    [[ $output -ge 18 && $output -le 32 ]]
}

@test "equal weights mean equal time, whatever the length of the kernels" {
    tenant short 100 --kernel-us 50 --depth 256
    tenant long 100 --kernel-us 5000
    wait_until has_launched short 10
    wait_until has_launched long 10
    run -0 share short 4
    echo "short has $output %, 50 % is due"
    [[ $output -ge 40 && $output -le 60 ]]
}

# switch_ns: what a switch costs on the GPU, as far as is known
switch_ns() {
    "$VGPU" list --json --interval 0 | jq '.gpus[0].switch_ns'
}

switch_costs() { # -lt or -gt, NANOSECONDS
    test "$(switch_ns)" "$1" "$2"
}

# That a cheap one makes them shorter, and by how much, is a matter of tests/unit/: where processors are few a switch is never cheap.
@test "it is learned that a switch costs more than was taken for granted" {
    sim_only "the cost can be set"
    SIMGPU_SWITCH_US=2000 tenant one 100
    SIMGPU_SWITCH_US=2000 tenant two 100
    wait_until -t 30 switch_costs -gt 250000
}

@test "a GPU whose programs are all clients of MPS is taken to switch fast" {
    sim_only "needs no MPS daemon"
    SIMGPU_MPS=1 tenant client 100
    wait_until has_launched client 10
    assert_equal "$("$VGPU" list --json --interval 0 | jq -c '.gpus[0] | [.mps, .switch_ns]')" '[true,60000]'
    SIMGPU_MPS=0 tenant other 100
    wait_until has_launched other 1
    assert_equal "$("$VGPU" list --json --interval 0 | jq '.gpus[0].mps')" false
}

# under_mps: what follows are clients of MPS, of a daemon of this test's own in folders of its own; the GPU's settings stay as they are
under_mps() {
    if ! real_gpu; then
        export SIMGPU_MPS=1
        return
    fi
    command -v nvidia-cuda-mps-control >/dev/null || skip "nvidia-cuda-mps-control is not installed"
    export CUDA_MPS_PIPE_DIRECTORY=$BATS_TEST_TMPDIR/pipe CUDA_MPS_LOG_DIRECTORY=$BATS_TEST_TMPDIR/log
    mkdir "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    nvidia-cuda-mps-control -d </dev/null >/dev/null 3>&-
}

@test "programs under MPS share GPU time by weight, and it is known that a switch is cheap there" {
    real_only
    under_mps
    tenant light 100
    tenant heavy 300
    wait_until has_launched light 10
    wait_until has_launched heavy 10
    run -0 share light 4
    echo "light has $output %, 25 % is due; a switch costs $(switch_ns) ns"
    [[ $output -ge 18 && $output -le 32 ]]
    assert_equal "$("$VGPU" list --json --interval 0 | jq '.gpus[0].mps')" true
    switch_costs -lt 110000
}

# one_beside_another: succeeds while one of them holds the token and the other runs beside it
one_beside_another() {
    "$VGPU" list --json --interval 0 | jq -e '[.vgpus[] | select(.name != "alone")] | any(.holder) and any(.companion)' >/dev/null
}

@test "clients of MPS that allow it run at the same time, are charged a part each, and leave others alone" {
    under_mps
    VGPU_CONCURRENCY=2 tenant one 100
    VGPU_CONCURRENCY=2 tenant other 300
    wait_until -t 20 one_beside_another
    run -0 share one 4
    echo "one has $output %, 25 % is due"
    [[ $output -ge 18 && $output -le 32 ]]
    tenant alone 100
    launches_on alone
    wait_until -t 20 one_beside_another
    assert_equal "$("$VGPU" list --json --interval 0 | jq '[.vgpus[] | select(.companion) | .name] | index("alone")')" null
    "$VGPU" set one --concurrency 1
    launches_on one
    run -1 one_beside_another
}

@test "a program that is alone has the GPU to itself and is not charged" {
    tenant alone 100
    launches_on alone
    assert_equal "$(figure alone charged_ns)" 0
    assert_equal "$(figure alone revokes)" 0
}

@test "a program that pauses gives its turn away at once" {
    tenant pausing 10000 --sync-each --think-us 100000
    tenant busy 1
    wait_until has_launched pausing 2
    wait_until has_launched busy 10
    # A hundred to one by weight, yet the busy one gets nearly all that the pausing one leaves.
    local before after
    before=$(figure busy launches)
    sleep 2
    after=$(figure busy launches)
    echo "$((after - before)) launches in 2 s"
    [[ $((after - before)) -ge 1000 ]]
}

@test "programs that wait for the GPU after each step pass their turns on, and no turn ends by its lease" {
    export VGPU_LOG=debug
    local name errs=()
    for name in light heavy; do
        spawn "$VGPU" run --name "$name" --weight "$([[ $name == light ]] && echo 100 || echo 300)" -- \
            "$KERNELS/timeline" --seconds 5 --work 20000 --size 16 --burst 10 --think-us 400
        errs+=("$err")
    done
    wait_until has_launched light 100
    wait_until has_launched heavy 100
    wait_until -t 20 process_gone "$pid"
    assert_equal "$(grep -h "beyond its lease" "${errs[@]}")" ""
}

@test "a light program waits for many turns of a heavy one, and takes none of them for a lease that has ended" {
    tenant heavy 10000
    wait_until has_launched heavy 10
    VGPU_LOG=debug tenant light 1
    sleep 3
    [[ $(figure light waiting) == true ]]
    assert_equal "$(grep "beyond its lease" "$err")" ""
}

@test "the others go on when the holder is killed, and its virtual GPU is gone" {
    tenant victim 10000
    local victim=$pid
    tenant other 100
    wait_until has_launched victim 10
    wait_until has_launched other 10
    kill -KILL "$victim"
    launches_on other
    assert_equal "$(figure victim launches)" 0
}

@test "a program that starts after a killed holder gets the token at once" {
    tenant victim 100
    wait_until has_launched victim 10
    kill -KILL "$pid"
    tenant other 100
    launches_on other
}

@test "the others go on while the holder is stopped, and it comes back" {
    tenant victim 10000
    local victim=$pid
    tenant other 100
    wait_until has_launched victim 10
    wait_until has_launched other 10
    for _ in 1 2 3; do
        kill -STOP "$victim"
        wait_until process_stopped "$victim"
        launches_on other
        kill -CONT "$victim"
        launches_on victim
    done
}

@test "processes with one name share one virtual GPU's time" {
    tenant pair 100
    tenant pair 100
    tenant single 100
    launches_on pair
    wait_until has_launched single 10
    assert_equal "$(figure pair 'processes | length')" 2
    run -0 share single 4
    echo "single has $output %, 50 % is due"
    [[ $output -ge 40 && $output -le 60 ]]
}

@test "every result is right while eight programs take turns" {
    local i pids=()
    for i in 1 2 3 4; do
        spawn "$VGPU" run --weight $((i * 50)) -- "$KERNELS/matmul" --seconds 3
        pids+=("$pid")
        spawn "$VGPU" run --weight $((i * 50)) -- "$KERNELS/reduce" --seconds 3
        pids+=("$pid")
    done
    for i in "${!pids[@]}"; do
        wait "${pids[i]}" || {
            cat "$BATS_TEST_TMPDIR"/spawn.*.err >&2
            return 1
        }
        assert_contains "$(<"$BATS_TEST_TMPDIR/spawn.$i.out")" verified=yes
    done
}

@test "a thread that is cancelled while it waits for its turn finishes its launch first" {
    tenant rival 100
    wait_until has_launched rival 10
    VGPU_LOG=warn run -0 --separate-stderr shim "$PROGRAMS/gate_cancel" "$KERNELS/testkernels.ptx" 20
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}
