#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Measures the library on the GPU of this machine and prints the tables of docs/benchmarks.md. Every ratio comes from arms that were run
# in turns within one call; figures are medians over the rounds, with the smallest and the largest in brackets.
#
# usage: scripts/bench.sh [launch|start|memory|alloc|tenants|weights]...      (default: all)
#
# Environment: BENCH_ROUNDS (5), BENCH_SECONDS of a run with tenants (8), BUILD (build). Builds nothing: `make` first, or `make bench`.
# BENCH_SIMULATED=1: without a GPU, run on the simulated one to try the script; such figures mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${BUILD:-build}
[[ $build == /* ]] || build=$PWD/$build
rounds=${BENCH_ROUNDS:-5}
seconds=${BENCH_SECONDS:-8}
# About 0.6 ms and 14 µs a kernel on an H100.
matmul_size=1280 vector_size=2097152
kernels=$build/kernels
vgpu=$build/vgpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset "${!VGPU_@}"
export VGPU_POOL=$work/pool VGPU_LOG=error

if compgen -G '/dev/nvidia[0-9]*' >/dev/null && ldconfig -p | grep -q 'libcuda\.so\.1'; then
    gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n1 || echo "unknown GPU")
    lib=$(sed -n 's/^CUDA_LIB := //p' "$build/cuda.mk" 2>/dev/null || true)
    [[ -d $lib ]] || lib=${CUDA_HOME:-/usr/local/cuda}/lib64
    export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
elif [[ ${BENCH_SIMULATED:-0} != 1 ]]; then
    echo "bench: this machine has no NVIDIA GPU, or its driver is not installed (BENCH_SIMULATED=1 tries it out on the simulated one)" >&2
    exit 1
else
    gpu="simulated GPU (these figures mean nothing)"
    export LD_LIBRARY_PATH=$build/simgpu SIMGPU_STATE=$work/simgpu
    matmul_size=64 vector_size=65536
fi

native() { "$@"; }
shimmed() { "$vgpu" run -- "$@"; }

# value KEY: of the result line on standard input
value() {
    sed -n "s/^result.* $1=\([^ ]*\).*/\1/p"
}

# summary: median, smallest and largest of the numbers on standard input, as "median [smallest, largest]"
summary() { # FORMAT
    sort -g | awk -v format="$1" '{ v[NR] = $1 } END {
        m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
        printf(format " [" format ", " format "]", m, v[1], v[NR]) }'
}

bench_launch() {
    local i
    for ((i = 0; i < rounds; i++)); do
        native "$kernels/launch" --iterations 800 | value launch_ns >>"$work/launch.native"
        shimmed "$kernels/launch" --iterations 800 | value launch_ns >>"$work/launch.shim"
    done
    paste "$work/launch.native" "$work/launch.shim" | awk '{ print $2 - $1 }' >"$work/launch.added"
    printf '\n### Launch, nobody else waiting\n\n'
    printf '| | ns per launch |\n|---|---|\n'
    printf '| native | %s |\n' "$(summary '%.0f' <"$work/launch.native")"
    printf '| with the library | %s |\n' "$(summary '%.0f' <"$work/launch.shim")"
    printf '| added, pair by pair | %s |\n' "$(summary '%.0f' <"$work/launch.added")"
    printf '\n%s rounds of 204,800 launches each, medians over batches of 256.\n' "$rounds"
}

# elapsed_ms COMMAND...: wall time of a run
elapsed_ms() {
    local before=${EPOCHREALTIME/./}
    "$@" >/dev/null
    local after=${EPOCHREALTIME/./}
    awk -v us=$((after - before)) 'BEGIN { print us / 1000 }'
}

