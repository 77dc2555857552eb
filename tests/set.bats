#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# vgpu set: what is changed on virtual GPUs that live, what is refused, and what their programs notice.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup() { common_setup; }
teardown() { common_teardown; }

# tenant [KEY=VALUE]...: a tenant in the pool that needs no GPU
tenant() {
    spawn "$PROGRAMS/pool_tenant" "$VGPU_POOL" "$@"
    wait_until file_has "$out" ready
}

figures() {
    "$VGPU" list --json --interval 0
}

has() { # JQ-FILTER
    figures | jq -e "$@" >/dev/null || {
        figures
        return 1
    } >&2
}

refused() { # STATUS MESSAGE ARGUMENT...
    local before status=$1 message=$2
    shift 2
    before=$(sha256sum <"$VGPU_POOL")
    run "-$status" --separate-stderr "$VGPU" set "$@"
    assert_equal "$output" ""
    assert_equal "${stderr_lines[0]}" "vgpu set: $message"
    assert_equal "$(sha256sum <"$VGPU_POOL")" "$before"
}

@test "set changes every option of a live virtual GPU, and says nothing" {
    tenant name=train quota=4096 charge=1000
    run -0 --separate-stderr "$VGPU" set train --weight 700 --limit 30 --priority high --quantum 5 --concurrency 3 --memory 4G
    assert_equal "$output$stderr" ""
    has '.vgpus[0] | .weight == 700 and .limit_percent == 30 and .priority == "high" and .quantum_ns == 5000000 and .concurrency == 3 and .quota_bytes == 4294967296'
    has '.gpus[0].reserved_bytes == 4294967296'
    run -0 "$VGPU" set --limit none --quantum=auto train --priority normal --concurrency 1
    has '.vgpus[0] | .weight == 700 and .limit_percent == 0 and .priority == "normal" and .quantum_ns == 0 and .concurrency == 1 and .quota_bytes == 4294967296'
    run -0 "$VGPU" set train --memory 25% --compute-limit 50%
    has '.vgpus[0] | .quota_bytes == 20 * 1073741824 and .limit_percent == 50'
}

@test "the help names every option that set has" {
    run -0 "$VGPU" help set
    for flag in memory weight limit priority quantum concurrency gpu pool; do
        assert_contains "$output" "  --$flag "
    done
}

@test "set names the virtual GPU as list does, also one without a given name" {
    tenant
    run -0 "$VGPU" set "pool_tenant:$pid" --weight 3
    has '.vgpus[0].weight == 3'
}

@test "set changes the virtual GPUs of a name on every GPU, or on the one that is named" {
    tenant name=team gpu=0
    tenant name=team gpu=1
    run -0 "$VGPU" set team --weight 5
    has '[.vgpus[].weight] == [5, 5]'
    run -0 "$VGPU" set team --weight 6 --gpu 1
    has '[.vgpus[].weight] == [5, 6]'
    run -0 "$VGPU" set team --weight 7 --gpu GPU-dead0000-0000-0000-0000-000000000000
    has '[.vgpus[].weight] == [7, 6]'
    refused 1 "there is no virtual GPU 'team' on GPU 2 in the pool $VGPU_POOL" team --weight 8 --gpu 2
}

@test "a quota below what is in use, beyond what others leave, or given to who has none is refused with the numbers" {
    tenant name=train quota=4096 charge=1000
    tenant name=other quota=16384
    tenant name=open
    refused 1 "train on Test GPU cannot have a quota of 1998 MiB: it holds 2000 MiB" train --memory 1999M
    refused 1 "a quota of 50.0 GiB does not fit on Test GPU with 80.0 GiB: other has reserved 32.0 GiB" train --memory 50G
    refused 1 "train on Test GPU cannot have a quota of 92160 MiB: the GPU has 81920 MiB" train --memory 90G
    refused 1 "open on Test GPU began without a quota and cannot get one while it runs" open --memory 1G
    refused 1 "--memory 1M is less than one chunk, which is 2 MiB in the pool $VGPU_POOL" train --memory 1M
    # All or none.
    refused 1 "train on Test GPU cannot have a quota of 1998 MiB: it holds 2000 MiB" train --weight 9 --memory 1999M
}

