#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-or-later
# Checks what the preload library needs and exports, before the build puts it into place.
#
#   scripts/check-elf.sh LIBRARY [EXPORTS_LIST]
#
# It enters other people's processes, so it may need nothing but the C library, and above all not the libraries that it stands in
# front of. EXPORTS_LIST names every exported symbol, one a line; '#' starts a comment.
set -euo pipefail

library=${1:?usage: $0 LIBRARY [EXPORTS_LIST]}
list=${2:-}
status=0

dynamic=$(readelf --dynamic --wide "$library")

while read -r needed; do
    case $needed in
    libc.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux-*.so.*) ;;
    *)
        echo "$library: needs $needed; only the C library is allowed" >&2
        status=1
        ;;
    esac
done < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic")

if grep -qE '\((RPATH|RUNPATH|TEXTREL)\)' <<<"$dynamic"; then
    echo "$library: has an RPATH, RUNPATH or TEXTREL entry" >&2
    status=1
fi
# Lazy binding would run the dynamic linker inside the program's first launch.
if ! grep -qE '\((FLAGS|FLAGS_1|BIND_NOW)\).*NOW' <<<"$dynamic"; then
    echo "$library: is not linked with -z now" >&2
    status=1
fi

if [[ -n $list ]]; then
    # A versioned name is compared without its version; the version nodes themselves are absolute symbols.
    exported=$(nm --dynamic --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u)
    expected=$(sed 's/#.*//' "$list" | awk 'NF { print $1 }' | LC_ALL=C sort -u)
    if [[ $exported != "$expected" ]]; then
        echo "$library: exports differ from $list (< listed only, > exported only):" >&2
        diff <(echo "$expected") <(echo "$exported") | grep '^[<>]' >&2 || true
        status=1
    fi
fi
exit "$status"
