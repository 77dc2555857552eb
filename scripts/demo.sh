#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# The main job: three unmodified CUDA programs at once on one GPU, with different quotas and weights, one of them asking for more memory
# than its quota. Shows how they share while they run, then what came of it.
#
#   scripts/demo.sh          after `make`; `make demo` builds first
#
# Runs on the real GPU where an unmodified program finds one, else on the simulated GPU. The pool is the demo's own, so tenants of
# other pools on the same GPU are not seen, and take time and memory like any other program.
#
# Exit status: 0 if all results are right, all shares are within 3 points and the memory was refused; else 1, with a line that says which.
#
# Environment: DEMO_SECONDS (how long the programs launch, 10), DEMO_GPU (real, sim or auto), BUILD (the build folder).
set -uo pipefail
export LC_ALL=C # numbers with a point, whatever the caller's locale

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
build=${BUILD:-build}
seconds=${DEMO_SECONDS:-10}
gpu=${DEMO_GPU:-auto}
tolerance=3    # points
sample_every=0.5 # seconds

# The tenants, whose programs have the same names: weight and quota. The hog has the least weight: it launches one tiny kernel after the
# other and gives its turn away whenever its thread does not get a processor, which on a busy machine costs it a part of its share.
names=(hog matmul triad)
declare -A weight=([hog]=100 [matmul]=200 [triad]=500)
declare -A quota=([matmul]=2G [triad]=3G [hog]=1280M)
declare -A options=([matmul]='--size 1024' [triad]='--size 8388608' [hog]='')
greedy=hog # takes memory until it is refused
# The simulated GPU computes on one core of this machine: less to do, less to fill.
declare -A sim_quota=([matmul]=1G [triad]=1G [hog]=576M)
declare -A sim_options=([matmul]='--size 64' [triad]='--size 65536' [hog]='--step 16M')

fail() {
    echo "demo: $*" >&2
    exit 1
}

[[ $seconds =~ ^[0-9]+$ && $seconds -ge 3 ]] || fail "DEMO_SECONDS=$seconds: expected a whole number from 3"
[[ $gpu == real || $gpu == sim || $gpu == auto ]] || fail "DEMO_GPU=$gpu: expected real, sim or auto"
command -v jq >/dev/null || fail "jq is missing: run scripts/deps.sh"
for program in vgpu libvgpu_shim.so "${names[@]/#/kernels/}"; do
    [[ -e $build/$program ]] || fail "$build/$program is missing: run make"
done

