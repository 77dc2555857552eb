#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Runs a program under Nsight Compute. Prints what the program prints, and how many instructions each of its kernels executed.
set -uo pipefail

tool=$(command -v ncu || compgen -G '/usr/local/cuda*/bin/ncu' | tail -n1)
if [[ -z $tool ]]; then
    echo "ncu is not installed"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The GPU's clocks stay as they are: others use it.
"$tool" --clock-control none --cache-control none --launch-count 24 --metrics smsp__inst_executed.sum --csv --log-file "$work/log" "$@"
status=$?
cat "$work/log" >&2
# "ID",...,"Kernel Name",...,"Metric Name","Metric Unit","Metric Value"
awk -F '","' '/smsp__inst_executed.sum/ { gsub(/[",]/, "", $NF); n[$NF]++; kernels++ }
    END { for (count in n) print n[count], "kernels executed", count, "instructions" | "sort"; close("sort")
          exit !kernels }' "$work/log" || { echo "no kernel was profiled"; exit 1; }
exit "$status"
