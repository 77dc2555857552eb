#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# Contexts count against the quota.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export VGPU_MEMORY=3G VGPU_LOG=warn
}

teardown() { common_teardown; }

@test "contexts are charged and given back, whatever the way they end" {
    run -0 --separate-stderr shim "$PROGRAMS/context_charge"
    local context
    context=$("$VGPU" list --json --interval 0 | jq '.gpus[0].context_bytes')
    assert_equal "$output" "context $context"
}

@test "no more contexts can be made than the quota holds" {
    run -0 --separate-stderr shim "$PROGRAMS/context_limit"
    local fit
    fit=$("$VGPU" list --json --interval 0 | jq ".gpus[0].context_bytes as \$context | 3 * 1073741824 / \$context | floor")
    assert_equal "$output" "contexts $fit"
}

@test "contexts by the earlier forms of their functions are charged and given back" {
    local all=all
    if real_gpu; then all=; fi
    run -0 --separate-stderr shim "$PROGRAMS/context_forms" $all
    assert_equal "$output$stderr" ""
}

@test "a context that gets the handle of one just destroyed keeps its own charge" {
    sim_only "contexts that take next to no time to make"
    SIMGPU_REUSE=1 run -0 --separate-stderr shim "$PROGRAMS/context_threads"
    assert_equal "$output$stderr" ""
}

@test "what a context takes is measured once for a pool, whoever comes first" {
    VGPU_LOG=debug run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    assert_contains "$stderr" "a context on GPU 0 takes"
    VGPU_LOG=debug run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    refute_contains "$stderr" "a context on GPU 0 takes"
}

@test "what programs outside the pool hold does not count as part of a context" {
    sim_only "a GPU of known context size"
    spawn "$PROGRAMS/mem_fill" $((512 << 20))
    wait_until file_has "$out" full
    kill -KILL "$pid"
    wait "$pid" || true # its memory is free when all of its threads are gone
    spawn "$PROGRAMS/mem_told"
    spawn "$PROGRAMS/busy" "$KERNELS/testkernels.ptx" 100
    wait_until file_has "$out" busy
    run -0 --separate-stderr shim "$PROGRAMS/attach_try"
    local context
    context=$("$VGPU" list --json --interval 0 | jq '.gpus[0].context_bytes / 1048576')
    [[ $context -ge 512 && $context -le 522 ]]
}