pids=()
work=
clean_up() {
    local pid
    trap '' INT TERM HUP
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    [[ -z $work ]] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Shared memory, where there is any: a pool needs a file system with O_TMPFILE, which not every /tmp is.
work=$(mktemp -d /dev/shm/vgpu-demo.XXXXXX 2>/dev/null) || work=$(mktemp -d) || fail "cannot make a temporary folder"

# What the caller has set for himself is not for these programs.
unset "${!VGPU_@}" "${!SIMGPU_@}" LD_PRELOAD
export VGPU_POOL=$work/pool SIMGPU_STATE=$work/simgpu

# --- which GPU --------------------------------------------------------------------------------------------------------------------

use_real() {
    local lib
    lib=$(sed -n 's/^CUDA_LIB := //p' "$build/cuda.mk" 2>/dev/null)
    export LD_LIBRARY_PATH=${lib:+$lib:}$original_library_path
}

use_sim() {
    export LD_LIBRARY_PATH=$root/$build/simgpu:$original_library_path
    [[ $build != /* ]] || export LD_LIBRARY_PATH=$build/simgpu:$original_library_path
}

# Whether there is a GPU is best told by a program that uses one.
try_gpu() {
    "$build/kernels/triad" --size 65536 --iterations 1 >"$work/try.out" 2>&1
}

original_library_path=${LD_LIBRARY_PATH:-}
if [[ $gpu != sim ]]; then
    use_real
    if try_gpu; then
        gpu=real
    elif [[ $gpu == real ]]; then
        fail "there is no GPU that works: $(tail -n1 "$work/try.out")"
    elif [[ -e /dev/nvidia0 || -e /dev/dxg ]]; then
        echo "The GPU of this machine does not work: $(tail -n1 "$work/try.out")"
    fi
fi
if [[ $gpu != real ]]; then
    gpu=sim
    use_sim
    try_gpu || fail "the simulated GPU does not work: $(tail -n1 "$work/try.out")"
    for name in "${names[@]}"; do
        quota[$name]=${sim_quota[$name]} options[$name]=${sim_options[$name]}
    done
fi

# --- run --------------------------------------------------------------------------------------------------------------------------

echo "Three unmodified CUDA programs on one $([[ $gpu == real ]] && echo "real" || echo "simulated") GPU, at once, for $seconds seconds:"
echo
for name in "${names[@]}"; do
    read -ra own <<<"${options[$name]}"
    command=("$build/vgpu" run --name "$name" --memory "${quota[$name]}" --weight "${weight[$name]}" --
        "$build/kernels/$name" "${own[@]}" --seconds "$seconds")
    echo "  ${command[*]}"
    "${command[@]}" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
    pids+=($!)
done
echo
declare -A pid_of
for i in "${!names[@]}"; do
    pid_of[${names[i]}]=${pids[i]}
done
"$build/vgpu" list --json --watch=$sample_every >"$work/samples" 2>"$work/list.err" &
pids+=($!)
lister=$!

names_json=$(printf '%s\n' "${names[@]}" | jq -R . | jq -sc .)
terminal=
if [[ -t 1 && ${TERM:-dumb} != dumb ]]; then terminal=yes; fi

# The newest sample, with shares of the last second: one sample's time cuts the round of turns anywhere. The last line may not be all
# there yet.
newest_sample() {
    tail -n4 "$work/samples" | head -n -1 | jq -cs '
        .[0] as $earlier | .[-1] | .at_ns as $at | .vgpus[]? |= (.name as $name |
            ([$earlier.vgpus[]? | select(.name == $name).charged_ns] | first // 0) as $before |
            .share_interval = (.charged_ns - $before) / ([$at - $earlier.at_ns, 1] | max))'
}

# One line per tenant: name, share of the last sample as bar and number, kernels, memory.
view() {
    newest_sample | jq -r --argjson names "$names_json" '
        def pad(n): . + " " * n | .[:n];
        def right(n): " " * n + . | .[-n:];
        . as $sample | $names[] as $name |
        ([$sample.vgpus[]? | select(.name == $name)] | first) as $v |
        if $v then
            ($v.share_interval // 0) as $share |
            "  " + ($name | pad(8)) + ("#" * ($share * 40 | round) | pad(41)) + ($share * 1000 | round | . / 10 | tostring | right(5)) + " %"
            + ($v.launches | tostring | right(10)) + " kernels" + ($v.used_bytes / 1048576 | round | tostring | right(7)) + " of "
            + ($v.quota_bytes / 1048576 | round | tostring) + " MiB" + (if $v.refusals > 0 then ", refused" else "" end)
        else "  " + $name
        end'
}

# The same in a few words, for logs.
view_in_a_line() {
    newest_sample | jq -r --argjson names "$names_json" '
        (.vgpus | map({(.name): .}) | add // {}) as $v | [$names[] | select($v[.]) |
            "\(.) \($v[.].share_interval // 0 | . * 1000 | round | . / 10) %, \($v[.].launches) kernels"] | join(" | ")'
}

show() {
    local text
    text=$(view 2>/dev/null) || return 0
    if [[ -n $terminal ]]; then
        [[ -z $drawn ]] || printf '\033[%dA' "$drawn"
        { printf '  %d s of %d\n' "$elapsed" "$seconds" && echo "$text"; } | sed $'s/$/\033[K/'
        drawn=$((${#names[@]} + 1))
    else
        text=$(view_in_a_line 2>/dev/null) && [[ -n $text ]] && printf '%3d s  %s\n' "$elapsed" "$text"
    fi
}

running() {
    local name
    for name in "${names[@]}"; do
        kill -0 "${pid_of[$name]}" 2>/dev/null && return
    done
    return 1
}

microseconds() {
    echo "${EPOCHREALTIME/./}"
}

drawn='' elapsed=0 start=$(microseconds)
# Twice the time and some: a program that hangs must not hang the demo.
while running && [[ $elapsed -lt $((2 * seconds + 60)) ]]; do
    now=$(microseconds)
    elapsed=$(((now - start) / 1000000))
    [[ ! -s $work/samples ]] || show
    left=$((1000000 - (now - start) % 1000000)) # to the next full second
    sleep "$(printf '%d.%06d' $((left / 1000000)) $((left % 1000000)))"
done
running && fail "after $elapsed seconds a program still runs"
declare -A status
for name in "${names[@]}"; do
    wait "${pid_of[$name]}"
    status[$name]=$?
done
kill -TERM "$lister"
wait "$lister" || fail "$(tail -n1 "$work/list.err")"
pids=()

# --- judge ------------------------------------------------------------------------------------------------------------------------

for name in "${names[@]}"; do
    [[ ${status[$name]} -le 1 ]] || fail "$name exited with ${status[$name]}: $(tail -n1 "$work/$name.err")"
done

result_of() { # NAME KEY: a value of the program's result line
    sed -n "s/^result .*\b$2=\([^ ]*\).*/\1/p" "$work/$1.out"
}

[[ $(result_of "$greedy" refused) == cudaErrorMemoryAllocation ]] || fail "$greedy asked for more memory than its quota and was not refused"

# Shares are counted while all three want the GPU: from the first sample after the refusal between which and the next all three
# launched, to the last sample after which all three still launched. Start and end, when some have the GPU for themselves, are no test of it.
measured=$(jq -cs --argjson names "$names_json" --arg greedy "$greedy" '
    [.[] | select(.vgpus) | {at: .at_ns, gpu: (.gpus[0].name // "?")} + {v: ([.vgpus[] | {(.name): .}] | add // {})}] as $s |
    [range(1; $s | length) as $i | select(all($names[]; $s[$i - 1].v[.] and $s[$i].v[.] and $s[$i].v[.].launches > $s[$i - 1].v[.].launches)
        and $s[$i - 1].v[$greedy].refusals > 0) | $i] as $valid |
    if ($valid | length) < 4 then {seconds: 0}
    else ($s[$valid[0]]) as $first | ($s[($valid | last) - 1]) as $last |
        ($names | map({(.): ($last.v[.].charged_ns - $first.v[.].charged_ns)}) | add) as $time | ($time | add) as $all |
        {seconds: (($last.at - $first.at) / 1e9), gpu: $first.gpu, tenants: ($names | map(. as $n | {($n): {
            share: (if $all > 0 then 100 * $time[$n] / $all else 0 end),
            peak: ([$s[].v[$n].peak_bytes // 0] | max), refused: ([$s[].v[$n].refused_bytes // 0] | max)}}) | add)}
    end' "$work/samples") || fail "cannot read the samples of vgpu list"
[[ $(jq '.seconds > 0' <<<"$measured") == true ]] || fail "the three did not run side by side for long enough to be measured"

total_weight=0
for name in "${names[@]}"; do
    total_weight=$((total_weight + weight[$name]))
done
failures=()
[[ -n $terminal ]] && echo
echo
printf '%-8s %7s %8s %9s %8s %9s %13s %9s  %s\n' TENANT WEIGHT TARGET MEASURED QUOTA PEAK REFUSED KERNELS RESULT
for name in "${names[@]}"; do
    read -r share peak refused < <(jq -r --arg n "$name" '.tenants[$n] | "\(.share) \(.peak / 1048576) \(.refused / 1048576)"' <<<"$measured")
    target=$(jq -n "100 * ${weight[$name]} / $total_weight")
    verified=wrong
    if [[ $(result_of "$name" verified) == yes && ${status[$name]} -eq 0 ]]; then verified=verified; fi
    printf '%-8s %7d %6.1f %% %7.1f %% %8s %5.0f MiB %9.0f MiB %9s  %s\n' "$name" "${weight[$name]}" "$target" "$share" "${quota[$name]}" "$peak" \
        "$refused" "$(result_of "$name" kernels)" "$verified"
    [[ $verified == verified ]] || failures+=("the result of $name is wrong: $(tail -n1 "$work/$name.err")")
    [[ $(jq -n "($share - $target) | fabs <= $tolerance") == true ]] ||
        failures+=("$name got $(printf %.1f "$share") % of the GPU instead of $(printf %.1f "$target") %")
done
echo
echo "$(jq -r .gpu <<<"$measured") ($([[ $gpu == real ]] && echo "real" || echo "simulated") GPU)," \
    "shares of GPU time over $(printf %.1f "$(jq .seconds <<<"$measured")") s in which all three wanted it."

if [[ ${#failures[@]} -gt 0 ]]; then
    printf -v joined '%s; ' "${failures[@]}"
    echo "FAILED: ${joined%; }"
    exit 1
fi
echo "All results are right, all shares are within $tolerance points, and $greedy was refused what exceeds its quota."