bench_start() {
    local i n=$((rounds * 6))
    shimmed "$kernels/driver_spin" --iterations 1 --kernel-us 1 >/dev/null # the first in a pool measures the context
    for ((i = 0; i < n; i++)); do
        elapsed_ms native "$kernels/driver_spin" --iterations 1 --kernel-us 1 >>"$work/start.native"
        elapsed_ms env LD_PRELOAD="$build/libvgpu_shim.so" "$kernels/driver_spin" --iterations 1 --kernel-us 1 >>"$work/start.shim"
    done
    paste "$work/start.native" "$work/start.shim" | awk '{ print $2 - $1 }' >"$work/start.added"
    printf '\n### Program start\n\n'
    printf '| | ms, start to end of a program with one kernel |\n|---|---|\n'
    printf '| native | %s |\n' "$(summary '%.1f' <"$work/start.native")"
    printf '| with the library | %s |\n' "$(summary '%.1f' <"$work/start.shim")"
    printf '| added, pair by pair | %s |\n' "$(summary '%.1f' <"$work/start.added")"
    printf '\n%s pairs, in turns.\n' "$n"
}

# resident_kib COMMAND...: resident memory of a program while its kernels run, which its first line of progress tells
resident_kib() {
    env "$@" --seconds 3 --kernel-us 1000 --progress >/dev/null 2>"$work/progress" & # env, unlike a function, becomes the program
    local pid=$!
    until grep -q '^progress' "$work/progress"; do
        [[ -d /proc/$pid ]] || return 1
        sleep 0.05
    done
    awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
    wait "$pid"
}

bench_memory() {
    local i
    for ((i = 0; i < rounds; i++)); do
        resident_kib "$kernels/driver_spin" >>"$work/memory.native"
        resident_kib LD_PRELOAD="$build/libvgpu_shim.so" "$kernels/driver_spin" >>"$work/memory.shim"
    done
    paste "$work/memory.native" "$work/memory.shim" | awk '{ print ($2 - $1) / 1024 }' >"$work/memory.added"
    printf '\n### Memory\n\n'
    printf '| | resident |\n|---|---|\n'
    printf '| native | %s KiB |\n' "$(summary '%.0f' <"$work/memory.native")"
    printf '| with the library | %s KiB |\n' "$(summary '%.0f' <"$work/memory.shim")"
    printf '| added, pair by pair | %s MiB |\n' "$(summary '%.2f' <"$work/memory.added")"
}

# side_by_side ARM COUNT PROGRAM...: starts COUNT copies that begin to launch at the same moment; prints the rate of each
side_by_side() {
    local arm=$1 count=$2 i start
    shift 2
    start=$(awk -v count="$count" '{ print $1 + 1.5 + count * 0.4 }' /proc/uptime)
    for ((i = 0; i < count; i++)); do
        "$arm" "$@" --seconds "$seconds" --start-at "$start" >"$work/tenant.$i" &
    done
    wait
    for ((i = 0; i < count; i++)); do
        grep -q 'verified=yes' "$work/tenant.$i" || return 1
        value rate <"$work/tenant.$i"
    done
}

sum() { awk '{ s += $1 } END { print s }'; }

# tenants_of LABEL PROGRAM...: aggregate rate of 2 and 4 equal tenants against one that has the GPU to itself
tenants_of() {
    local label=$1 i count arm exclusive
    shift
    rm -f "$work"/ratio.*
    for ((i = 0; i < rounds; i++)); do
        exclusive=$(side_by_side native 1 "$@" | sum)
        echo "$exclusive" >>"$work/ratio.exclusive"
        side_by_side shimmed 1 "$@" | awk -v e="$exclusive" '{ print 100 * $1 / e }' >>"$work/ratio.shimmed.1"
        for count in 2 4; do
            for arm in native shimmed; do
                side_by_side "$arm" "$count" "$@" | sum | awk -v e="$exclusive" '{ print 100 * $1 / e }' >>"$work/ratio.$arm.$count"
            done
        done
    done
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$label" "$(summary '%.0f' <"$work/ratio.exclusive")" \
        "$(summary '%.1f' <"$work/ratio.shimmed.1")" "$(summary '%.1f' <"$work/ratio.native.2")" \
        "$(summary '%.1f' <"$work/ratio.shimmed.2")" "$(summary '%.1f' <"$work/ratio.native.4")" \
        "$(summary '%.1f' <"$work/ratio.shimmed.4")"
}

