# SPDX-License-Identifier: AGPL-3.0-or-later
# bats file_tags=serial
bats_require_minimum_version 1.5.0
load helper
setup() { common_setup; }
teardown() { common_teardown; }

demo() {
    local gpu=sim
    if real_gpu; then gpu=real; fi
    env BUILD="${build:-$BUILD}" DEMO_GPU=$gpu DEMO_SECONDS=5 "$root/scripts/demo.sh" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
}

@test "the demo shows three programs while they share a GPU by weight, one refused at its quota, and what came of it" {
    # On a machine with few processors a share can be off: whoever does not get one does not launch.
    demo || demo || demo
    local name said
    said=$(<"$BATS_TEST_TMPDIR/out")
    for name in hog matmul triad; do
        grep -qE "^ +[0-9]+ s .*$name [1-9][0-9.]* %, [0-9]+ kernels" <<<"$said"
        grep -qE "^$name .* verified$" <<<"$said"
    done
    grep -qE "^hog +100 .* [1-9][0-9]* MiB +[0-9]+  verified$" <<<"$said"
    assert_contains "$said" "All results are right, all shares are within 3 points, and hog was refused what exceeds its quota."
}

# instead PROGRAM LINE: the demo with a shell script in the place of one of its programs
instead() {
    local build=$BATS_TEST_TMPDIR/build
    cp -rs "$BUILD/" "$build"
    rm "$build/kernels/$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$build/kernels/$1"
    chmod +x "$build/kernels/$1"
    demo
}

@test "the demo fails where nothing is refused" {
    run -1 instead hog "exec '$KERNELS/triad' --size 65536 --seconds 5"
    assert_equal "$(<"$BATS_TEST_TMPDIR/err")" "demo: hog asked for more memory than its quota and was not refused"
}

@test "the demo fails where a result is wrong" {
    run -1 instead matmul "'$KERNELS/matmul' --size 64 --seconds 5; exit 1"
    grep -qE "^FAILED: .*the result of matmul is wrong" "$BATS_TEST_TMPDIR/out"
}

@test "the demo refuses settings that it does not understand" {
    DEMO_SECONDS=2 run -1 --separate-stderr "$root/scripts/demo.sh"
    assert_equal "$stderr" "demo: DEMO_SECONDS=2: expected a whole number from 3"
    DEMO_GPU=none run -1 --separate-stderr "$root/scripts/demo.sh"
    assert_equal "$stderr" "demo: DEMO_GPU=none: expected real, sim or auto"
}
