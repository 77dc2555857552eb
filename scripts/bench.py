#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Measures the library on the GPU of this machine, beside what one gets without it.

usage: scripts/bench.py [--out DIR] [PIECE...]      measures pieces, by default all; writes OUT/PIECE.jsonl
       scripts/bench.py report DIR...               merges what was measured into tables (report.md), CSV and SVG in the first DIR
       scripts/bench.py report --into PAGE DIR...   puts tables and plots into a page, as docs/benchmarks.md

Environment: BENCH_ROUNDS (5), BENCH_SECONDS of a run (each piece has its own), BENCH_ARMS (comma-separated, all), BENCH_CASES (a regular
expression on the names of cases), BENCH_OUT (build/bench), BUILD (build). BENCH_PRELOAD_NAME=path measures another preload library as well,
with BENCH_ENV_NAME='K=V ...' for each tenant, where {weight} and {percent} stand for its weight and share. BENCH_SIMULATED=1: without a
GPU, run on the simulated one, shortened, to try the script out; such figures mean nothing.

Builds nothing: `make all tests` first, or `make bench`. Arms that cannot be measured here are left out and named.
"""
import os
import signal
import sys

sys.dont_write_bytecode = True
from benchmark import pieces, report  # noqa: E402
from benchmark.core import Bench  # noqa: E402
from benchmark.machine import BenchError, Machine  # noqa: E402

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def positive(name, default, kind):
    text = os.environ.get(name, "")
    try:
        value = kind(text) if text else default
    except ValueError:
        value = -1
    if value is not None and value <= 0:
        raise BenchError(f"{name}={text}: expected a number above 0")
    return value


def measure(out, names):
    unknown = [name for name in names if name not in pieces.PIECES]
    if unknown:
        raise BenchError(f"there is no piece {', '.join(unknown)}: {', '.join(pieces.PIECES)}")
    simulated = os.environ.get("BENCH_SIMULATED") == "1"
    rounds = positive("BENCH_ROUNDS", 1 if simulated else 5, int)
    seconds = positive("BENCH_SECONDS", 1.0 if simulated else None, float)
    machine = Machine(os.environ.get("BUILD") or "build", simulated)
    try:
        bench = Bench(machine, out, rounds, seconds, os.environ.get("BENCH_ARMS", ""), os.environ.get("BENCH_CASES", ""))
        print(machine.describe(), flush=True)
        for name in names or pieces.PIECES:
            bench.measure(name, pieces.PIECES[name])
        return 1 if bench.failures else 0
    finally:
        machine.close()


def stop(number, _frame):
    for each in STOPS: # nothing interrupts the cleaning up
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main(arguments):
    # An exception, so that tenants and MPS daemons end with the benchmark.
    for number in STOPS:
        signal.signal(number, stop)
    out = os.environ.get("BENCH_OUT") or os.path.join(os.environ.get("BUILD") or "build", "bench")
    if arguments[:1] == ["--out"] and len(arguments) > 1:
        out, arguments = arguments[1], arguments[2:]
    if arguments[:1] == ["report"]:
        into = arguments[2] if arguments[1:2] == ["--into"] and len(arguments) > 2 else ""
        return report.write(arguments[3 if into else 1:] or [out], into)
    if any(argument.startswith("-") for argument in arguments):
        print(__doc__.strip(), file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    status = measure(out, arguments)
    report.write([out])
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