bench_tenants() {
    printf '\n### Equal tenants: kernels per second of all together, in percent of one that has the GPU to itself\n\n'
    printf '| kernels | exclusive, per s | alone, library | 2, time slicing | 2, library | 4, time slicing | 4, library |\n'
    printf '|---|---|---|---|---|---|---|\n'
    tenants_of "matmul $matmul_size" "$kernels/matmul" --size "$matmul_size"
    tenants_of "vectoradd $vector_size" "$kernels/vectoradd" --size "$vector_size"
    printf '\n%s rounds of %s s, all arms in turns; time slicing is the driver without the library.\n' "$rounds" "$seconds"
}

bench_alloc() {
    local i kib arm
    printf '\n### Allocating and freeing\n\n'
    printf '| size | cudaMalloc and cudaFree, native | the same, VGPU_ALLOCATOR=chunk | native / chunk | cudaMallocAsync and cudaFreeAsync, native |\n'
    printf '|---|---|---|---|---|\n'
    for kib in 4 64 1024 2048 16384 65536; do
        for ((i = 0; i < rounds; i++)); do
            for arm in native chunk; do
                if [[ $arm == native ]]; then
                    native "$kernels/alloc_loop" --size $((kib * 1024)) --iterations 20 >"$work/alloc.out"
                else
                    shimmed env VGPU_ALLOCATOR=chunk "$kernels/alloc_loop" --size $((kib * 1024)) --iterations 20 >"$work/alloc.out"
                fi
                value malloc_free_ns <"$work/alloc.out" >>"$work/alloc.$kib.$arm"
                value async_ns <"$work/alloc.out" >>"$work/alloc.$kib.$arm.async"
            done
        done
        paste "$work/alloc.$kib.native" "$work/alloc.$kib.chunk" | awk '{ print $1 / $2 }' >"$work/alloc.$kib.ratio"
        printf '| %s KiB | %s ns | %s ns | %s | %s ns |\n' "$kib" "$(summary '%.0f' <"$work/alloc.$kib.native")" \
            "$(summary '%.0f' <"$work/alloc.$kib.chunk")" "$(summary '%.0f' <"$work/alloc.$kib.ratio")" \
            "$(summary '%.0f' <"$work/alloc.$kib.native.async")"
    done
    printf '\n%s rounds, native and chunk in turns; each the median of 20 batches of 100 pairs.\n' "$rounds"
}

bench_weights() {
    local i start
    for ((i = 0; i < rounds; i++)); do
        start=$(awk '{ print $1 + 3 }' /proc/uptime)
        "$vgpu" run --weight 30 -- "$kernels/matmul" --size "$matmul_size" --seconds "$seconds" --start-at "$start" >"$work/light" &
        "$vgpu" run --weight 70 -- "$kernels/matmul" --size "$matmul_size" --seconds "$seconds" --start-at "$start" >"$work/heavy" &
        wait
        paste <(value rate <"$work/light") <(value rate <"$work/heavy") | awk '{ print 100 * $1 / ($1 + $2) }' >>"$work/weights"
    done
    printf '\n### Weights 30 and 70\n\n'
    printf 'The lighter of two saturated programs gets %s %% of the kernels; 30 %% is due. %s rounds of %s s.\n' \
        "$(summary '%.2f' <"$work/weights")" "$rounds" "$seconds"
}

parts=("$@")
[[ ${#parts[@]} -gt 0 ]] || parts=(launch start memory alloc tenants weights)
printf '%s, %s, Linux %s, %s\n' "$gpu" "$("$vgpu" version)" "$(uname -r)" "$(date -u +%Y-%m-%d)"
for part in "${parts[@]}"; do
    case $part in
    launch | start | memory | alloc | tenants | weights) "bench_$part" ;;
    *)
        echo "bench: there is no part '$part': launch, start, memory, alloc, tenants or weights" >&2
        exit 2
        ;;
    esac
done
