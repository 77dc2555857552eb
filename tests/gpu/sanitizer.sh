#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Runs a program under compute-sanitizer. Prints what the program prints, and the number of errors that were found.
set -uo pipefail

tool=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | tail -n1)
if [[ -z $tool ]]; then
    echo "compute-sanitizer is not installed"
    exit 77
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$tool" --tool memcheck --error-exitcode 9 --log-file "$log" "$@"
status=$?
cat "$log" >&2
sed -n 's/^=* *ERROR SUMMARY/ERROR SUMMARY/p' "$log"
exit "$status"
