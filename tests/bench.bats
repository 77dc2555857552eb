#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The benchmark runs, shortened, on the simulated GPU; times mean nothing there. What it computes is checked on given figures.
# bats file_tags=serial,nogpu
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    unset LD_LIBRARY_PATH SIMGPU_STATE VGPU_POOL # the benchmark makes its own
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || skip "needs Python 3.9"
    bench=$root/scripts/bench.py
    out=$BATS_TEST_TMPDIR/out
    export BUILD BENCH_SIMULATED=1 BENCH_SECONDS=0.8
}

teardown() {
    export -n BUILD
    common_teardown
}

# rows PIECE: how many runs of a piece were recorded with figures
rows() {
    grep -c '"metrics"' "$out/$1.jsonl"
}

@test "what the benchmark computes is right on figures that can be checked by hand" {
    run -0 python3 "$root/tests/programs/bench_unit.py"
}

@test "every piece runs on the simulated GPU and is reported, or says what is missing here" {
    run -0 --separate-stderr "$bench" --out "$out"
    local piece
    for piece in launch tenants shares shares30 small latency idle many cpu drain start memory alloc api; do
        [[ $(rows "$piece") -ge 1 ]]
        [[ $(wc -l <"$out/$piece.csv") -ge 2 ]]
    done
    for piece in gate caps pytorch; do
        [[ -s $out/$piece.jsonl ]] || assert_contains "$stderr" "$piece (shim) is left out"
    done
    refute_contains "$(cat "$out"/*.jsonl)" '"failed"'
    assert_contains "$(<"$out/report.md")" "2 × 0.6 ms"
    assert_contains "$(<"$out/report.md")" "its times mean nothing"
    if python3 -c 'import matplotlib' 2>/dev/null; then
        compgen -G "$out/shares-*.svg"
        compgen -G "$out/latency-*.svg"
    else
        assert_contains "$stderr" "no plots"
    fi
}

@test "rounds of several calls are merged into one table" {
    "$bench" --out "$out/one" start
    "$bench" --out "$out/two" start
    run -0 "$bench" report "$out/one" "$out/two"
    assert_contains "$(<"$out/one/report.md")" "2 rounds: median [smallest, largest]"
}

# two_cases OPTION...: a case of two pieces, under one arm
two_cases() {
    BENCH_CASES='^(2 × 0.6|driver)' BENCH_ARMS=shim "$bench" --out "$out" "$@" tenants start
}

@test "a call makes what is missing, and says so when nothing is" {
    BENCH_ROUNDS=1 run -0 two_cases
    BENCH_ROUNDS=2 run -0 two_cases
    assert_equal "$(rows start)" 2
    assert_equal "$(rows tenants)" 2
    BENCH_ROUNDS=2 run -0 two_cases
    assert_contains "$output" "all 4 rounds are there"
    assert_equal "$(rows tenants)" 2
    assert_contains "$(<"$out/report.md")" "2 rounds: median [smallest, largest]"
}

@test "a call of a few minutes makes what fits into them, says what is missing, and the next goes on" {
    # A run of 12 s does not fit into 12; a program from start to end does.
    BENCH_SECONDS=12 run -0 two_cases --minutes 0.2
    assert_equal "$(rows start)" 1
    [[ ! -e $out/tenants.jsonl ]]
    assert_contains "$output" "missing: tenants, rounds: 1, minutes: "
    assert_contains "$output" "1 of 2 rounds are missing"
    BENCH_SECONDS=12 run -0 two_cases --minutes 2
    assert_equal "$(rows tenants)" 1
    assert_equal "$(rows start)" 1
}

@test "a plan says what is missing and how long that takes, and measures nothing" {
    run -0 "$bench" --plan --out "$out" tenants start
    assert_contains "$output" "tenants"
    assert_contains "$output" " minutes"
    refute_contains "$output" "latency"
    [[ ! -e $out ]]
}

@test "a plan needs no GPU" {
    if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then skip "there is a GPU"; fi
    unset BENCH_SECONDS
    BENCH_SIMULATED='' BUILD=nowhere BENCH_ROUNDS=3 run -0 "$bench" --plan --out "$out" latency
    assert_contains "$output" "in all 3 rounds, "
}

