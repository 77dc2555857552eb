#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Launches of every family wait for their turn, run once and are counted once.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_LOG=warn
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

# figures NAME KEY: one figure of the virtual GPUs of that name, in the order of the GPUs
figures() {
    "$VGPU" list --json --interval 0 | jq -c --arg name "$1" "[.vgpus | sort_by(.gpu)[] | select(.name == \$name) | .$2]"
}

rival() { # a tenant that always wants every GPU
    local gpu
    for ((gpu = 0; gpu < ${1:-1}; gpu++)); do
        spawn_shim env VGPU_NAME=rival "$PROGRAMS/busy" "$module" 300 "$gpu"
        wait_until file_has "$out" busy
    done
}

natively() { # FAMILY: skips what this driver cannot do without the library, either
    real_gpu || return 0
    spawn "$PROGRAMS/launch_family" "$module" "$1"
    wait_until grep -q . "$out"
    [[ $(<"$out") == launched ]] || skip "not on this driver: $(<"$out")"
    kill -KILL "$pid"
}

# waits_its_turn FAMILY [LAUNCHES GPUS]: while another tenant wants every GPU, one launch and ten of the family wait for a turn on
# each, give the right result and count eleven, or what LAUNCHES says by GPU
waits_its_turn() {
    natively "$1"
    rival "${3:-1}"
    spawn_shim env VGPU_NAME=tenant "$PROGRAMS/launch_family" "$module" "$1"
    wait_until grep -q . "$out"
    assert_equal "$(<"$out")$(<"$err")" launched
    assert_equal "$(figures tenant launches)" "${2:-[11]}"
    [[ $(figures tenant waits | jq 'all(. > 0)') == true ]]
}

@test "cuLaunchKernel waits for its turn" { waits_its_turn kernel; }
@test "cuLaunchKernel_ptsz waits for its turn" { waits_its_turn kernel_ptsz; }
@test "cuLaunchKernel without a current context waits for its turn" { waits_its_turn contextless; }
@test "cuLaunchKernelEx waits for its turn" { waits_its_turn ex; }
@test "cuLaunchKernelEx_ptsz waits for its turn" { waits_its_turn ex_ptsz; }
@test "cuLaunchKernelEx with clusters waits for its turn" { waits_its_turn ex_cluster; }
@test "cuLaunchKernelEx with programmatic stream serialization waits for its turn" { waits_its_turn ex_programmatic; }
@test "cuLaunchCooperativeKernel waits for its turn" { waits_its_turn cooperative; }
@test "cuLaunchCooperativeKernel_ptsz waits for its turn" { waits_its_turn cooperative_ptsz; }
@test "cuLaunchCooperativeKernelMultiDevice waits for its turn" { waits_its_turn multi_device; }
@test "cuLaunch waits for its turn" { waits_its_turn launch; }
@test "cuLaunchGrid waits for its turn" { waits_its_turn grid; }
@test "cuLaunchGridAsync waits for its turn" { waits_its_turn grid_async; }
@test "cuGraphLaunch waits for its turn, once for all nodes, and their capture does not count" { waits_its_turn graph; }
@test "cuGraphLaunch_ptsz waits for its turn" { waits_its_turn graph_ptsz; }
@test "cuGraphLaunch of an executable with an updated node waits for its turn" { waits_its_turn graph_updated; }
@test "cuGraphLaunch of an executable updated by another graph waits for its turn" { waits_its_turn graph_replaced; }
@test "cuGraphLaunch with a conditional node waits for its turn, once" { waits_its_turn graph_conditional; }

@test "captured launches are not counted where nobody else wants the GPU, either" {
    spawn_shim env VGPU_NAME=tenant "$PROGRAMS/launch_family" "$module" graph
    wait_until file_has "$out" launched
    assert_equal "$(figures tenant launches)" "[11]"
}

@test "with several GPUs each launch waits for the token of its own" {
    two_gpus
    waits_its_turn kernel "[11,11]" 2
}

@test "with several GPUs a launch without a current context waits for the token of its stream's GPU" {
    two_gpus
    waits_its_turn contextless "[11,11]" 2
}

@test "a graph launched while another GPU is current waits for the token of its stream's GPU" {
    two_gpus
    waits_its_turn graph_elsewhere "[1,11]" 2
}

@test "a cooperative launch over several GPUs waits for the token of each" {
    two_gpus
    waits_its_turn multi_device "[11,11]" 2
}

@test "tenants with cooperative launches over the same GPUs do not lock each other out" {
    two_gpus
    natively multi_device
    local i printed outs=()
    for i in 1 2 3; do
        spawn_shim env VGPU_NAME="tenant$i" "$PROGRAMS/launch_family" "$module" multi_device
        outs+=("$out")
    done
    for printed in "${outs[@]}"; do
        wait_until file_has "$printed" launched
    done
}
