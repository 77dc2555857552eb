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

# rate FILE FROM TO: steps per second between two times of the monotonic clock
rate() {
    awk -v from="$2" -v to="$3" '$1 == "steps" && $3 >= from && $3 <= to {
        if (!n++) { s = $2; t = $3 }
        last = $2; end = $3
    } END { print (last - s) / (end - t) }' "$1"
}

@test "two training loops share the GPU 1:3 by weight, within 3 points" {
    local light heavy from to share
    spawn "$VGPU" run --name light --weight 100 --memory 20G -- python3 -u tests/programs/train.py --seconds 60
    light=$out
    spawn "$VGPU" run --name heavy --weight 300 --memory 20G -- python3 -u tests/programs/train.py --seconds 60
    heavy=$out
    wait_until -t 40 file_has "$light" "steps "
    wait_until -t 40 file_has "$heavy" "steps "
    from=$(($(cut -d. -f1 /proc/uptime) + 2)) to=$(($(cut -d. -f1 /proc/uptime) + 17))
    sleep 18
    share=$(awk -v l="$(rate "$light" "$from" "$to")" -v h="$(rate "$heavy" "$from" "$to")" 'BEGIN { print 100 * l / (l + h) }')
    "$VGPU" list --interval 0
    echo "light makes $share % of the steps, 25 % are due"
    awk -v share="$share" 'BEGIN { exit !(share > 22 && share < 28) }'
}
