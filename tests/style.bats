#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The rules of CONTRIBUTING.md that a program can check.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    unset LD_LIBRARY_PATH
    cd "$root" || return
}

teardown() { common_teardown; }

# sources PATTERN...: the project's files of these kinds, tracked or about to be
sources() {
    if [[ -e .git ]]; then
        git -c safe.directory="$root" ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do
            if [[ -f $file ]]; then echo "$file"; fi
        done
    else
        local pattern
        for pattern in "$@"; do
            find . -path ./build -prune -o -path ./.cuda -prune -o -path ./.tools -prune -o -type f -path "./$pattern" -print
        done
    fi
}

@test "shellcheck has nothing to say about the scripts" {
    local files
    mapfile -t files < <(sources '*.sh' '*.bash' '*.bats' && echo .ci/run)
    run -0 shellcheck -x "${files[@]}"
}

@test "clang-format would change nothing" {
    local program
    program=$(command -v clang-format-14 || command -v clang-format)
    "$program" --version | grep -q 'version 14\.' || skip "needs version 14, others break lines differently"
    # The names are enough: `make format` lays them out.
    run -0 bash -c 'while read -r f; do "$0" --dry-run -Werror "$f" 2>/dev/null || echo "$f"; done' "$program" \
        < <(sources '*.c' '*.h' '*.cu' '*.cpp')
    assert_equal "$output" ""
}

@test "no source file is longer than 600 lines" {
    run -0 bash -c 'while read -r f; do n=$(wc -l <"$f"); [ "$n" -le 600 ] || echo "$f: $n lines"; done' \
        < <(sources '*.c' '*.h' '*.cu' '*.cpp' '*.def' '*.sh' '*.bash' '*.py' '*.bats' Makefile '*.mk')
    assert_equal "$output" ""
}

@test "every source file names its licence near its top, on a line of its own" {
    run -0 bash -c 'while read -r f; do head -n3 "$f" | grep -qE "SPDX-License-Identifier: AGPL-3.0-or-later( \*/)?$" || echo "$f"; done' \
        < <(sources '*.c' '*.h' '*.cu' '*.cpp' '*.def' '*.sh' '*.bash' '*.py' '*.bats' Makefile '*.mk' .ci/run)
    assert_equal "$output" ""
}

@test "no line of source ends in white space, and none but a Makefile's has tabs" {
    local files
    mapfile -t files < <(sources '*.c' '*.h' '*.cu' '*.cpp' '*.def' '*.sh' '*.bash' '*.py' '*.bats' '*.scd' '*.map' '*.list')
    run -1 grep -nE '[[:space:]]+$' "${files[@]}" Makefile
    mapfile -t files < <(sources '*.c' '*.h' '*.cu' '*.cpp' '*.def' '*.sh' '*.bash' '*.py' '*.bats')
    run -1 grep -nP '\t' "${files[@]}"
}

@test "no C file declares another file's symbols by extern" {
    local files
    mapfile -t files < <(sources '*.c')
    run -1 grep -nE '^[[:space:]]*extern ' "${files[@]}"
}

@test "dependencies point one way" {
    local files
    # Nothing below includes anything above; kernels and the simulated GPU know nothing of the shim.
    mapfile -t files < <(sources 'base/*.[ch]')
    run -1 grep -nE '#include "(options|pool|allocator|scheduler|shim|tools|lib|include|simgpu)/' "${files[@]}"
    mapfile -t files < <(sources 'pool/*.[ch]')
    run -1 grep -nE '#include "(allocator|scheduler|shim|tools|simgpu)/' "${files[@]}"
    mapfile -t files < <(sources 'allocator/*.[ch]' 'scheduler/*.[ch]')
    run -1 grep -nE '#include "(shim|tools|lib|include|simgpu)/' "${files[@]}"
    mapfile -t files < <(sources 'shim/*.[ch]' 'tools/*.[ch]')
    run -1 grep -nE '#include "(lib|include|simgpu)/' "${files[@]}"
    mapfile -t files < <(sources 'kernels/*.cu' 'kernels/*.c' 'kernels/*.h' 'simgpu/**/*.[ch]')
    run -1 grep -nE '#include "(base|options|pool|allocator|scheduler|shim|tools|include)/' "${files[@]}"
}
