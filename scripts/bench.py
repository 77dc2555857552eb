#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Measures the library on the GPU of this machine, beside what one gets without it.

usage: scripts/bench.py [--minutes N] [--short] [--plan] [--out DIR] [PIECE...]
       scripts/bench.py report [--into PAGE] [--of VERSION] DIR...

The first measures what is missing in DIR of BENCH_ROUNDS rounds of pieces, by default of all, for this version and this GPU, and writes
DIR/PIECE.jsonl. The first round of everything comes first, then the second, and so on; only whole rounds of a case, which are all its
arms by turns, are kept.
  --minutes N  measure only what is expected to end within N minutes, and say what is missing; the same call again goes on
  --short      leave out what is not needed for a row of the table of aims
  --plan       measure nothing: print what is missing and how long it is going to take; without a GPU, of everything

The second merges what was measured into tables (report.md), CSV and SVG in the first DIR; of each piece the newest version of which all
rounds are there, or else the newest.
  --into PAGE   put tables and plots into a page instead, as docs/benchmarks.md
  --of VERSION  only versions or GPUs with that in their name, or `all`, whatever their version

Environment: BENCH_ROUNDS (5), BENCH_MINUTES (as --minutes; no limit), BENCH_SECONDS of a run (each piece has its own), BENCH_ARMS
(comma-separated, all), BENCH_CASES (a regular expression on the names of cases), BENCH_OUT (build/bench), BUILD (build).
BENCH_PRELOAD_NAME=path measures another preload library as well, with BENCH_ENV_NAME='K=V ...' for each tenant, where {weight} and {percent}
stand for its weight and share. BENCH_SIMULATED=1: without a GPU, run on the simulated one, shortened, to try the script out; its times
mean nothing.

Builds nothing: `make all tests` first, or `make bench`. Arms that cannot be measured here are left out and named.
"""
import argparse
import contextlib
import glob
import math
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
from benchmark import pieces, report  # noqa: E402
from benchmark.core import Bench  # noqa: E402
from benchmark.machine import BenchError, Machine, OnPaper  # noqa: E402
from benchmark.rounds import Rounds  # noqa: E402

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The last of a call's minutes are for the report.
KEPT_BACK = 0.03


def positive(name, text, default, kind):
    try:
        value = kind(text) if text else default
    except ValueError:
        value = -1
    if value is not None and not value > 0:
        raise BenchError(f"{name}={text}: expected a number above 0")
    return value


def from_environment(name, default, kind):
    return positive(name, os.environ.get(name, ""), default, kind)


def measure(options, begun):
    unknown = [name for name in options.pieces if name not in pieces.PIECES]
    if unknown:
        raise BenchError(f"there is no piece {', '.join(unknown)}: {', '.join(pieces.PIECES)}")
    chosen = {name: pieces.PIECES[name] for name in options.pieces or pieces.PIECES}
    simulated = os.environ.get("BENCH_SIMULATED") == "1"
    count = from_environment("BENCH_ROUNDS", 1 if simulated else 5, int)
    seconds = from_environment("BENCH_SECONDS", 1.0 if simulated else None, float)
    minutes = positive("--minutes", options.minutes, from_environment("BENCH_MINUTES", math.inf, float), float)
    on_paper = options.plan and not simulated and not glob.glob("/dev/nvidia[0-9]*")
    machine = OnPaper() if on_paper else Machine(os.environ.get("BUILD") or "build", simulated)
    with contextlib.closing(machine):
        bench = Bench(machine, options.out, seconds, os.environ.get("BENCH_ARMS", ""), os.environ.get("BENCH_CASES", ""))
        rounds = Rounds(bench, chosen, count, options.short)
        if not on_paper:
            print(machine.describe(), flush=True)
            for other in rounds.others:
                print(f"bench: what {options.out} has of another version, GPU or BENCH_SECONDS does not count: {other}", file=sys.stderr)
        if options.plan:
            rounds.plan()
            return 0
        machine.until = begun + minutes * 60 * (1 - KEPT_BACK)
        rounds.measure(machine.until)
        rounds.say_missing()
        return 1 if bench.failures else 0


def stop(number, _frame):
    for each in STOPS: # nothing interrupts the cleaning up
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def arguments_of(arguments):
    """Options, and whether a report is asked for."""
    out = os.environ.get("BENCH_OUT") or os.path.join(os.environ.get("BUILD") or "build", "bench")
    reports = "report" in arguments
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = lambda message: parser.exit(2, f"{__doc__.strip()}\n\nbench: {message}\n")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--out", default=out)
    if reports:
        parser.add_argument("report")
        parser.add_argument("--into", default="")
        parser.add_argument("--of", default="")
        parser.add_argument("folders", nargs="*")
    else:
        parser.add_argument("--minutes", default="")
        parser.add_argument("--short", action="store_true")
        parser.add_argument("--plan", action="store_true")
        parser.add_argument("pieces", nargs="*")
    return parser.parse_intermixed_args(arguments), reports


def main(arguments):
    begun = time.monotonic()
    # An exception, so that tenants and MPS daemons end with the benchmark.
    for number in STOPS:
        signal.signal(number, stop)
    options, reports = arguments_of(arguments)
    if options.help:
        print(__doc__.strip())
        return 0
    if reports:
        return report.write(options.folders or [options.out], options.into, options.of)
    status = measure(options, begun)
    if not options.plan:
        report.write([options.out])
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
