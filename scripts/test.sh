#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Runs the tests that `make tests` built and ends with one line: N passed, N failed, N skipped.
#
#   scripts/test.sh [--gpu] [SUITE...]
#
# A suite is a file tests/NAME.bats (NAME), or a unit test tests/unit/NAME.c in one of its builds (unit/NAME, asan/NAME, tsan/NAME).
# SUITE is such a name or a shell pattern ('tsan/*'); without any, all run. --gpu runs the Bats suites on the real GPU.
#
# Every suite speaks TAP. A test that was planned and not reported has failed, and so has a suite that crashes, exceeds its time,
# plans nothing or reports more than it planned. A Bats file may say `# bats file_tags=serial` (runs alone, at the end: timing
# matters to it) and `nogpu` (not part of --gpu).
#
# Environment: JOBS (suites at once), BATS (the bats program), BUILD (the build folder), VGPU_SUITE_TIMEOUT (seconds, 300).
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
build=${BUILD:-build}
[[ $build == /* ]] || build=$root/$build
suite_timeout=${VGPU_SUITE_TIMEOUT:-300}

gpu=sim
if [[ ${1:-} == --gpu ]]; then
    gpu=real
    shift
fi
patterns=("$@")
# On a real GPU the suites would take time and memory from each other, and nothing is won: contexts are made one at a time.
default_jobs=$(nproc)
[[ $gpu == sim ]] || default_jobs=1
jobs=${JOBS:-$default_jobs}

# The tests decide what the programs under test see; what the caller has set for himself is not for them.
unset "${!VGPU_@}" "${!SIMGPU_@}" LD_PRELOAD BUILD MAKEFLAGS MFLAGS MAKELEVEL
[[ $gpu == real ]] || unset CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH
# Not as BUILD: a test that runs make means another folder.
export VGPU_TEST_BUILD=$build VGPU_TEST_GPU=$gpu LC_ALL=C.UTF-8
export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-120}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}

find_bats() {
    local candidate version
    for candidate in "${BATS:-}" "$(command -v bats)" "$root/.tools/bats/usr/bin/bats"; do
        [[ -n $candidate && -x $candidate ]] || continue
        version=$("$candidate" --version 2>/dev/null | sed -n 's/^Bats //p')
        [[ $(printf '%s\n' 1.5.0 "${version:-0}" | sort -V | head -n1) == 1.5.0 ]] && echo "$candidate" && return
    done
    return 1
}

has_tag() { # FILE TAG
    grep -qE "^# bats file_tags=(.*,)?$2(,.*)?\$" "$1"
}

chosen() { # SUITE
    local pattern
    [[ ${#patterns[@]} -eq 0 ]] && return
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053 # a pattern is what it is for
        [[ $1 == $pattern ]] && return
    done
    return 1
}

# Address-space randomisation of newer kernels is too wide for the thread sanitizer of older compilers.
fixed_addresses=()
if setarch -R true 2>/dev/null; then
    fixed_addresses=(setarch -R)
fi

suite_command() { # SUITE; sets cmd
    local name=${1#*/}
    case $1 in
    unit/*) cmd=("$build/tests/unit/$name") ;;
    asan/*) cmd=("$build/asan/tests/unit/$name") ;;
    tsan/*) cmd=("${fixed_addresses[@]}" "$build/tsan/tests/unit/$name") ;;
    *) cmd=("$bats" --tap --print-output-on-failure "tests/$1.bats") ;;
    esac
}

# Kills what a suite left running. The mark in the environment also finds processes that left the process group.
kill_left_over() { # MARK
    local file pid
    for file in /proc/[0-9]*/environ; do
        pid=${file//[!0-9]/}
        if [[ $pid != "$BASHPID" && -r $file ]] && grep -qzxF "VGPU_TEST_SUITE=$1" "$file" 2>/dev/null; then
            kill -KILL "$pid" 2>/dev/null && echo "killed process $pid, which the suite had left running"
        fi
    done
}

# Counts what TAP on standard input says; $1 is the suite's exit status. Prints "passed failed skipped", then reasons.
count() {
    awk -v rc="$1" '
        /^1\.\.[0-9]+/   { plan = substr($1, 4) + 0; planned = 1; if (!plan) { if (tolower($0) ~ /# *skip/) skipped++; else empty = 1 } }
        /^ok( |$)/       { seen++; if (tolower($0) ~ /# *skip/) skipped++; else passed++ }
        /^not ok( |$)/   { seen++; failed++ }
        /^Bail out!/     { bailed = 1 }
        END {
            if (!planned) why = why "no plan: it crashed or is no test\n"
            else if (seen < plan) why = why (plan - seen) " planned tests were not reported\n"
            else if (seen > plan) why = why (seen - plan) " more tests were reported than planned\n"
            if (empty) why = why "it ran no test\n"
            if (bailed) why = why "it bailed out\n"
            if (rc == 124 || rc == 137) why = why "it was stopped after its time was up (status " rc ")\n"
            if (planned && seen < plan) failed += plan - seen
            else if (why != "" || (rc != 0 && !failed)) failed++
            if (rc != 0) why = why "exit status " rc "\n"
            printf "%d %d %d\n%s", passed, failed, skipped, why
        }'
}

run_suite() { # SUITE
    local suite=$1 base=$results/${1//\//.} mark=$$.$1 rc start passed failed skipped word
    local cmd=()
    suite_command "$suite"
    start=$(date +%s%N)
    if [[ $suite == */* && ! -x ${cmd[-1]} ]]; then
        echo "${cmd[-1]} is not built" >"$base.err"
        : >"$base.tap"
        rc=127
    else
        VGPU_TEST_SUITE=$mark timeout --kill-after=10 "$suite_timeout" "${cmd[@]}" >"$base.tap" 2>"$base.err" </dev/null
        rc=$?
        kill_left_over "$mark" >>"$base.err"
    fi
    count "$rc" <"$base.tap" >"$base.count"
    read -r passed failed skipped <"$base.count"
    word=ok
    [[ $failed -eq 0 ]] || word=FAILED
    printf '%-7s %-28s %4d passed%s%s  %d ms\n' "$word" "$suite" "$passed" \
        "$([[ $failed -eq 0 ]] || echo ", $failed failed")" "$([[ $skipped -eq 0 ]] || echo ", $skipped skipped")" \
        $((($(date +%s%N) - start) / 1000000))
}

suites=() serial=()
for file in tests/*.bats; do
    [[ -e $file ]] || continue
    name=$(basename "$file" .bats)
    chosen "$name" || continue
    [[ $gpu == real ]] && has_tag "$file" nogpu && continue
    if has_tag "$file" serial; then serial+=("$name"); else suites+=("$name"); fi
done
if [[ $gpu == sim ]]; then
    for variant in unit asan tsan; do
        for file in tests/unit/*.c; do
            [[ -e $file ]] || continue
            name=$variant/$(basename "$file" .c)
            chosen "$name" && suites+=("$name")
        done
    done
fi

bats=
if [[ $gpu == real || ${#serial[@]} -gt 0 || " ${suites[*]} " =~ \ [^/]+\  ]]; then
    if ! bats=$(find_bats); then
        echo "Bats 1.5 or newer is missing: run scripts/deps.sh, or set BATS" >&2
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
fi

# Of its own: several may run in one tree.
mkdir -p "$build" && results=$(mktemp -d "$build/test-results.XXXXXX") || exit 1
trap 'rm -rf "$results"' EXIT
running=0
for suite in "${suites[@]}"; do
    if [[ $running -ge $jobs ]]; then
        wait -n
        running=$((running - 1))
    fi
    run_suite "$suite" &
    running=$((running + 1))
done
wait
for suite in "${serial[@]}"; do
    run_suite "$suite"
done

total_passed=0 total_failed=0 total_skipped=0
for suite in "${suites[@]}" "${serial[@]}"; do
    base=$results/${suite//\//.}
    # A suite whose runner itself died has no count.
    read -r passed failed skipped <"$base.count" || { passed=0 failed=1 skipped=0; }
    total_passed=$((total_passed + passed))
    total_failed=$((total_failed + failed))
    total_skipped=$((total_skipped + skipped))
    if [[ $skipped -gt 0 ]]; then
        grep -iE '^(ok|1\.\.0) .*# *skip' "$base.tap" | sed "s|^|skipped: $suite: |"
    fi
    if [[ $failed -gt 0 ]]; then
        printf '\n--- %s failed:\n' "$suite"
        sed -n '2,$p' "$base.count"
        # Everything but the tests that passed.
        grep -vE '^(ok |1\.\.)' "$base.tap"
        cat "$base.err"
    fi
done

if [[ $((total_passed + total_failed + total_skipped)) -eq 0 ]]; then
    echo "no test ran${patterns[*]:+: nothing matches ${patterns[*]}}" >&2
    total_failed=1
fi
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[[ $total_failed -eq 0 ]]
