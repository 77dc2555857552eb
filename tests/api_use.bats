#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The C API as its users meet it: header, pkg-config file, examples, Python, man pages.
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    export LD_LIBRARY_PATH=$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} VGPU_LOG=warn
    export PYTHONPATH=$root/bindings/python
    module=$KERNELS/testkernels.ptx
}

teardown() { common_teardown; }

# functions: every function of the header
functions() {
    grep -oE '\bvgpu_[a-z_]+\(' "$root/include/vgpu.h" | tr -d '(' | sort -u | grep -vx vgpu_task_function
}

fail_with() { # TEXT
    echo "$1" >&2
    return 1
}

@test "the header needs no CUDA and compiles as strict C11 and C++11 without a warning" {
    local flags=(-Wall -Wextra -Wpedantic -Wshadow -Werror -fsyntax-only -I "$root/include" -include vgpu.h)
    printf '%s\n' 'struct vgpu_config c = VGPU_CONFIG_INIT;' 'struct vgpu_launch_config l = VGPU_LAUNCH_INIT;' \
        'struct vgpu_instance_stats s = VGPU_STATS_INIT;' >"$BATS_TEST_TMPDIR/use.c"
    run -0 gcc -std=c11 "${flags[@]}" "$BATS_TEST_TMPDIR/use.c"
    run -0 g++ -std=c++11 "${flags[@]}" -x c++ "$BATS_TEST_TMPDIR/use.c"
}

@test "the library exports what the header declares, with a version, and nothing else" {
    run -0 bash -c 'nm --dynamic --defined-only --with-symbol-versions "$1" | sed -n "s/.* T \(.*\)@@VGPU_0.1$/\1/p" | sort' - \
        "$BUILD/libvgpu.so.0"
    assert_equal "$output" "$(functions)"
}

@test "the examples do what they say" {
    run -0 --separate-stderr "$BUILD/examples/two_instances"
    assert_equal "${lines[0]}" "light: weight 100, 20 tasks, last byte 42"
    run -0 --separate-stderr "$BUILD/examples/own_kernel"
    assert_equal "$output" 42
    mkfifo "$BATS_TEST_TMPDIR/hold"
    exec 4<>"$BATS_TEST_TMPDIR/hold"
    spawn bash -c '"$1" produce <"$0"' "$BATS_TEST_TMPDIR/hold" "$BUILD/examples/shared_region"
    wait_until file_has "$out" published
    run -0 --separate-stderr "$BUILD/examples/shared_region" consume
    assert_equal "$output" "generation 5: 5"
    echo >&4
    wait_until process_gone "$pid"
}

@test "the program in README.md does what it says" {
    sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '/^```/d' >"$BATS_TEST_TMPDIR/program.c"
    gcc -Wall -Wextra -Werror -Wno-unused-parameter -I "$root/include" -o "$BATS_TEST_TMPDIR/program" "$BATS_TEST_TMPDIR/program.c" \
        -L "$BUILD" -lvgpu
    run -0 --separate-stderr "$BATS_TEST_TMPDIR/program"
    assert_equal "$stderr" ""
}

@test "the Python binding does all of it" {
    run -0 --separate-stderr python3 "$root/tests/programs/api_binding.py" "$module"
    assert_equal "$output" "done"
    assert_equal "$stderr" ""
}

@test "the Python binding knows every function of the header" {
    local name
    for name in $(functions); do
        [[ $name == vgpu_malloc || $name == vgpu_strerror ]] || grep -qF "\"${name#vgpu_}\"" "$PYTHONPATH/vgpu.py" || {
            echo "$name" >&2
            return 1
        }
    done
}

@test "every function has a man page, with the prototype that the header has" {
    local name page prototype pages=$BUILD/man header
    header=$(tr -s '[:space:]' ' ' <"$root/include/vgpu.h")
    for name in $(functions); do
        [[ -s $pages/$name.3 ]] || fail_with "no page: $name"
        page=$root/docs/$(sed -n 's|^\.so man3/\(.*\)|\1|p' "$pages/$name.3").scd
        [[ -f $page ]] || page=$root/docs/$name.3.scd
        prototype=$(grep -m1 -E "^[a-z].*\b$name\(.*;$" "$page") || fail_with "no prototype in $page: $name"
        [[ $header == *"$prototype"* ]] || fail_with "not in the header: $prototype"
    done
}

@test "the man pages are laid out without a complaint and have the sections that pages have" {
    local page section
    if real_gpu && ! man --version 2>/dev/null | grep -q '^man [0-9]'; then skip "needs man-db"; fi
    for page in "$BUILD"/man/vgpu_*.3; do
        if grep -q '^\.so' "$page"; then continue; fi
        LC_ALL=C.UTF-8 MANWIDTH=100 run -0 --separate-stderr man --warnings=w -l "$page"
        assert_equal "$stderr" ""
        for section in NAME SYNOPSIS DESCRIPTION "RETURN VALUE" ATTRIBUTES "SEE ALSO"; do
            grep -qxF "$section" <<<"$output" || fail_with "$page lacks $section"
        done
    done
}

@test "two virtual GPUs are two streams and two allocators of one PyTorch program" {
    python3 -c 'import torch; torch.zeros(1, device="cuda")' || skip "needs PyTorch and a GPU that it runs on"
    run -0 --separate-stderr python3 "$PYTHONPATH/torch_two_instances.py" "$BUILD/libtorch_allocator.so"
    assert_contains "$output" "heavy 20 tasks"
    assert_contains "$output" "more than the quota is refused: 629145600 bytes do not fit"
}
