#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# What NVML tells inside a tenant: its quota, its use, its share of the time and its processes, and nothing of others'.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_LOG=warn
    view=$PROGRAMS/nvml_view
}

teardown() { common_teardown; }

tenant() { # NAME MEMORY [NVML_VIEW OPTION...]: a process that stays, with a context; sets pid and out
    local name=$1 memory=$2
    shift 2
    spawn_shim env VGPU_NAME="$name" VGPU_MEMORY="$memory" "$view" cuda "$@" stay
    wait_until file_has "$out" samples
}

context_mib() {
    "$VGPU" list --json --interval 0 | jq ".gpus[${1:-0}].context_bytes / 1048576"
}

# line GPU: what the last `run` printed for a GPU
line() {
    sed -n "s/^$1: //p" <<<"$output"
}

# whole GPU: what a GPU shows of its size without the library
whole() {
    "$view" | sed -n "s/^$1: total \([0-9]*\) .*/\1/p"
}

@test "an attached process sees its quota, its use and itself" {
    tenant other 2G
    spawn_shim env VGPU_NAME=tenant VGPU_MEMORY=1G "$view" cuda 64 stay
    wait_until file_has "$out" samples
    local used=$(($(context_mib) + 64))
    assert_contains "$(<"$out")" "0: total 1024 used $used busy"
    assert_contains "$(<"$out")" "compute $pid=$used graphics mps samples"
    assert_equal "$(<"$err")" ""
}

@test "the processes of one virtual GPU see each other, with what each is charged" {
    tenant tenant 3G
    local first=$pid
    spawn_shim env VGPU_NAME=tenant "$view" cuda 64 stay
    wait_until file_has "$out" samples
    local context
    context=$(context_mib)
    assert_contains "$(<"$out")" "total 3072 used $((2 * context + 64)) "
    assert_contains "$(<"$out")" " $first=$context"
    assert_contains "$(<"$out")" " $pid=$((context + 64))"
}

@test "the driver's samples of other processes are left out" {
    sim_only "the driver has samples of busy processes only"
    tenant other 2G
    tenant tenant 2G
    assert_equal "$(sed 's/.*samples //' "$out")" "$pid usages $pid"
}

@test "other programs' processes are left out of the driver's list of MPS clients" {
    sim_only "needs no MPS daemon"
    export SIMGPU_MPS=1
    tenant other 2G
    tenant tenant 2G
    [[ $(<"$out") =~ mps\ $pid=[0-9]+\ samples ]] # and nobody else
}

@test "a process that is killed is on no list any more" {
    tenant tenant 3G
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    run -0 shim env VGPU_NAME=tenant VGPU_MEMORY=3G "$view" cuda
    refute_contains "$output" "$pid="
}

@test "a tool that does not use CUDA sees the virtual GPU that its options name, and joins nothing" {
    tenant tenant 3G
    local context
    context=$(context_mib)
    VGPU_NAME=tenant run -0 --separate-stderr shim "$view"
    assert_contains "$output" "0: total 3072 used $context busy"
    assert_contains "$output" "compute $pid=$context graphics mps samples"
    assert_equal "$stderr" ""
    assert_equal "$("$VGPU" list --json --interval 0 | jq '.vgpus | length')" 1
}

@test "a tool that does not use CUDA and has a quota of its own sees that, unused, and reserves nothing" {
    VGPU_MEMORY=3G run -0 --separate-stderr shim "$view"
    assert_equal "${lines[0]}" "0: total 3072 used 0 busy 0 compute graphics mps samples usages"
    assert_equal "$stderr" ""
    [[ ! -e $VGPU_POOL ]]
    VGPU_MEMORY=25% VGPU_NAME=nobody run -0 --separate-stderr shim "$view"
    if ! real_gpu; then assert_contains "$output" "0: total 4096 used 0"; fi
}

@test "a tool without options sees what it sees without the library" {
    tenant tenant 3G
    run -0 "$view"
    local plain=$output
    run -0 --separate-stderr shim "$view"
    assert_equal "${output%%busy*}${output##*compute}" "${plain%%busy*}${plain##*compute}"
}

@test "options that are not understood are left to cuInit to refuse" {
    VGPU_MEMORY=nonsense run -0 --separate-stderr shim "$view"
    refute_contains "$output" "total 0"
    assert_equal "$stderr" ""
}

