#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Runs unmodified CUDA programs without the library, with it, and two at once with it, and compares what they print and how they exit.
#
# usage: scripts/compat.sh [PATTERN...] >docs/compatibility.md      (or: make compat)
#
# PATTERN: a row's name or a shell pattern ('torch-*'); without any, all rows run (tests/gpu/rows.bash has them). Progress goes to stderr,
# the table to stdout. Exits with 1 when a row is red: another status or output than without the library, an error line of the
# library's, a program that the library was not in, or memory that is still charged when all have ended. A row is skipped when the
# program itself says, in all runs alike, what the machine lacks. What red rows printed is kept in $COMPAT_OUT/ROW/.
#
# Every run has its own pool, so that rows can run side by side; the two programs of "two at once" share theirs and begin together. All
# repeat their work for $COMPAT_SECONDS, each time with the same result.
#
# Environment: COMPAT_JOBS (rows at once; a quarter of the processors), COMPAT_SECONDS (2), COMPAT_LIMIT (seconds for a run; 150),
# COMPAT_ROWS (another table), COMPAT_OUT (a folder for what programs print, which is emptied; $BUILD/compat), PYTHON (python3), BUILD
# (build). Builds nothing: `make all gpu-tests` first.
# COMPAT_SIMULATED=1: without a GPU, the rows that the simulated one can run.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
build=${BUILD:-build}
[[ $build == /* ]] || build=$root/$build
vgpu=$build/vgpu
out=${COMPAT_OUT:-$build/compat}
quota=20G
seconds=${COMPAT_SECONDS:-2}
limit=${COMPAT_LIMIT:-150}
jobs=${COMPAT_JOBS:-$((($(nproc) + 3) / 4))}
unset "${!VGPU_@}" COMPAT_HERE COMPAT_THERE COMPAT_SECONDS LD_PRELOAD
export LC_ALL=C.UTF-8

if [[ ${COMPAT_SIMULATED:-0} == 1 ]]; then
    gpu=sim lib=$build/simgpu quota=4G
elif compgen -G '/dev/nvidia[0-9]*' >/dev/null && ldconfig -p | grep -q 'libcuda\.so\.1'; then
    gpu=real
    lib=$(sed -n 's/^CUDA_LIB := //p' "$build/cuda.mk" 2>/dev/null)
    [[ -d $lib ]] || lib=${CUDA_HOME:-/usr/local/cuda}/lib64
else
    echo "compat: this machine has no NVIDIA GPU, or its driver is not installed (COMPAT_SIMULATED=1 runs a few rows on the simulated one)" >&2
    exit 1
fi

names=()
declare -A text command under_mps verdict_only
row() { # [-s] [-m] [-v WHY] NAME TEXT COMMAND...
    local option simulated=0 mps=0 why='' OPTIND=1
    while getopts smv: option; do
        case $option in
        s) simulated=1 ;;
        m) mps=1 ;;
        v) why=$OPTARG ;;
        *) exit 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    [[ $gpu == real || $simulated == 1 ]] || return 0
    names+=("$1")
    text[$1]=$2 under_mps[$1]=$mps verdict_only[$1]=$why
    printf -v command["$1"] '%q ' "${@:3}"
}
# shellcheck source=tests/gpu/rows.bash
source "${COMPAT_ROWS:-tests/gpu/rows.bash}"

chosen() { # NAME
    local pattern
    [[ ${#patterns[@]} -eq 0 ]] && return
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053 # a pattern is what it is for
        [[ $1 == $pattern ]] && return
    done
    return 1
}
patterns=("$@")
rows=()
for name in "${names[@]}"; do
    if chosen "$name"; then rows+=("$name"); fi
done
if [[ ${#rows[@]} -eq 0 ]]; then
    echo "compat: no row matches $*; there are: ${names[*]}" >&2
    exit 2
fi

# --- one run ----------------------------------------------------------------------------------------------------------------------

# run FOLDER COMMAND...: leaves out, err and status in FOLDER. What programs compile is kept apart, so that each compiles for itself.
run() {
    local folder=$1 cache=$1/cache
    shift
    mkdir -p "$cache"
    env XDG_CACHE_HOME="$cache" CUDA_CACHE_PATH="$cache/cuda" CUPY_CACHE_DIR="$cache/cupy" TRITON_CACHE_DIR="$cache/triton" \
        TORCHINDUCTOR_CACHE_DIR="$cache/inductor" \
        timeout --kill-after=5 "$limit" "$@" >"$folder/out" 2>"$folder/err" </dev/null &
    # shellcheck disable=SC2064 # this process, now
    trap "kill $!" TERM
    wait $!
    echo $? >"$folder/status"
    rm -rf "$cache"
}

# run_shimmed FOLDER NAME COMMAND...: the same under the library, as the virtual GPU NAME of the pool beside FOLDER
run_shimmed() {
    local folder=$1 name=$2
    shift 2
    mkdir -p "$folder"
    run "$folder" "$vgpu" run --pool "${folder%/*}/pool" --memory "$quota" --name "$name" --log-file "$folder/library" -- "$@"
}

# new_pool FOLDER: a pool in which the size of a context was measured while nothing else ran, as it would be on a quiet machine
new_pool() {
    mkdir -p "$1"
    cp "$out/pool" "$1/pool"
    chmod 600 "$1/pool"
}

# Notes how long the tenants of a pool have waited for each other, in milliseconds, while they are there.
watch() { # FOLDER
    local waited
    while sleep 0.2; do
        waited=$("$vgpu" list --json --interval 0 --pool "$1/pool" 2>/dev/null | awk -F '[:,]' '/"waited_ns"/ { n += $2 } END { printf "%d", n / 1000000 }')
        [[ ${waited:-0} -eq 0 ]] || echo "$waited" >"$1/waited"
    done
}

# --- one row ----------------------------------------------------------------------------------------------------------------------

run_row() { # NAME
    local folder=$out/$1 watcher first
    local -a cmd
    eval "cmd=(${command[$1]})"
    mkdir -p "$folder"
    trap 'kill $(jobs -p); exit 1' TERM
    if [[ ${under_mps[$1]} == 1 ]]; then
        if ! command -v nvidia-cuda-mps-control >/dev/null; then
            report "$1" skipped "nvidia-cuda-mps-control is not installed"
            return
        fi
        trap 'stop_mps "$folder"' EXIT
        start_mps "$folder"
    fi
    new_pool "$folder/one"
    new_pool "$folder/two"
    COMPAT_SECONDS=$seconds run "$folder/native" "${cmd[@]}" &
    COMPAT_SECONDS=$seconds run_shimmed "$folder/one/a" a "${cmd[@]}" &
    wait
    watch "$folder/two" &
    watcher=$!
    COMPAT_SECONDS=$seconds COMPAT_HERE=$folder/a.here COMPAT_THERE=$folder/b.here run_shimmed "$folder/two/a" a "${cmd[@]}" &
    first=$!
    COMPAT_SECONDS=$seconds COMPAT_HERE=$folder/b.here COMPAT_THERE=$folder/a.here run_shimmed "$folder/two/b" b "${cmd[@]}" &
    wait "$first" $!
    kill "$watcher"
    wait "$watcher" 2>/dev/null
    stop_mps "$folder"
    judge "$1"
}

# A daemon of our own, which ends with the row; it is not started under the library. Its sockets need a short path.
start_mps() { # FOLDER
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$1
    nvidia-cuda-mps-control -d >"$1/mps" 2>&1
}
stop_mps() { # FOLDER
    [[ -d ${CUDA_MPS_PIPE_DIRECTORY:-} ]] || return 0
    echo get_server_list | timeout 20 nvidia-cuda-mps-control >"$1/servers" 2>&1
    echo quit | timeout 20 nvidia-cuda-mps-control >/dev/null 2>&1
    rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
}

# Says what is wrong with a run under the library, or nothing.
fault() { # FOLDER NATIVE
    local status expected
    status=$(<"$1/status") expected=$(<"$2/status")
    if [[ $status == 124 || $status == 137 ]]; then
        echo "not done after $limit s"
    elif [[ $status != "$expected" ]]; then
        echo "exits with $status"
    elif ! cmp -s "$1/out" "$2/out"; then
        echo "prints something else"
    elif grep -qE '^vgpu\[[0-9]+\]: error' "$1/library" 2>/dev/null; then
        grep -m1 -oE 'error: .*' "$1/library"
    elif [[ $status != 77 ]] && ! grep -qE ' info: .* on GPU [0-9]+ .*quota' "$1/library" 2>/dev/null; then
        echo "ran without the library"
    fi
}

still_charged() { # FOLDER
    "$vgpu" list --json --interval 0 --pool "$1/pool" 2>/dev/null | grep -qE '"vgpus":[[:space:]]*\[\]' || echo "memory is still charged at the end"
}

judge() { # NAME
    local folder=$out/$1 native=$out/$1/native one two status
    status=$(<"$native/status")
    one=$(fault "$folder/one/a" "$native")
    two=$(fault "$folder/two/a" "$native")
    two=${two:-$(fault "$folder/two/b" "$native")}
    if [[ $status == 77 ]]; then
        if [[ -z $one$two ]]; then
            report "$1" skipped "$(head -n1 "$native/out")"
            return
        fi
    elif [[ $status != 0 ]]; then
        report "$1" red "exits with $status without the library too" - -
        return
    elif [[ ${under_mps[$1]} == 1 && ! -s $folder/servers ]]; then
        report "$1" red "did not reach the MPS daemon" - -
        return
    fi
    one=${one:-$(still_charged "$folder/one")}
    two=${two:-$(still_charged "$folder/two")}
    local waited=0
    [[ ! -e $folder/two/waited ]] || waited=$(<"$folder/two/waited")
    local word=green
    [[ -z $one$two ]] || word=red
    report "$1" "$word" "$(sha256sum <"$native/out" | cut -c1-12)" "${one:-same}" "${two:-same, $waited ms}"
}

# report NAME green|red|skipped CELL...: the row's line in the table; on stderr also the time since the start
report() {
    local name=$1 word=$2
    shift 2
    printf '%s\n' "$@" >"$out/$name/cells"
    echo "$word" >"$out/$name/verdict"
    printf '%-8s %-20s %3d s  %s\n' "$word" "$name" "$SECONDS" "$*" >&2
}

# --- all rows ---------------------------------------------------------------------------------------------------------------------

rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [[ $gpu == sim ]]; then
    export SIMGPU_STATE=$out/simgpu
fi
# The first program in a pool measures what a context takes; see new_pool.
if ! env "LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$vgpu" run --pool "$out/pool" --memory "$quota" --log error -- \
    "$build/gpu/streams" >/dev/null; then
    echo "compat: $build/gpu/streams does not run under the library" >&2
    exit 1
fi

# Who interrupts it gets the rows that are done; the others are red.
interrupted=0
trap 'interrupted=1; kill $(jobs -p) 2>/dev/null' INT TERM
running=0
for name in "${rows[@]}"; do
    if [[ $running -ge $jobs ]]; then
        wait -n
        running=$((running - 1))
    fi
    [[ $interrupted == 0 ]] || break
    run_row "$name" &
    running=$((running + 1))
done
while [[ -n $(jobs -pr) ]]; do
    wait
done

version_of() { # NAME PACKAGE
    "${PYTHON:-python3}" -c 'import importlib.metadata as m, sys; print(sys.argv[1], m.version(sys.argv[2]))' "$1" "$2" 2>/dev/null
}

versions() {
    sed -n 's/^CUDA_VERSION := /CUDA Toolkit /p' "$build/cuda.mk"
    ldconfig -p | sed -n 's/.*libcudnn\.so\.[0-9]* .*=> //p' | head -n1 | xargs -r readlink -f | sed -n 's/.*libcudnn\.so\./cuDNN /p'
    "${PYTHON:-python3}" --version 2>/dev/null
    local pair
    for pair in PyTorch:torch Triton:triton transformers:transformers JAX:jax CuPy:cupy-cuda13x CuPy:cupy-cuda12x Numba:numba; do
        version_of "${pair%:*}" "${pair#*:}"
    done
}

if [[ $gpu == real ]]; then
    machine=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sed 's/, /, driver /' | paste -sd';')
else
    machine="simulated GPU (it proves nothing about real programs)"
fi
green=0 red=0 skipped=0
{
    echo "| program | what it uses | without: output (sha256) | with the library | two at once, waited for each other |"
    echo "|---|---|---|---|---|"
    for name in "${rows[@]}"; do
        # A row whose shell died has no verdict.
        [[ -e $out/$name/verdict ]] || { mkdir -p "$out/$name" && report "$name" red "was not run to its end" - -; }
        mapfile -t cells <"$out/$name/cells"
        verdict=$(<"$out/$name/verdict")
        what=${text[$name]}${verdict_only[$name]:+ (a verdict only: ${verdict_only[$name]})}
        case $verdict in
        skipped) echo "| $name | $what | skipped: ${cells[0]} | | |" ;;
        red) echo "| **$name** (red) | $what | ${cells[0]} | ${cells[1]} | ${cells[2]} |" ;;
        green) echo "| $name | $what | ${cells[0]} | ${cells[1]} | ${cells[2]} |" ;;
        esac
        declare "$verdict=$((${!verdict} + 1))"
        [[ $verdict == red ]] || rm -rf "${out:?}/$name"
    done
} >"$out/table"
rm -f "$out/pool" "$out/simgpu"

cat <<END
# Compatibility

Each unmodified program runs without the library, with it at a quota of $quota, and as two copies at once with $quota each. The exit
status must be the same and the output the same bit for bit. \`scripts/compat.sh\` writes this page and says how it judges rows; the
programs are in \`tests/gpu/\`. Their output is mostly hashes of what the GPU computed. All repeat their work for $seconds s; the two of "two
at once" begin together, and the last column says how long they waited for their turns in total.

$(date -u +%Y-%m-%d), ${machine:-unknown GPU}; $(versions | paste -sd, | sed 's/,/, /g'); $(uname -sr), $(nproc) processors.

$green green, $red red, $skipped skipped.

END
cat "$out/table"
echo "compat: $green green, $red red, $skipped skipped${red:+$([[ $red -eq 0 ]] || echo "; what red rows printed is in $out")}" >&2
[[ $red -eq 0 && $green -gt 0 ]]
