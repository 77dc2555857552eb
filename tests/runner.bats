#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The test runner: every way in which a suite can go wrong must count as a failure.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    unset LD_LIBRARY_PATH
    mkdir -p "$BATS_TEST_TMPDIR/tree/scripts" "$BATS_TEST_TMPDIR/tree/tests/unit"
    cp "$root/scripts/test.sh" "$BATS_TEST_TMPDIR/tree/scripts/"
    cd "$BATS_TEST_TMPDIR/tree" || return
}

teardown() { common_teardown; }

# unit_test NAME: a "unit test" in all its builds, which is the script on standard input
unit_test() {
    local variant
    touch "tests/unit/$1.c"
    { echo '#!/bin/sh' && cat; } >"$BATS_TEST_TMPDIR/script"
    for variant in build build/asan build/tsan; do
        install -D -m 755 "$BATS_TEST_TMPDIR/script" "$variant/tests/unit/$1"
    done
}

last_line() {
    echo "${lines[-1]}"
}

@test "passed and skipped tests of all builds are added up" {
    unit_test good <<<'echo 1..3; echo ok 1 - a; echo "ok 2 - b # SKIP no reason"; echo ok 3 - c'
    run -0 --separate-stderr scripts/test.sh
    assert_equal "$(last_line)" "6 passed, 0 failed, 3 skipped"
}

@test "a failing test fails the run and its output is shown" {
    unit_test bad <<<'echo 1..2; echo ok 1 - a; echo not ok 2 - broken thing; echo "# the reason"; echo on stderr >&2; exit 1'
    run -1 scripts/test.sh 'unit/*'
    assert_equal "$(last_line)" "1 passed, 1 failed, 0 skipped"
    assert_contains "$output" "not ok 2 - broken thing"
    assert_contains "$output" "# the reason"
    assert_contains "$output" "on stderr"
}

@test "tests that were planned and not reported have failed" {
    unit_test short <<<'echo 1..5; echo ok 1 - a'
    run -1 scripts/test.sh unit/short
    assert_equal "$(last_line)" "1 passed, 4 failed, 0 skipped"
}

@test "two runs in one tree do not disturb each other" {
    unit_test slow <<<'touch begun; until [ -e over ]; do sleep 0.02; done; echo 1..1; echo ok 1 - a'
    unit_test quick <<<'echo 1..1; echo ok 1 - a'
    spawn scripts/test.sh unit/slow
    wait_until test -e begun
    run -0 --separate-stderr scripts/test.sh unit/quick
    assert_equal "$(last_line)" "1 passed, 0 failed, 0 skipped"
    touch over
    wait_until process_gone "$pid"
    assert_equal "$(tail -n1 "$out")" "1 passed, 0 failed, 0 skipped"
    assert_equal "$(compgen -G 'build/test-results*')" ""
}

@test "more tests than planned are a failure" {
    unit_test long <<<'echo 1..1; echo ok 1 - a; echo ok 2 - b'
    run -1 scripts/test.sh unit/long
    assert_equal "$(last_line)" "2 passed, 1 failed, 0 skipped"
}

@test "a suite that crashes after its last test has failed" {
    unit_test crash <<<'echo 1..1; echo ok 1 - a; kill -SEGV $$'
    run -1 scripts/test.sh unit/crash
    assert_equal "$(last_line)" "1 passed, 1 failed, 0 skipped"
    assert_contains "$output" "exit status 139"
}

@test "a suite that says nothing has failed" {
    unit_test silent <<<'exit 0'
    run -1 scripts/test.sh unit/silent
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
}

@test "a suite that plans no test has failed, unless it says why it skips" {
    unit_test empty <<<'echo 1..0'
    unit_test skipped <<<'echo "1..0 # SKIP no such machine"'
    run -1 scripts/test.sh unit/empty
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
    run -0 --separate-stderr scripts/test.sh unit/skipped
    assert_equal "$(last_line)" "0 passed, 0 failed, 1 skipped"
}

@test "a suite that hangs is stopped, with what it started, and has failed" {
    unit_test hang <<<'echo 1..1; setsid sleep 1234567 & echo ok 1 - a; sleep 100'
    VGPU_SUITE_TIMEOUT=1 run -1 scripts/test.sh unit/hang
    assert_equal "$(last_line)" "1 passed, 1 failed, 0 skipped"
    assert_contains "$output" "its time was up"
    run -1 pgrep -f 'sleep 1234567'
}

@test "a unit test that was not built has failed" {
    touch tests/unit/unbuilt.c
    run -1 scripts/test.sh unit/unbuilt
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
    assert_contains "$output" "is not built"
}

@test "no test at all is a failure" {
    run -1 scripts/test.sh
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
    unit_test good <<<'echo 1..1; echo ok 1'
    run -1 scripts/test.sh nothing-has-this-name
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
}

@test "a broken Bats file has failed" {
    echo 'this is (no bash' >tests/broken.bats
    run -1 scripts/test.sh broken
    assert_equal "$(last_line)" "0 passed, 1 failed, 0 skipped"
}

@test "Bats suites run with the options of the caller cleared" {
    printf '@test "a" { [ -z "$VGPU_MEMORY" ] && [ "$VGPU_TEST_GPU" = sim ]; }\n' >tests/clear.bats
    VGPU_MEMORY=1G run -0 --separate-stderr scripts/test.sh clear
    assert_equal "$(last_line)" "1 passed, 0 failed, 0 skipped"
}

@test "on the real GPU only the Bats suites run, without those that say nogpu" {
    printf '# bats file_tags=serial,nogpu\n@test "a" { false; }\n' >tests/no.bats
    printf '@test "b" { [ "$VGPU_TEST_GPU" = real ]; }\n' >tests/yes.bats
    unit_test bad <<<'exit 1'
    run -0 --separate-stderr scripts/test.sh --gpu
    assert_equal "$(last_line)" "1 passed, 0 failed, 0 skipped"
}
