#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# PyTorch, unmodified, on a real GPU. Skipped where there is no PyTorch that sees one.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup_file() {
    HAVE_TORCH=0
    if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then HAVE_TORCH=1; fi
    export HAVE_TORCH
}

setup() {
    real_only
    [[ $HAVE_TORCH == 1 ]] || skip "needs PyTorch with CUDA"
    local libraries=${LD_LIBRARY_PATH-}
    common_setup
    export LD_LIBRARY_PATH=$libraries # PyTorch brings a CUDA runtime of its own
}

teardown() {
    if [[ -v spawned ]]; then common_teardown; fi
}

@test "torch.cuda.mem_get_info and the device properties say the quota" {
    run -0 --separate-stderr "$VGPU" run --memory 8G -- python3 -c '
import torch
free, total = torch.cuda.mem_get_info()
assert total == 8 << 30, total
assert free < total and free > total - (2 << 30), free
assert torch.cuda.get_device_properties(0).total_memory == 8 << 30
print("ok")'
    assert_equal "$output" ok
}

@test "a tensor beyond the quota raises the ordinary out-of-memory error, and the program goes on" {
    run -0 --separate-stderr "$VGPU" run --memory 8G -- python3 -c '
import torch
try:
    torch.empty(10 << 30, dtype=torch.uint8, device="cuda")
    raise SystemExit("not refused")
except torch.cuda.OutOfMemoryError as error:
    assert "8.00 GiB" in str(error), error
x = torch.ones(1 << 20, device="cuda")
assert x.sum().item() == 1 << 20
print("ok")'
    assert_equal "$output" ok
}

@test "a training loop computes the same with and without the library" {
    local native
    run -0 --separate-stderr python3 tests/programs/train.py --steps 30
    native=$output
    run -0 --separate-stderr "$VGPU" run --memory 20G -- python3 tests/programs/train.py --steps 30
    assert_equal "$output" "$native"
}

@test "a CUDA graph is captured and replayed with the same result, also while others want the GPU" {
    local native
    run -0 --separate-stderr python3 tests/programs/train.py --steps 30 --graph
    native=$output
    spawn "$VGPU" run --memory 4G -- "$KERNELS-static/spin" --seconds 600
    run -0 --separate-stderr "$VGPU" run --memory 20G -- python3 tests/programs/train.py --steps 30 --graph
    assert_equal "$output" "$native"
}

steps_of() { # FILE: how many steps the last line reports
    sed -n 's/^steps \([0-9]*\)$/\1/p' "$1" | tail -n1
}

@test "two training loops share the GPU 1:3 by weight, within 3 points" {
    local light heavy light_before heavy_before
    spawn "$VGPU" run --name light --weight 100 --memory 20G -- python3 -u tests/programs/train.py --seconds 60
    light=$out
    spawn "$VGPU" run --name heavy --weight 300 --memory 20G -- python3 -u tests/programs/train.py --seconds 60
    heavy=$out
    wait_until -t 40 file_has "$light" "steps "
    wait_until -t 40 file_has "$heavy" "steps "
    local before after share
    before=$("$VGPU" list --json --interval 0)
    light_before=$(steps_of "$light") heavy_before=$(steps_of "$heavy")
    sleep 10
    after=$("$VGPU" list --json --interval 0)
    share=$(jq -n --argjson a "$before" --argjson b "$after" '
        def charged($list; $who): $list.vgpus | map(select(.name == $who) | .charged_ns) | add;
        (charged($b; "light") - charged($a; "light")) as $light | (charged($b; "heavy") - charged($a; "heavy")) as $heavy
        | 100 * $light / ($light + $heavy)')
    echo "light: $share % of the GPU time, $(($(steps_of "$light") - light_before)) steps; heavy: $(($(steps_of "$heavy") - heavy_before)) steps"
    jq -n --argjson share "$share" -e '$share > 22 and $share < 28' >/dev/null
}