@test "what set does not understand is refused with 2, and nothing is changed" {
    tenant name=train quota=4096
    refused 2 "no virtual GPU given" --weight 5
    refused 2 "nothing to change" train
    refused 2 "unexpected argument 'other'" train other --weight 5
    refused 2 "--weight: VGPU_WEIGHT=0 is not understood: allowed is a whole number from 1 to 10000" train --weight 0
    refused 2 "--limit: VGPU_COMPUTE_LIMIT=0 is not understood: allowed is none, or a percentage from 1 to 100" train --limit 0
    refused 2 "--limit: VGPU_COMPUTE_LIMIT=0 is not understood: allowed is none, or a percentage from 1 to 100" train --lim=0
    refused 2 "--compute-limit: VGPU_COMPUTE_LIMIT=0 is not understood: allowed is none, or a percentage from 1 to 100" train --compute-limit 0
    refused 2 "--priority: VGPU_PRIORITY=top is not understood: allowed is high, normal or low" train --priority top
    refused 2 "--memory 0=8G: one quota at a time, with --gpu for one GPU of several" train --memory 0=8G
    refused 2 "unrecognized option '--name'" train --name other
    refused 2 "option '--weight' requires an argument" train --weight
}

@test "set fails with 1 where there is no pool, no such virtual GPU, or no permission" {
    run -1 --separate-stderr "$VGPU" set train --weight 5
    assert_equal "$stderr" "vgpu set: no pool at $VGPU_POOL: nothing has run under vgpu"
    [ ! -e "$VGPU_POOL" ]
    tenant name=train
    refused 1 "there is no virtual GPU 'training' in the pool $VGPU_POOL" training --weight 5
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    run -1 --separate-stderr "$VGPU" set train --weight 5
    assert_contains "$stderr" "there is no virtual GPU 'train'"
    if [[ $EUID == 0 ]] && command -v setpriv >/dev/null; then
        chmod 711 "$BATS_TEST_TMPDIR"
        run -1 --separate-stderr setpriv --reuid=65534 --regid=65534 --clear-groups "$VGPU" set train --weight 5 --pool "$VGPU_POOL"
        assert_contains "$stderr" "cannot open the pool $VGPU_POOL: Permission denied"
    fi
}

@test "a program sees its new quota at once" {
    spawn "$VGPU" run --name told --memory 4G -- "$PROGRAMS/mem_told" watch
    wait_until file_has "$out" "device 4294967296 total 4294967296"
    run -0 "$VGPU" set told --memory 3G
    wait_until file_has "$out" "device 3221225472 total 3221225472"
    VGPU_NAME=told run -0 --separate-stderr shim "$PROGRAMS/nvml_memory"
    assert_contains "$output" 3072
    run -0 "$VGPU" set told --memory 5G
    wait_until file_has "$out" "device 5368709120 total 5368709120"
}

# part_is NAME LEAST MOST: whether NAME has the GPU for so many percent of three seconds
part_is() {
    local percent
    percent=$("$VGPU" list --json --interval 3 | jq --arg name "$1" '.vgpus[] | select(.name == $name) | .share_interval * 100 | round')
    echo "$1: $percent %, allowed is $2 to $3"
    [[ $percent -ge $2 && $percent -le $3 ]]
}

@test "a limit that is set on a program alone on the GPU holds, and goes when it is taken back" {
    spawn "$VGPU" run --name alone -- "$KERNELS/spin" --seconds 600 --kernel-us 500
    wait_until -t 20 bash -c '"$VGPU" list --json --interval 0 | jq -e ".vgpus[0].launches > 100"'
    run -0 "$VGPU" set alone --limit 30
    wait_until -t 15 part_is alone 22 38
    run -0 "$VGPU" set alone --limit none
    wait_until -t 15 part_is alone 85 100
}

@test "a weight that is set while two programs share the GPU changes their shares" {
    spawn "$VGPU" run --name a -- "$KERNELS/spin" --seconds 600 --kernel-us 500
    spawn "$VGPU" run --name b -- "$KERNELS/spin" --seconds 600 --kernel-us 500
    wait_until -t 20 bash -c '"$VGPU" list --json --interval 0 | jq -e "[.vgpus[].launches > 100] == [true, true]"'
    run -0 "$VGPU" set b --weight 400
    wait_until -t 15 part_is b 70 88
}