@test "the utilization is the tenant's own: what its processes make, and none while another tenant has the GPU" {
    tenant idle 2G
    spawn_shim env VGPU_NAME=tenant "$PROGRAMS/busy" "$KERNELS/testkernels.ptx" 300
    wait_until file_has "$out" busy
    run -0 "$view" watch
    if real_gpu && [[ $output -lt 20 ]]; then skip "this driver does not tell the utilization"; fi
    VGPU_NAME=idle run -0 shim "$view" watch
    assert_equal "$output" 0
    VGPU_NAME=tenant run -0 shim "$view" watch
    [[ $output -ge 20 ]]
}

@test "CUDA_VISIBLE_DEVICES by number: the quota is shown on the GPU that the program uses" {
    two_gpus
    CUDA_VISIBLE_DEVICES=1 VGPU_MEMORY=1G run -0 shim "$view" cuda
    assert_contains "$(line 0)" "total $(whole 0) used"
    assert_contains "$(line 1)" "total 1024 used $(context_mib) "
    assert_equal "$("$VGPU" list --json --interval 0 | jq '.gpus | length')" 1
    CUDA_VISIBLE_DEVICES=1 VGPU_MEMORY=1G run -0 shim "$view"
    assert_contains "$(line 0)" "total $(whole 0) used"
    assert_contains "$(line 1)" "total 1024 used 0"
}

@test "CUDA_VISIBLE_DEVICES by UUID: the quota is shown on the GPU that the program uses" {
    two_gpus
    run -0 shim env VGPU_MEMORY=0=1G,1=2G "$view" cuda
    local uuid
    uuid=$("$VGPU" list --json --interval 0 | jq -r '.gpus[1].uuid')
    CUDA_VISIBLE_DEVICES=$uuid VGPU_MEMORY=0=3G run -0 shim "$view" cuda
    assert_contains "$(line 0)" "total $(whole 0) used"
    assert_contains "$(line 1)" "total 3072 used $(context_mib 1) "
    CUDA_VISIBLE_DEVICES=$uuid VGPU_MEMORY=0=3G run -0 shim "$view"
    assert_contains "$(line 0)" "total $(whole 0) used"
    assert_contains "$(line 1)" "total 3072 used 0"
}

@test "MIG instances are virtual GPUs' devices like any other, by their own UUIDs" {
    sim_only "needs a GPU divided by MIG"
    export SIMGPU_DEVICES=2 SIMGPU_MIG=1
    run -0 shim env VGPU_MEMORY=0=1G,1=2G "$view" cuda
    assert_contains "$(line 0)" "total 1024 used 512"
    assert_contains "$(line 1)" "total 2048 used 512"
    local uuid
    uuid=$("$VGPU" list --json --interval 0 | jq -r '.gpus[1].uuid')
    CUDA_VISIBLE_DEVICES=MIG-${uuid#GPU-} VGPU_MEMORY=0=3G run -0 shim "$view" cuda
    assert_contains "$(line 0)" "total 16384"
    assert_contains "$(line 1)" "total 3072 used 512"
}

@test "with several GPUs each shows its own quota and its own memory" {
    two_gpus
    spawn_shim env VGPU_NAME=tenant VGPU_MEMORY=0=1G,1=2G "$view" cuda 64 stay
    wait_until file_has "$out" "1: "
    output=$(<"$out")
    local used
    assert_contains "$(line 0)" "total 1024 used $(($(context_mib) + 64)) "
    used=$(($(context_mib 1) + 64))
    assert_contains "$(line 1)" "total 2048 used $used "
    assert_contains "$(line 1)" "compute $pid=$used "
}

@test "nvidia-smi shows the quota and the use of the virtual GPU" {
    real_only
    command -v nvidia-smi >/dev/null || skip "no nvidia-smi"
    tenant other 2G
    tenant tenant 3G
    export VGPU_NAME=tenant
    run -0 --separate-stderr shim nvidia-smi --id=0 --query-gpu=memory.total,memory.used --format=csv,noheader,nounits
    assert_equal "$output" "3072, $(context_mib)"
    run -0 --separate-stderr shim nvidia-smi --id=0
    assert_contains "$(tr -s ' ' <<<"$output")" "MiB / 3072MiB"
}
