#!/usr/bin/env bats
# SPDX-License-Identifier: AGPL-3.0-or-later
# The vgpu command. Tenants are made by pool_tenant, so that nothing here depends on a GPU, simulated or not.
# bats file_tags=nogpu
bats_require_minimum_version 1.5.0
load helper

setup() {
    common_setup
    unset LD_LIBRARY_PATH NO_COLOR
    cd "$root" || return
}

teardown() { common_teardown; }

# tenant [KEY=VALUE]...: a tenant in the pool, whose figures are set
tenant() {
    spawn "$PROGRAMS/pool_tenant" "$VGPU_POOL" "$@"
    wait_until file_has "$out" ready
}

# on_terminal COMMAND...: runs it on a terminal; output is what the terminal saw
on_terminal() {
    local words
    printf -v words '%q ' "$@"
    TERM=${TERM_NAME-xterm} script -qec "stty rows ${ROWS:-24} cols 80; $words" /dev/null </dev/null
}

# JSON of the pool without waiting, through a jq filter that must yield true
json_has() {
    "$VGPU" list --json --interval 0 | jq -e "$@" >/dev/null || {
        "$VGPU" list --json --interval 0
        return 1
    } >&2
}

# --- the command itself -----------------------------------------------------------------------------------------------------------

@test "version is said in one line, also by --version" {
    run -0 --separate-stderr "$VGPU" version
    [[ $output =~ ^vgpu\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
    local said=$output
    run -0 --separate-stderr "$VGPU" --version
    assert_equal "$output" "$said"
    if [ -e CHANGELOG.md ]; then grep -qF "${said#vgpu }" CHANGELOG.md; fi
}

@test "help names every command and every command has help" {
    local command
    run -0 --separate-stderr "$VGPU" --help
    local overview=$output
    run -0 --separate-stderr "$VGPU" help
    assert_equal "$output" "$overview"
    for command in run list set doctor help version; do
        assert_contains "$overview" "vgpu $command"
        run -0 --separate-stderr "$VGPU" help "$command"
        assert_contains "${lines[0]}" "usage: vgpu $command"
        local said=$output
        run -0 --separate-stderr "$VGPU" "$command" --help
        assert_equal "$output" "$said"
    done
}

@test "without a command, and with one that does not exist, it exits with 2 and hints at the help" {
    run -2 --separate-stderr "$VGPU"
    assert_equal "$output" ""
    assert_equal "$stderr" "vgpu: no command given"$'\n'"Try 'vgpu --help'."
    run -2 --separate-stderr "$VGPU" lst
    assert_equal "${stderr_lines[0]}" "vgpu: there is no command 'lst'"
    run -2 --separate-stderr "$VGPU" --lst
    assert_equal "${stderr_lines[0]}" "vgpu: there is no option '--lst'"
    run -2 --separate-stderr "$VGPU" help lst
    assert_equal "${stderr_lines[0]}" "vgpu help: there is no help on 'lst'"
    run -2 --separate-stderr "$VGPU" version now
    run -2 --separate-stderr "$VGPU" help run list
    run -2 --separate-stderr "$VGPU" help --markdown
    run -2 --separate-stderr "$VGPU" list --frob
    assert_equal "$stderr" "vgpu list: unrecognized option '--frob'"$'\n'"Try 'vgpu list --help'."
    run -2 --separate-stderr "$VGPU" list everything
    assert_equal "${stderr_lines[0]}" "vgpu list: unexpected argument 'everything'"
}

@test "an argument cannot steer the terminal through an error" {
    local bad=$'a\033]0;evil\007b\nc' seen='a?]0;evil?b?c'
    run -2 --separate-stderr "$VGPU" "$bad"
    assert_equal "${stderr_lines[0]}" "vgpu: there is no command '$seen'"
    run -2 --separate-stderr "$VGPU" run --memory "$bad" true
    assert_contains "$stderr" "VGPU_MEMORY=$seen is not understood"
    run -127 --separate-stderr "$VGPU" run "$bad"
    assert_equal "$stderr" "vgpu run: cannot run $seen: No such file or directory"
    run -0 --separate-stderr "$VGPU" list --pool "/tmp/$bad"
    assert_equal "$stderr" "no pool at /tmp/$seen: nothing has run under vgpu"
    tenant
    run -1 --separate-stderr "$VGPU" set "$bad" --weight 3
    assert_contains "$stderr" "there is no virtual GPU '$seen'"
}

@test "README has the option table as the command prints it" {
    run -0 --separate-stderr "$VGPU" help env --markdown
    assert_contains "$(<README.md)" "$output"
}

@test "the man pages have every option with its purpose, what is allowed and its default" {
    local page variable flag purpose allowed default rows=0
    page=$(sed 's/\\//g' docs/vgpu-environment.7.scd)
    while IFS='|' read -r _ variable flag purpose allowed default _; do
        variable=${variable//[ \`]/} flag=${flag//\`/}
        read -r flag _ <<<"$flag"
        assert_contains "$page" "*$variable*="
        assert_contains "$page" $'\t'"${purpose:1:-1}"$'\n'
        assert_contains "$page" $'\t'"Allowed: ${allowed:1:-1}"$'\n'
        assert_contains "$page" $'\t'"Default: ${default:1:-1}"$'\n'
        grep -qF -- "*$flag* " docs/vgpu.1.scd
        rows=$((rows + 1))
    done < <("$VGPU" help env --markdown | sed -e '/^$/,$d' -e 1,2d -e 's/\\|/\//g')
    [ "$rows" -ge 11 ]
}

@test "the man page has every alias with what it stands for" {
    local page alias option allowed rows=0
    page=$(sed 's/\\//g' docs/vgpu-environment.7.scd)
    while IFS='|' read -r _ alias option allowed _; do
        alias=${alias#*\`} option=${option//[ \`]/}
        assert_contains "$page" "*${alias%%\`*}*"
        assert_contains "$page" "Stands for *$option*"
        assert_contains "$page" $'\t'"Allowed: ${allowed:1:-1}"$'\n'
        rows=$((rows + 1))
    done < <("$VGPU" help env --markdown | sed -e '1,/^$/d' | sed 1,2d)
    [ "$rows" -ge 2 ]
}

@test "help env explains each variable with its flag" {
    run -0 --separate-stderr "$VGPU" help env
    assert_contains "$output" "VGPU_MEMORY=SIZE (--memory)"
    assert_contains "$output" "VGPU_LOG_FILE=PATH (--log-file)"
    assert_contains "$output" "allowed: a whole number from 1 to 10000"
}

@test "output that cannot be written is an error" {
    run -1 --separate-stderr bash -c '"$VGPU" help >/dev/full'
    assert_equal "$stderr" "vgpu help: cannot write the output: No space left on device"
    run -1 --separate-stderr bash -c '"$VGPU" list --json >/dev/full'
    assert_equal "$stderr" "vgpu list: cannot write the output: No space left on device"
    run -1 --separate-stderr bash -c '"$VGPU" version >&-'
    assert_contains "$stderr" "cannot write the output"
}

@test "a reader that goes away ends a watch" {
    tenant
    run -0 bash -c '"$VGPU" list --watch=0.1 | head -n1 >/dev/null; [ "${PIPESTATUS[0]}" -eq 141 ]'
    # Where the signal is ignored, as under some supervisors, it is an error like any other.
    run -0 --separate-stderr bash -c 'trap "" PIPE; "$VGPU" list --watch=0.1 | head -n1 >/dev/null; [ "${PIPESTATUS[0]}" -eq 1 ]'
    assert_contains "$stderr" "Broken pipe"
}

# --- run --------------------------------------------------------------------------------------------------------------------------

@test "run sets the variable of each flag, in both spellings" {
    run -0 --separate-stderr "$VGPU" run --memory 8G --weight=200 --quantum 2.5 --name=me --pool /tmp/p --chunk=4M --require-quota 1 \
        --allocator chunk --compute-limit=30 --priority high --log=debug --log-file /tmp/l --concurrency 4 env
    assert_equal "$stderr" ""
    local wanted
    for wanted in MEMORY=8G WEIGHT=200 QUANTUM=2.5 NAME=me POOL=/tmp/p CHUNK=4M REQUIRE_QUOTA=1 LOG=debug LOG_FILE=/tmp/l \
        COMPUTE_LIMIT=30 PRIORITY=high ALLOCATOR=chunk CONCURRENCY=4; do
        assert_contains $'\n'"$output"$'\n' $'\n'"VGPU_$wanted"$'\n'
    done
}

@test "run refuses another tool's variable that is not understood, unless the option is set" {
    CUDA_DEVICE_MEMORY_LIMIT=lots run -2 --separate-stderr "$VGPU" run true
    assert_contains "$stderr" "vgpu run: CUDA_DEVICE_MEMORY_LIMIT=lots is not understood"
    CUDA_DEVICE_MEMORY_LIMIT=lots run -0 --separate-stderr "$VGPU" run --memory 1G true
    assert_equal "$stderr" ""
}

@test "run preloads the library of its own build" {
    run -0 --separate-stderr "$VGPU" run printenv LD_PRELOAD
    assert_equal "$output" "$(realpath "$SHIM")"
}

@test "run leaves the environment alone where no flag says otherwise, and a flag wins over it" {
    VGPU_WEIGHT=300 VGPU_NAME=mine run -0 --separate-stderr "$VGPU" run --weight 400 sh -c 'echo $VGPU_WEIGHT $VGPU_NAME ${VGPU_MEMORY-none}'
    assert_equal "$output" "400 mine none"
}

@test "run gives what follows the program to the program" {
    run -0 --separate-stderr "$VGPU" run echo --weight 5 -- --help
    assert_equal "$output" "--weight 5 -- --help"
    run -0 --separate-stderr "$VGPU" run --weight 5 -- echo -n --json
    assert_equal "$output" "--json"
}

@test "run prepends to LD_PRELOAD and keeps what is there" {
    local a=$BATS_TEST_TMPDIR/a.so b=$BATS_TEST_TMPDIR/b.so
    gcc -shared -o "$a" -x c /dev/null
    cp "$a" "$b"
    LD_PRELOAD=$a run -0 --separate-stderr "$VGPU" run printenv LD_PRELOAD
    assert_equal "$output" "$(realpath "$SHIM"):$a"
    LD_PRELOAD="$a  $b:" run -0 --separate-stderr "$VGPU" run printenv LD_PRELOAD
    assert_equal "$output" "$(realpath "$SHIM"):$a:$b"
}

@test "run in run, and a library that is preloaded already, make no second copy" {
    local other=$BATS_TEST_TMPDIR/libvgpu_shim.so a=$BATS_TEST_TMPDIR/a.so
    gcc -shared -o "$a" -x c /dev/null
    cp "$a" "$other"
    run -0 --separate-stderr "$VGPU" run --weight 3 "$VGPU" run --name n sh -c 'echo $LD_PRELOAD $VGPU_WEIGHT $VGPU_NAME'
    assert_equal "$output" "$(realpath "$SHIM") 3 n"
    LD_PRELOAD="$a:$other" run -0 --separate-stderr "$VGPU" run printenv LD_PRELOAD
    assert_equal "$output" "$(realpath "$SHIM"):$a"
}

# An installation of its own, with a library that does nothing.
install_copy() { # FOLDER LIBRARY-FOLDER
    mkdir -p "$1/bin" "$1/$2"
    cp "$VGPU" "$1/bin/"
    gcc -shared -o "$1/$2/libvgpu_shim.so" -x c /dev/null
}

@test "run finds the library in lib and lib64 beside bin, also through a symbolic link" {
    local at=$BATS_TEST_TMPDIR/prefix
    install_copy "$at" lib64
    run -0 --separate-stderr "$at/bin/vgpu" run printenv LD_PRELOAD
    assert_equal "$output" "$at/lib64/libvgpu_shim.so"
    install_copy "$at" lib
    ln -s "$at/bin/vgpu" "$BATS_TEST_TMPDIR/link"
    run -0 --separate-stderr "$BATS_TEST_TMPDIR/link" run printenv LD_PRELOAD
    assert_equal "$output" "$at/lib/libvgpu_shim.so"
}

@test "without the library nothing is run" {
    local at=$BATS_TEST_TMPDIR/prefix
    mkdir -p "$at/bin" "$at/lib/libvgpu_shim.so" # a folder of that name is not it
    cp "$VGPU" "$at/bin/"
    [ ! -e "$(strings "$VGPU" | grep -m1 '/lib$')/libvgpu_shim.so" ] || skip "the library is installed on this machine"
    run -125 --separate-stderr "$at/bin/vgpu" run touch "$BATS_TEST_TMPDIR/ran"
    assert_contains "$stderr" "vgpu run: cannot find libvgpu_shim.so"
    [ ! -e "$BATS_TEST_TMPDIR/ran" ]
}

@test "a library whose path LD_PRELOAD cannot hold is refused, and nothing is run" {
    local name
    for name in "with space" "with:colon"; do
        install_copy "$BATS_TEST_TMPDIR/$name" lib
        run -125 --separate-stderr "$BATS_TEST_TMPDIR/$name/bin/vgpu" run touch "$BATS_TEST_TMPDIR/ran"
        assert_contains "$stderr" "$name/lib/libvgpu_shim.so"
        assert_contains "$stderr" "a space or a colon"
        [ ! -e "$BATS_TEST_TMPDIR/ran" ]
    done
}

@test "run exits as the program does, and with 126 and 127 where it cannot start it" {
    run -7 "$VGPU" run sh -c 'exit 7'
    run -127 --separate-stderr "$VGPU" run no-such-program-here
    assert_equal "$stderr" "vgpu run: cannot run no-such-program-here: No such file or directory"
    run -127 --separate-stderr "$VGPU" run ./no/such/program
    run -126 --separate-stderr "$VGPU" run ./README.md
    assert_equal "$stderr" "vgpu run: cannot run ./README.md: Permission denied"
    run -126 --separate-stderr "$VGPU" run /
    run -143 bash -c '"$VGPU" run sh -c "kill -TERM \$\$"'
}

@test "run refuses what it does not understand before anything runs" {
    local ran=$BATS_TEST_TMPDIR/ran
    run -2 --separate-stderr "$VGPU" run --memory 8 touch "$ran"
    assert_equal "$stderr" "vgpu run: --memory: VGPU_MEMORY=8 is not understood: allowed is a size (8G, 512M), a part of the GPU (25%), or\
 one of these per GPU (0=8G,1=25%)"
    run -2 --separate-stderr "$VGPU" run --weight= touch "$ran"
    assert_contains "$stderr" "--weight: VGPU_WEIGHT= is not understood"
    VGPU_QUANTUM=fast run -2 --separate-stderr "$VGPU" run touch "$ran"
    assert_equal "$stderr" "vgpu run: VGPU_QUANTUM=fast is not understood: allowed is auto, or milliseconds from 1 to 1000"
    run -2 --separate-stderr "$VGPU" run --frob touch "$ran"
    assert_equal "$stderr" "vgpu run: unrecognized option '--frob'"$'\n'"Try 'vgpu run --help'."
    run -2 --separate-stderr "$VGPU" run --memory
    assert_contains "${stderr_lines[0]}" "vgpu run: option '--memory' requires an argument"
    run -2 --separate-stderr "$VGPU" run --memory 8G
    assert_contains "${stderr_lines[0]}" "vgpu run: no program given"
    [ ! -e "$ran" ]
}

@test "a wrong variable does not matter where a flag replaces it" {
    VGPU_WEIGHT=heavy run -0 --separate-stderr "$VGPU" run --weight 5 printenv VGPU_WEIGHT
    assert_equal "$output" 5
}

# --- list: pools that are none ----------------------------------------------------------------------------------------------------

@test "without a pool, list says so on stderr and lists nothing" {
    run -0 --separate-stderr "$VGPU" list
    assert_equal "${#lines[@]}" 1
    assert_contains "$output" "NAME"
    assert_equal "$stderr" "no pool at $VGPU_POOL: nothing has run under vgpu"
    run -0 --separate-stderr "$VGPU" list --json
    assert_equal "$stderr" ""
    jq -e '.pool.exists == false and .pool.version == null and .gpus == [] and .vgpus == []' <<<"$output"
    [ ! -e "$VGPU_POOL" ]
}

@test "an empty pool is listed as empty" {
    tenant
    kill "$pid"
    wait_until process_gone "$pid"
    run -0 --separate-stderr "$VGPU" list --interval 0
    assert_equal "$stderr" "no virtual GPU in the pool $VGPU_POOL"
    json_has '.pool.exists and .vgpus == []'
}

@test "what is no pool, or a damaged one, is refused in one line" {
    head -c 100000 /dev/zero >"$VGPU_POOL"
    chmod 600 "$VGPU_POOL"
    run -1 --separate-stderr "$VGPU" list
    assert_equal "$stderr" "vgpu list: $VGPU_POOL is not a pool: remove it, or set VGPU_POOL"
    : >"$VGPU_POOL"
    run -1 --separate-stderr "$VGPU" list --json
    assert_contains "$stderr" "is not a pool (0 bytes)"
    assert_equal "$output" ""
    rm "$VGPU_POOL"
    tenant
    truncate -s 100000 "$VGPU_POOL"
    run -1 --separate-stderr "$VGPU" list
    assert_equal "${#stderr_lines[@]}" 1
    rm "$VGPU_POOL"
    tenant
    printf '\x63' | dd of="$VGPU_POOL" bs=1 seek=8 conv=notrunc status=none
    run -1 --separate-stderr "$VGPU" list
    assert_contains "$stderr" "has layout version 99"
    run -1 --separate-stderr "$VGPU" list --pool "$BATS_TEST_TMPDIR"
    run -1 --separate-stderr "$VGPU" list --pool /dev/null
}

@test "random bytes in a pool neither crash list nor reach the terminal" {
    local seed said=$BATS_TEST_TMPDIR/said # too much for a variable: every virtual GPU seems to have hundreds of processes
    for seed in 1 2 3 4 5 6; do
        rm -f "$VGPU_POOL"
        tenant "scramble=$seed"
        "$VGPU" list --interval 0.1 >"$said"
        [[ $((seed % 3)) -eq 0 || $(wc -l <"$said") -gt 100 ]] # those leave no virtual GPU on a GPU that there is
        if LC_ALL=C grep -qP '[^\x20-\x7e]' "$said"; then return 1; fi
        "$VGPU" list --json --interval 0.1 >"$said"
        jq -e '.vgpus | all(.[]; .gpu <= 15 and .share_interval >= 0 and .share_interval <= 1 and .share_since_start <= 1)' "$said"
        kill "$pid"
    done
}

@test "a pool's path that is no path is refused" {
    VGPU_POOL='' run -2 --separate-stderr "$VGPU" list
    assert_contains "$stderr" "vgpu list: VGPU_POOL= is not understood"
    run -2 --separate-stderr "$VGPU" list --pool /tmp/
    assert_contains "$stderr" "vgpu list: --pool: VGPU_POOL=/tmp/ is not understood"
}

# --- list: figures ----------------------------------------------------------------------------------------------------------------

@test "list --json has every figure of a virtual GPU, in the units its names say" {
    tenant name=train quota=4096 charge=1000 peak=2000 weight=500 quantum_ms=20 launches=77 refusals=3 refused_bytes=7516192768 \
        held_ns=18014398509481985 charged_ns=5000 waited_ns=123456789
    json_has '.pool == {path: $ENV.VGPU_POOL, exists: true, version: 4, chunk_bytes: 2097152}'
    json_has '.vgpus | length == 1'
    json_has '.vgpus[0] | .name == "train" and .gpu == 0 and .weight == 500 and .quantum_ns == 20000000 and .concurrency == 1 and .companion == false'
    json_has '.vgpus[0] | .quota_bytes == 4096 * 2097152 and .used_bytes == 1000 * 2097152 and .peak_bytes == 2000 * 2097152'
    json_has '.vgpus[0] | .launches == 77 and .refusals == 3 and .refused_bytes == 7516192768 and .charged_ns == 5000'
    json_has '.vgpus[0] | .waited_ns == 123456789 and .share_interval == null and .holder == false and .waiting == false'
    json_has --argjson pid "$pid" '.vgpus[0].processes == [{pid: $pid, command: "pool_tenant", used_bytes: 2097152000, launches: 77}]'
    json_has '.gpus == [{index: 0, uuid: "GPU-dead0000-0000-0000-0000-000000000000", name: "Test GPU", total_bytes: 85899345920,
        reserved_bytes: 8589934592, open_used_bytes: 0, context_bytes: 0, switch_ns: 175000, mps: false, holder: null}]'
    # Not through jq, whose numbers lose the last bit.
    run -0 --separate-stderr "$VGPU" list --json --interval 0
    assert_contains "$output" 18014398509481985
}

@test "every virtual GPU has the same keys, and the man page names them" {
    local key
    tenant name=a quota=10
    tenant gpu=1 hold=1
    run -0 --separate-stderr "$VGPU" list --json --interval 0.1
    jq -e '.vgpus | map(keys) | unique | length == 1' <<<"$output"
    for key in $(jq -r '[paths | map(select(type == "string"))[]] | unique[]' <<<"$output"); do
        grep -qE "\*$key\*" docs/vgpu.1.scd || {
            echo "docs/vgpu.1.scd lacks $key" >&2
            return 1
        }
    done
}

@test "list shows class, limit and concurrency where somebody has another than the usual" {
    tenant name=usual
    run -0 --separate-stderr "$VGPU" list --interval 0
    refute_contains "${lines[0]}" PRIORITY
    refute_contains "${lines[0]}" LIMIT
    refute_contains "${lines[0]}" CONCURRENCY
    tenant name=special limit=30 priority=1 concurrency=2
    run -0 --separate-stderr "$VGPU" list --interval 0
    [[ ${lines[0]} =~ WEIGHT\ \ PRIORITY\ \ LIMIT\ \ QUANTUM\ \ CONCURRENCY ]]
    [[ ${lines[1]} =~ usual\ +100\ \ normal\ +none\ +auto\ +1 ]]
    [[ ${lines[2]} =~ special\ +100\ \ high\ +30\ %\ +auto\ +2 ]]
    json_has '.vgpus | map([.priority, .limit_percent]) == [["normal", 0], ["high", 30]]'
}

@test "list shows a quantum as it was given, the longest too" {
    tenant name=longest quantum_ms=1000
    run -0 --separate-stderr "$VGPU" list --interval 0
    [[ ${lines[1]} =~ longest\ +100\ +1000\ ms ]]
}

@test "list --json has busy time, and waits as quantiles and as counts" {
    tenant charged_ns=5000 idle_ns=2000 waits=7 wait_us=100
    json_has '.vgpus[0] | .idle_ns == 2000 and .busy_ns == 3000'
    json_has '.vgpus[0].wait | .count == 7 and .p50_us == .max_us and .p50_us >= 100 and .p50_us <= 120 and .p99_us == .p90_us'
    json_has '.vgpus[0].wait.buckets | length == 1 and .[0][0] <= 100000 and .[0][1] == 7'
    json_has '.vgpus[0].drain == {count: 0, p50_us: null, p90_us: null, p99_us: null, max_us: null, buckets: []}'
}

@test "processes of one name are one virtual GPU; others are named after their process" {
    tenant name=shared quota=100 charge=10
    tenant name=shared charge=20
    tenant charge=30 gpu=1
    json_has '.vgpus | length == 2'
    json_has '.vgpus[0] | (.processes | length) == 2 and .used_bytes == 30 * 2097152'
    json_has --arg name "pool_tenant:$pid" '.vgpus[1] | .name == $name and .gpu == 1 and .quota_bytes == 0'
    json_has '.gpus[1] | .reserved_bytes == 0 and .open_used_bytes == 30 * 2097152'
}

@test "the dead are neither shown nor counted, and looking does not change the pool" {
    local before
    tenant name=shared quota=100 charge=10
    tenant name=shared charge=20
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    tenant name=gone quota=50
    kill -KILL "$pid"
    wait_until process_gone "$pid"
    before=$(sha256sum <"$VGPU_POOL")
    json_has '.vgpus | length == 1'
    json_has '.vgpus[0] | (.processes | length) == 1 and .used_bytes == 10 * 2097152'
    json_has '.gpus[0].reserved_bytes == 100 * 2097152'
    assert_equal "$(sha256sum <"$VGPU_POOL")" "$before"
}

@test "who has the token and launches had the GPU; who has it and launches nothing had not" {
    tenant name=busy hold=1 launch_every_ms=5
    tenant name=idle hold=1 gpu=1
    tenant name=out
    run -0 --separate-stderr "$VGPU" list --json --interval 0.3
    jq -e '.interval_ns >= 300000000' <<<"$output"
    jq -e '.vgpus | map({(.name): .}) | add | .busy.holder and .busy.share_interval > 0.9 and .busy.share_since_start > 0.5' <<<"$output"
    jq -e '.vgpus | map({(.name): .}) | add | .idle.holder and .idle.share_interval == 0' <<<"$output"
    jq -e '.vgpus | map({(.name): .}) | add | (.out.holder | not) and .out.share_interval == 0' <<<"$output"
    jq -e '[.gpus[].holder] == ["busy", "idle"]' <<<"$output"
}

@test "the table shows what people look for, in columns" {
    tenant name=train quota=4096 charge=1000 peak=2000 weight=500 refusals=3 refused_bytes=7516192768 waited_ns=12345000000 hold=1
    tenant charge=300 gpu=1
    run -0 --separate-stderr "$VGPU" list --interval 0
    assert_equal "$stderr" ""
    assert_contains "${lines[1]}" "train"
    assert_contains "${lines[1]}" "8.0 GiB"
    assert_contains "${lines[1]}" "held"
    assert_contains "${lines[1]}" "12.3 s"
    assert_contains "${lines[1]}" "3 (7.0 GiB)"
    assert_contains "${lines[2]}" "600 MiB"
    assert_contains "${lines[2]}" "none"
    assert_contains "$output" "GPU-dead0000-0000-0000-0000-000000000001  Test GPU"
    # A column begins in the same place in each row.
    local title=${lines[0]%%NAME*} first=${lines[1]%%train*} second=${lines[2]%%pool_tenant*}
    assert_equal "${#first}" "${#title}"
    assert_equal "${#second}" "${#title}"
}

@test "a process's command cannot steer the terminal" {
    tenant
    # The command of the first process record: 8320 + 24.
    printf '\033]0;evil\007\xc3\xa9%024d' 7 | dd of="$VGPU_POOL" bs=1 seek=8344 conv=notrunc status=none
    run -0 --separate-stderr "$VGPU" list --interval 0
    assert_contains "$output" "?]0;evil???000"
    json_has '.vgpus[0].processes[0].command | startswith("?]0;evil???000")'
}

@test "intervals that are no numbers of seconds are refused" {
    local bad
    for bad in x -1 '' 1s inf nan 3601; do
        run -2 --separate-stderr "$VGPU" list --interval "$bad"
        assert_equal "$stderr" "vgpu list: --interval=$bad is not understood: allowed is a number of seconds from 0 to 3600"
    done
    run -2 --separate-stderr "$VGPU" list --watch=0
    assert_contains "$stderr" "--watch=0 is not understood"
    run -2 --separate-stderr "$VGPU" list --watch --interval 2
    assert_contains "$stderr" "--interval cannot be combined with --watch"
}

# --- list: terminals --------------------------------------------------------------------------------------------------------------

@test "titles are bold on a terminal, and plain with NO_COLOR, on a dumb terminal and elsewhere" {
    local bold=$'\033[1m'
    tenant
    run -0 on_terminal "$VGPU" list --interval 0
    assert_contains "$output" "$bold"
    NO_COLOR=1 run -0 on_terminal "$VGPU" list --interval 0
    refute_contains "$output" $'\033'
    TERM_NAME=dumb run -0 on_terminal "$VGPU" list --interval 0
    refute_contains "$output" $'\033'
    run -0 --separate-stderr "$VGPU" list --interval 0
    refute_contains "$output" $'\033'
}

@test "a watch that is not on a terminal appends, until it is interrupted, and exits with 0" {
    tenant name=seen
    run -0 --separate-stderr timeout --preserve-status -s INT 1 "$VGPU" list --watch=0.2
    refute_contains "$output" $'\033'
    [ "$(grep -c seen <<<"$output")" -ge 2 ]
    run -0 --separate-stderr timeout --preserve-status -s TERM 1 "$VGPU" list --json --watch=0.2
    [ "${#lines[@]}" -ge 2 ]
    run -0 jq -es 'all(.[]; .vgpus[0].name == "seen" and .vgpus[0].share_interval == 0)' <<<"$output"
}

@test "a watch on a terminal redraws in place and gives the terminal back" {
    tenant name=seen
    run -0 on_terminal timeout --foreground --preserve-status -s INT 1 "$VGPU" list --watch=0.2
    assert_contains "$output" $'\033[?1049h'
    assert_contains "$output" seen
    refute_contains "$output" "status"
    # The last that the terminal hears: lines wrap, the cursor is there, the old screen is back.
    [[ $output == *$'\033[?7h\033[?25h\033[?1049l'* ]]
    [[ ${output##*$'\033[?1049l'} != *seen* ]]
}

@test "a picture is cut to the height of the terminal" {
    local i
    for i in 1 2 3 4 5 6; do tenant "name=t$i"; done
    ROWS=4 run -0 on_terminal timeout --foreground --preserve-status -s INT 1 "$VGPU" list --watch=0.5
    assert_contains "$output" "t3"
    refute_contains "$output" "t4"
}

@test "a watch waits for a pool to come and goes on after it went" {
    spawn "$VGPU" list --json --watch=0.1
    wait_until file_has "$out" '"exists":false'
    local watching=$out
    tenant name=late
    wait_until file_has "$watching" '"late"'
    rm "$VGPU_POOL"
    wait_until bash -c 'tail -n1 "$1" | grep -q "\"exists\":false"' - "$watching"
}
