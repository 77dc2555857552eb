#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Sets up what the build and the tests need, and does nothing where it is there already.
#
#   scripts/deps.sh [build|test|dev]
#
# build: what `make` and `make demo` need. test: also what `make test` needs (the default). dev: also the tools of `make lint` and of the
# benchmark's plots.
# Debian packages come through apt-get where that is allowed (root); otherwise the one command to run is printed. The CUDA
# Toolkit, where none of 11.8 or newer is found, comes from PyPI into .cuda/ (scripts/cuda.sh), and Bats, where the
# distribution's is older than 1.5, as Debian's package unpacked into .tools/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scope=${1:-test}
case $scope in
build | test | dev) ;;
*)
    sed -n '3,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

# Each row: the scope that needs it (cross: test, on x86-64), the package, a command or file that shows it is there, and why it is needed.
packages() {
    cat <<'ROWS'
build gcc            gcc                          the C compiler
build g++            g++                          host compiler of nvcc and of the simulated kernels
build libc6-dev      /usr/include/stdio.h         the C library's headers
build binutils       readelf                      the ELF checks of the build
build make           make                         the build itself
build uthash-dev     /usr/include/uthash.h        hash tables
build libcjson-dev   /usr/include/cjson/cJSON.h   JSON output of vgpu list
build scdoc          scdoc                        man pages
test  bats           bats                         the behaviour suites
test  clang          clang                        the suite that builds with the other compiler
test  clang-format   clang-format                 the suite that checks the layout of the source
test  shellcheck     shellcheck                   the suite that checks the scripts
build jq             jq                           the demo and the tests read JSON
build python3        python3                      the benchmark
test  pkg-config     pkg-config                   the test that builds against the installed library
test  procps         ps                           tests that look at processes
test  git            git                          the list of source files that the style suite reads
cross gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc  the suite that builds for aarch64
cross libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdio.h  its C library
cross qemu-user      qemu-aarch64                 it runs what it has built
dev   clang-tidy     clang-tidy                   make lint
dev   cppcheck       cppcheck                     make lint
dev   valgrind       valgrind                     the benchmark counts instructions
dev   python3-matplotlib /usr/lib/python3/dist-packages/matplotlib the benchmark draws plots
ROWS
}

scope_covers() {
    case $1 in
    build) true ;;
    test) [[ $scope != build ]] ;;
    cross) [[ $scope != build && $(uname -m) == x86_64 ]] ;;
    dev) [[ $scope == dev ]] ;;
    esac
}

present() {
    if [[ $1 == /* ]]; then
        [[ -e $1 || -e ${1/#\/usr\/include/\/usr\/local\/include} ]]
    else
        command -v "$1" >/dev/null
    fi
}

missing=()
collect_missing() {
    local row_scope package probe why
    missing=()
    while read -r row_scope package probe why; do
        if scope_covers "$row_scope" && ! present "$probe"; then
            missing+=("$package")
            echo "missing: $package ($why)"
        fi
    done < <(packages)
    # pip fetches the toolkit, and only where none is found.
    if ! "$root/scripts/cuda.sh" home >/dev/null 2>&1 && ! python3 -m pip --version >/dev/null 2>&1; then
        missing+=(python3-pip)
        echo "missing: python3-pip (fetches the CUDA Toolkit)"
    fi
}

apt() {
    # The lock timeout lets an unattended upgrade finish first.
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_missing() {
    if ! command -v apt-get >/dev/null; then
        echo "this machine has no apt-get: install the equivalents of these Debian packages: ${missing[*]}" >&2
        return 1
    fi
    if [[ $(id -u) -ne 0 ]]; then
        echo "run this, then try again:" >&2
        echo "    sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
        return 1
    fi
    # A fresh machine has no package lists, an old one has lists of packages that are gone.
    if ! apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
        apt update || true
        if ! apt install -y --no-install-recommends "${missing[@]}" >/dev/null; then
            echo "apt-get could not install: ${missing[*]} (is this machine online?)" >&2
            return 1
        fi
    fi
}

# Debian 12's package: Ubuntu 22.04 has Bats 1.2, which lacks `run -0` and bats_require_minimum_version.
fetch_bats() {
    local url=http://deb.debian.org/debian/pool/main/b/bats/bats_1.8.2-1_all.deb
    local sha256=9dc9e0421a621dae0878378a79deba0450b07aabd41be26e960add5aebc616a6
    local have
    have=$(bats --version 2>/dev/null | sed -n 's/^Bats //p') || have=
    [[ $(printf '%s\n' 1.5.0 "${have:-0}" | sort -V | head -n1) == 1.5.0 ]] && return
    [[ -x $root/.tools/bats/usr/bin/bats ]] && return
    echo "fetching Bats 1.8.2 into .tools/ (this machine's is ${have:-missing})"
    rm -rf "$root/.tools/new"
    mkdir -p "$root/.tools/new"
    # apt's own helper: follows the machine's proxy settings and checks the hash.
    if ! /usr/lib/apt/apt-helper download-file "$url" "$root/.tools/bats.deb" "SHA256:$sha256" >/dev/null 2>&1; then
        echo "could not fetch $url (is this machine online?): put Bats 1.5 or newer on PATH" >&2
        return 1
    fi
    dpkg-deb -x "$root/.tools/bats.deb" "$root/.tools/new"
    rm -rf "$root/.tools/bats" "$root/.tools/bats.deb"
    mv "$root/.tools/new" "$root/.tools/bats"
}

collect_missing
if [[ ${#missing[@]} -gt 0 ]]; then
    install_missing
    collect_missing >/dev/null
    if [[ ${#missing[@]} -gt 0 ]]; then
        echo "still missing after apt-get: ${missing[*]}" >&2
        exit 1
    fi
fi
"$root/scripts/cuda.sh" fetch
if [[ $scope != build ]]; then
    fetch_bats
fi
