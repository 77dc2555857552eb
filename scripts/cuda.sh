#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Finds the CUDA Toolkit that the build uses, and fetches one where there is none.
#
#   scripts/cuda.sh home         print the toolkit's folder, or fail with one line
#   scripts/cuda.sh make FILE    write what the Makefile must know of it to FILE; FILE is left alone while that stays the same
#   scripts/cuda.sh fetch        install the parts of CUDA 13.0 that the build needs from NVIDIA's PyPI wheels into .cuda/
#   scripts/cuda.sh runtime VERSION   print a folder with include/ and lib/ of that CUDA's runtime, a row of cuda-runtimes.txt, fetched
#                                into .cuda/ the first time
#
# Looked for in this order: CUDA_HOME, nvcc on PATH, /usr/local/cuda, /usr/local/cuda-*, .cuda/. A toolkit that is too old or lacks
# a part is passed over. VGPU_IGNORE_TOOLKIT=1 passes over all but .cuda/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fetched=$root/.cuda/13.0
minimum=11.8
passed_over=() # why each toolkit that was seen will not do

# Sets nvcc, version, include, lib and soname for the toolkit in $1; adds a reason to passed_over if it will not do.
look_at() {
    local home=$1 dir header library
    nvcc=$home/bin/nvcc
    [[ -x $nvcc ]] || return 1
    # What was fetched for another list of wheels is fetched again.
    [[ $home != "$fetched" ]] || cmp -s "$root/scripts/cuda-wheels.txt" "$home/wheels.txt" || return 1
    version=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9][0-9.]*\),.*/\1/p') || version=
    if [[ -z $version ]]; then
        passed_over+=("$home: nvcc does not run")
        return 1
    fi
    if [[ $(printf '%s\n' "$minimum" "$version" | sort -V | head -n1) != "$minimum" ]]; then
        passed_over+=("$home: CUDA $version is older than $minimum")
        return 1
    fi
    include='' lib=''
    for dir in "$home/include" "$home"/targets/*/include; do
        [[ -e $dir/cuda.h ]] && include=$dir && break
    done
    for dir in "$home/lib64" "$home/lib" "$home"/targets/*/lib "$home/lib/$(uname -m)-linux-gnu"; do
        [[ -e $dir/libcudart.so ]] && lib=$dir && break
    done
    for header in cuda.h cuda_runtime.h; do
        if [[ -z $include || ! -e $include/$header ]]; then
            passed_over+=("$home: $header is missing")
            return 1
        fi
    done
    for library in libcudart.so libcudart_static.a libcudadevrt.a; do
        if [[ -z $lib || ! -e $lib/$library ]]; then
            passed_over+=("$home: $library is missing")
            return 1
        fi
    done
    soname=$(readelf -d "$lib/libcudart.so" 2>/dev/null | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p') || soname=
    if [[ -z $soname ]]; then
        passed_over+=("$home: libcudart.so has no soname, or readelf (binutils) is missing")
        return 1
    fi
}

find_toolkit() {
    local candidate on_path
    local candidates=()
    if [[ -z ${VGPU_IGNORE_TOOLKIT:-} ]]; then
        [[ -n ${CUDA_HOME:-} ]] && candidates+=("$CUDA_HOME")
        if on_path=$(command -v nvcc); then
            candidates+=("$(dirname "$(dirname "$(readlink -f "$on_path")")")" "$(dirname "$(dirname "$on_path")")")
        fi
        candidates+=(/usr/local/cuda)
        for candidate in /usr/local/cuda-*; do
            candidates+=("$candidate")
        done
    fi
    candidates+=("$fetched")
    for candidate in "${candidates[@]}"; do
        if look_at "$candidate"; then
            home=$candidate
            return 0
        fi
    done
    return 1
}

complain() {
    local reason seen=''
    for reason in "${passed_over[@]}"; do
        [[ $seen == *"$reason"* ]] || seen+="${seen:+; }$reason"
    done
    echo "no usable CUDA Toolkit of $minimum or newer${seen:+ ($seen)}: run scripts/deps.sh, or set CUDA_HOME" >&2
}