@test "what was measured of another version does not count, and is not in the tables of this one" {
    "$bench" --out "$out" start
    sed -i 's/"version": "[^"]*"/"version": "of yesterday"/; s/"machine": "[^"]*"/"machine": "of yesterday"/' "$out/stamps.jsonl"
    run -0 --separate-stderr "$bench" --out "$out" start
    assert_equal "$(rows start)" 2
    assert_contains "$stderr" "does not count: of yesterday"
    assert_contains "$stderr" "start is reported of the simulated GPU"
    refute_contains "$(<"$out/report.md")" "of yesterday"
    assert_contains "$(<"$out/report.md")" "1 round."
    run -0 "$bench" report --of yesterday "$out"
    assert_contains "$(<"$out/report.md")" "Measured on of yesterday."
    run -0 "$bench" report --of all "$out"
    assert_contains "$(<"$out/report.md")" "2 rounds"
}

@test "only the arms and cases that were asked for run" {
    BENCH_ARMS=shim BENCH_CASES='^2 × 0.6' run -0 "$bench" --out "$out" tenants
    assert_equal "$(rows tenants)" 1
    assert_contains "$(<"$out/tenants.jsonl")" '"arm": "shim"'
}

@test "another preload library is an arm of its own, and one that fails is reported and makes the benchmark fail" {
    # The library under another name, with a quota that it refuses.
    export BENCH_PRELOAD_GOOD=$SHIM BENCH_PRELOAD_BAD=$SHIM BENCH_ENV_BAD="VGPU_MEMORY=nonsense VGPU_POOL=$BATS_TEST_TMPDIR/pool"
    export BENCH_ENV_GOOD="VGPU_POOL=$BATS_TEST_TMPDIR/pool VGPU_WEIGHT={weight}"
    BENCH_ARMS=good,bad BENCH_CASES='^2 × 0.6' run -1 --separate-stderr "$bench" --out "$out" tenants
    assert_equal "$(rows tenants)" 1
    assert_contains "$(<"$out/report.md")" "2 × 0.6 ms, bad: a tenant did not get ready: "
    assert_contains "$(<"$out/report.md")" "VGPU_MEMORY=nonsense"
}

@test "a piece or an arm that does not exist is refused, and those that do are named" {
    run -1 --separate-stderr "$bench" --out "$out" nothing
    assert_contains "$stderr" "launch, gate, tenants"
    BENCH_ARMS=shimm run -1 --separate-stderr "$bench" --out "$out" tenants
    assert_contains "$stderr" "native, mps"
    BENCH_ROUNDS=0 run -1 --separate-stderr "$bench" --out "$out" tenants
    assert_contains "$stderr" "BENCH_ROUNDS=0"
    run -1 --separate-stderr "$bench" --minutes soon --out "$out" tenants
    assert_contains "$stderr" "--minutes=soon"
    run -2 --separate-stderr "$bench" --minuets 9 --out "$out" tenants
    assert_contains "$stderr" "--minuets"
}

@test "without a GPU there is no benchmark, unless the simulated one is asked for" {
    if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then skip "there is a GPU"; fi
    BENCH_SIMULATED='' run -1 --separate-stderr "$bench" --out "$out" start
    assert_contains "$stderr" "BENCH_SIMULATED=1"
    [[ ! -e $out ]]
}

# workers FOLDER: the processes that have a folder in their environment
workers() {
    grep -lzF "$1" /proc/[0-9]*/environ 2>/dev/null | grep -c . || true
}

@test "a benchmark that is told to stop leaves neither programs nor folders behind" {
    export BENCH_SECONDS=60 BENCH_CASES='^2 × 0.6' BENCH_ARMS=shim
    spawn "$bench" --out "$out" tenants
    local leader=$pid folder=''
    # Each of its programs has the folder in its environment; one may end while it is looked at.
    find_folder() {
        local child
        child=$(pgrep -P "$leader" -f kernels/timeline | head -n1)
        folder=$(tr '\0' '\n' <"/proc/$child/environ" | sed -n 's|^SIMGPU_STATE=\(.*\)/simgpu$|\1|p')
        [[ -d $folder ]]
    }
    wait_until -t 20 find_folder
    kill -TERM "$leader"
    wait_until process_gone "$leader"
    assert_equal "$(workers "$folder")" 0
    [[ ! -e $folder ]]
    [[ ! -e $out/tenants.jsonl ]] # half a round is none
}
