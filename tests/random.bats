#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# A million calls over all families of memory, by several threads and processes that share one quota: in the end nothing is charged, and
# at no time did they have more of the GPU's memory than their quota.
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper

setup_file() {
    export BATS_TEST_TIMEOUT=250
}

setup() {
    common_setup
    export VGPU_MEMORY=4G VGPU_NAME=random VGPU_LOG=warn
}

teardown() { common_teardown; }

figure() {
    "$VGPU" list --json --interval 0 | jq ".vgpus[0].$1"
}

# random PROCESSES CALLS THREADS [OPTION...]: runs them and checks that the ledger and the driver have everything back; sets peak to what the
# driver saw taken at most
random() {
    local number files=() file watcher watched rest processes=$1 calls=$2 threads=$3
    shift 3
    spawn "$PROGRAMS/watch_free" # bare: it sees what the driver sees
    watcher=$pid watched=$out
    wait_until file_has "$watched" ready
    for ((number = 1; number <= processes; number++)); do
        spawn_shim "$PROGRAMS/random_calls" --calls "$calls" --threads "$threads" --seed "$number" --hold \
            --go "$BATS_TEST_TMPDIR/go" "$@"
        files+=("$out")
        wait_until file_has "$out" ready
    done
    touch "$BATS_TEST_TMPDIR/go"
    for file in "${files[@]}"; do
        wait_until -t 200 grep -qv ready "$file"
        assert_contains "$(cat "$file" "${file%.out}.err")" "done "
    done
    assert_equal "$(figure used_bytes)" 0
    assert_equal "$(figure 'processes | length')" "$processes"
    [[ $(figure refusals) -gt 0 ]]
    kill -TERM "$watcher"
    wait_until file_has "$watched" peak
    read -r _ peak _ rest < <(grep peak "$watched")
    echo "peak $peak, in the end $rest" # shown where a check fails
    # What programs take is whole blocks. A process that has called cuInit may keep 64 KiB until it ends (H100).
    [[ $rest -lt $((2 << 20)) ]]
}

@test "three processes of four threads make a million calls of all families and leave nothing" {
    random 3 340000 4
    # A pool that has enough free memory in pieces, at a full quota, grows until the allocation has been refused. The largest one
    # that these programs ask for and that may fit is a quarter of the quota.
    [[ $peak -gt $((2 << 30)) && $peak -le $((5 << 30)) ]]
}

@test "at no time does memory but that of pools exceed the quota by a byte" {
    local calls=340000
    if real_gpu; then calls=60000; fi # the million before was the proof; a suite has 300 s
    random 3 $calls 4 --without async --without async-freed-at-once --without pool
    [[ $peak -gt $((2 << 30)) && $peak -le $((4 << 30)) ]]
}