write_make() {
    local file=$1 text
    text="# Written by scripts/cuda.sh.
CUDA_HOME := $home
NVCC := $nvcc
CUDA_INC := $include
CUDA_LIB := $lib
CUDA_VERSION := $version
CUDART_SONAME := $soname"
    [[ -e $file && $(<"$file") == "$text" ]] && return
    mkdir -p "$(dirname "$file")"
    # Two makes may run at once; each renames a whole file into place.
    printf '%s\n' "$text" >"$file.$$"
    mv "$file.$$" "$file"
}

# One fetch at a time, until this script ends.
lock_fetched() {
    mkdir -p "$root/.cuda"
    exec 9>"$root/.cuda/lock"
    flock 9
}

# install_wheels FOLDER REQUIREMENTS...: what pip finds on PyPI, into a new folder
install_wheels() {
    local folder=$1
    shift
    rm -rf "$folder"
    # --target leaves the system's Python alone, which PEP 668 asks for; --no-deps because the lists are complete.
    if ! PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
        --only-binary=:all: --require-hashes --target "$folder" --requirement "$@"; then
        rm -rf "$folder"
        return 1
    fi
}

runtime() {
    local version=$1 folder=$root/.cuda/runtime-$1 new=$root/.cuda/new-runtime row wheel hashes
    row=$(awk -v version="$version" '$1 == version' "$root/scripts/cuda-runtimes.txt")
    if [[ -z $row ]]; then
        echo "scripts/cuda-runtimes.txt has no CUDA $version" >&2
        return 2
    fi
    lock_fetched
    # What was fetched for another row is fetched again.
    if [[ ! -e $folder/row || $(<"$folder/row") != "$row" ]]; then
        read -r _ wheel hashes <<<"$row"
        if ! install_wheels "$new" <(printf '%s --hash=sha256:%s\n' "$wheel" "${hashes// / --hash=sha256:}") >&2; then
            echo "could not fetch $wheel, the headers and the runtime of CUDA $version, from PyPI (is this machine online?)" >&2
            return 1
        fi
        rm -rf "$folder"
        mv "$(dirname "$(dirname "$(find "$new" -name cuda.h)")")" "$folder"
        echo "$row" >"$folder/row"
        rm -rf "$new"
    fi
    echo "$folder"
}

fetch() {
    lock_fetched
    look_at "$fetched" && return # another run was faster
    local new=$root/.cuda/new tree
    echo "fetching the CUDA 13.0 compiler, runtime and headers from PyPI into .cuda/ (about 105 MB)"
    if ! install_wheels "$new" "$root/scripts/cuda-wheels.txt"; then
        echo "could not fetch the CUDA Toolkit from PyPI (is this machine online?): install CUDA $minimum or newer from" \
            "https://developer.nvidia.com/cuda-downloads and set CUDA_HOME to its folder" >&2
        return 1
    fi
    tree=$new/nvidia/cu13
    # The wheels hold only libcudart.so.13; a linker wants libcudart.so, and tools look in lib64.
    ln -s libcudart.so.13 "$tree/lib/libcudart.so"
    ln -s lib "$tree/lib64"
    cp "$root/scripts/cuda-wheels.txt" "$tree/wheels.txt"
    rm -rf "$fetched"
    mv "$tree" "$fetched"
    rm -rf "$new"
    passed_over=()
    if ! look_at "$fetched"; then
        echo "the CUDA Toolkit fetched from PyPI does not work here: ${passed_over[*]}" >&2
        return 1
    fi
}

case ${1:-} in
home)
    find_toolkit || { complain; exit 1; }
    echo "$home"
    ;;
make)
    find_toolkit || { complain; exit 1; }
    write_make "${2:?}"
    ;;
fetch)
    find_toolkit || fetch
    ;;
runtime)
    runtime "${2:?}"
    ;;
*)
    sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
