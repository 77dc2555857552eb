#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The comparison of programs with and without the library: every way in which they can differ must make a row red.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

# Programs in which the library can be told from its absence only because they look for it.
write_rows() {
    cat <<'END'
streams=("${program[@]}" "$build/gpu/streams")
row -s alike "prints the same" "${streams[@]}"
row -s liar "prints something else under the library" bash -c '"$@"; [[ ! -v LD_PRELOAD ]] || echo more' - "${streams[@]}"
row -s quitter "exits otherwise under the library" bash -c '"$@"; [[ ! -v LD_PRELOAD ]]' - "${streams[@]}"
row -s second "differs only when two run at once" bash -c '"$@"; [[ ! -v COMPAT_HERE ]] || echo more' - "${streams[@]}"
row -s stranger "never calls CUDA" echo hello
row -s broken "fails always" bash -c '"$@"; exit 3' - "${streams[@]}"
row -s absent "lacks something" bash -c 'echo "there is no frobnicator"; exit 77'
row -s pretender "lacks something under the library only" bash -c '[[ ! -v LD_PRELOAD ]] || exit 77; "$@"' - "${streams[@]}"
row -s sleeper "does not end where two run at once" bash -c '[[ ! -v COMPAT_HERE ]] || sleep 100; "$@"' - "${streams[@]}"
row -s leaver "leaves a process with memory behind" \
    "${program[@]}" bash -c '"$0" --seconds 60 >/dev/null & "$1"' "$build/kernels/spin" "$build/gpu/streams"
row real "needs a real GPU" "${streams[@]}"
END
}

setup_file() {
    local rows=$BATS_FILE_TMPDIR/rows
    { echo 'program=(env "LD_LIBRARY_PATH=$lib")' && write_rows; } >"$rows"
    export COMPAT_SIMULATED=1 COMPAT_JOBS=4 COMPAT_SECONDS=0 COMPAT_LIMIT=20 COMPAT_ROWS=$rows COMPAT_OUT=$BATS_FILE_TMPDIR/out
    export BUILD
    STATUS=0
    unset LD_LIBRARY_PATH
    "$root/scripts/compat.sh" >"$BATS_FILE_TMPDIR/table" 2>"$BATS_FILE_TMPDIR/progress" || STATUS=$?
    export STATUS
}

setup() {
    common_setup
    unset LD_LIBRARY_PATH
    export BUILD
    cd "$root" || return
}

teardown() { common_teardown; }

# cells ROW: its line in the table
cells() {
    grep -E "^\| (\*\*)?$1(\*\* \(red\))? \|" "$BATS_FILE_TMPDIR/table"
}

@test "a program that is the same with and without the library is green, with the hash of what it printed" {
    run -0 cells alike
    [[ $output =~ ^'| alike | prints the same | '[0-9a-f]{12}' | same | same, '[0-9]+' ms |'$ ]]
}

@test "another output is red, and the run fails" {
    assert_equal "$STATUS" 1
    run -0 cells liar
    assert_contains "$output" "| prints something else |"
}

@test "another exit status is red" {
    run -0 cells quitter
    assert_contains "$output" "| exits with 1 |"
}

@test "a difference that shows only when two run at once is red" {
    run -0 cells second
    assert_contains "$output" "| same | prints something else |"
}

@test "a program that the library was not in is red" {
    run -0 cells stranger
    assert_contains "$output" "| ran without the library |"
}

@test "a program that fails without the library too is red and says so" {
    run -0 cells broken
    assert_contains "$output" "| exits with 3 without the library too |"
}

@test "what the machine lacks is skipped, in the program's own words, and only where it lacks it in every run" {
    run -0 cells absent
    assert_contains "$output" "skipped: there is no frobnicator"
    run -0 cells pretender
    assert_contains "$output" "| exits with 77 |"
}

@test "a program that does not end in time is red" {
    run -0 cells sleeper
    assert_contains "$output" "| not done after 20 s |"
}

@test "memory that is still charged at the end is red" {
    run -0 cells leaver
    assert_contains "$output" "| memory is still charged at the end |"
}

@test "a row for the real GPU is left out on the simulated one" {
    run -1 cells real
}

@test "what a red row printed is kept, and nothing else" {
    run -0 ls "$BATS_FILE_TMPDIR/out"
    assert_contains "$output" liar
    refute_contains "$output" alike
    run -0 cat "$BATS_FILE_TMPDIR/out/liar/one/a/out"
    assert_contains "$output" more
}

@test "two at once wait for each other, and all rows of the simulated GPU are green" {
    unset COMPAT_ROWS
    export COMPAT_OUT=$BATS_TEST_TMPDIR/out COMPAT_SECONDS=1
    run -0 --separate-stderr scripts/compat.sh
    assert_contains "$stderr" "7 green, 0 red, 0 skipped"
    [[ $output =~ same,\ ([0-9]+)\ ms ]]
    [[ ${BASH_REMATCH[1]} -gt 0 ]]
}

@test "a pattern that no row matches is an error that names the rows" {
    run -2 --separate-stderr scripts/compat.sh nonsense
    assert_equal "$output" ""
    assert_contains "$stderr" alike
}

@test "without a GPU, and not asked for the simulated one, it says so" {
    ! compgen -G '/dev/nvidia[0-9]*' >/dev/null || skip "this machine has a GPU"
    unset COMPAT_SIMULATED
    run -1 --separate-stderr scripts/compat.sh
    assert_contains "$stderr" "no NVIDIA GPU"
}
