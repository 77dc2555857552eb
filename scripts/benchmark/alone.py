# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pieces about a program that nobody else competes with: launches, the gate's instructions, start and memory."""
import os
import re
import shutil
import subprocess
import time

from . import tenants
from .core import Case, Piece, Table
from .machine import BenchError, NotHere, TimeIsUp
from .sharing import others
from .traces import median

PAIRS = 10


def library_arms(bench):
    return ("shim",) + others(bench)


def command_env(bench, arm):
    return tenants.environment(bench.machine, bench.machine.arms[arm], tenants.Tenant(), 100)


def pairs(bench, arm, count, measure_one):
    """Measures the program without and with a library by turns: medians of both, and of the differences pair by pair."""
    without, having = [], []
    for number in range(count):
        order = (("native", without), (arm, having))
        for side, values in order if number % 2 else reversed(order):
            values.append(measure_one(side))
    added = sorted(b - a for a, b in zip(without, having))
    return {"native": median(without), "with": median(having), "added": median(added), "added_q1": added[len(added) // 4],
            "added_q3": added[len(added) * 3 // 4]}


def pair_table(unit, digits):
    return Table({"native": f"without, {unit}", "with": f"with the library, {unit}", "added": f"added, {unit}",
                  "added_q1": "first quartile of the pairs", "added_q3": "third"}, digits)


def checked(bench, command, env):
    """Output of a program that has to succeed."""
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=bench.machine.seconds_left())
    except subprocess.TimeoutExpired:
        raise TimeIsUp from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-200:] or "it said nothing"
        raise BenchError(f"{os.path.basename(command[0])} exited with {done.returncode}: {said}")
    return done.stdout


# --- launches ---------------------------------------------------------------------------------------------------------------------

BATCH = 256 # launches that fit into the driver's queue


def measure_launch(bench, arm):
    batches = 60 if bench.machine.simulated else 782 # 200,192 launches a side: more than a million in five rounds
    command = [bench.machine.path("kernels/launch_pair"), "--iterations", str(batches), "--size", str(BATCH)]
    values = tenants.result_line(checked(bench, command, command_env(bench, arm)))
    if (values["around"] == "yes") != (arm != "native"):
        raise BenchError("the launches did not go through the library")
    metrics = {key: float(value) for key, value in values.items() if key.endswith("_ns")}
    return metrics | {"added_ns": metrics["driver_added_ns"] + metrics["runtime_added_ns"], "launches": batches * BATCH}


LAUNCH = Piece(
    "One launch, nobody else waiting",
    "at most 25 ns added",
    lambda bench: [Case("empty kernels", ("native",) + library_arms(bench), measure_launch, more=3)],
    [Table({"driver_own_ns": "driver API without, ns", "driver_added_ns": "added", "runtime_own_ns": "runtime API without, ns",
            "runtime_added_ns": "added by the runtime layer", "added_ns": "added in all", "launches": "launches a round"}, 1)],
    f"Launches through the library and around it, by turns in one process, {BATCH} at a time; added is the median of the differences. In "
    "the first row there is no library, so both are the same: it is the error of the measurement.", {"native": "no library"})


# --- instructions -----------------------------------------------------------------------------------------------------------------

def instructions_of(path, library):
    """Instructions that callgrind counted in a library itself, by source file and function."""
    counts, within, source, function, skip = {}, False, "", "", False
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("ob="):
                within = line.rstrip().endswith(library)
            elif line.startswith("fl="):
                source = line[3:].rstrip()
            elif line.startswith("fn="):
                function = line[3:].rstrip()
            elif line.startswith("calls="):
                skip = True # the next line is the callee's
            elif line[:1].isdigit() or line[:1] in "+-*":
                if within and not skip:
                    key = (os.path.basename(source), function)
                    counts[key] = counts.get(key, 0) + int(line.split()[1])
                skip = False
    return counts


def measure_gate(bench, arm):
    """From two runs that differ in nothing but their launches; on the simulated GPU, whose driver a counting tool can watch."""
    if not shutil.which("valgrind"):
        raise NotHere("valgrind is not installed")
    counts, few, many = [], 20, 120
    for batches in (few, many):
        env = command_env(bench, arm)
        env.update(LD_LIBRARY_PATH=bench.machine.path("simgpu"), SIMGPU_STATE=os.path.join(bench.machine.work, "simgpu-gate"),
                   VGPU_POOL=os.path.join(bench.machine.work, "pool-gate"))
        output = os.path.join(bench.machine.work, "callgrind.out")
        checked(bench, ["valgrind", "--tool=callgrind", "--compress-strings=no", f"--callgrind-out-file={output}",
                 bench.machine.path("kernels/launch"), "--iterations", str(batches), "--size", "100"], env)
        counts.append(instructions_of(output, os.path.basename(bench.machine.shim)))
    # What differs by less than an instruction in ten launches is not the gate's.
    each = {key: (count - counts[0].get(key, 0)) / (100 * (many - few)) for key, count in counts[1].items()}
    each = {key: count for key, count in each.items() if count > 0.1}
    runtime = sum(count for (source, _), count in each.items() if source.startswith("runtime"))
    metrics = {"instructions": sum(each.values()), "driver_instructions": sum(each.values()) - runtime}
    return metrics | {f"{source}:{function}": count for (source, function), count in each.items()}


GATE = Piece(
    "Instructions of the library per launch, nobody else waiting",
    "at most 80",
    lambda bench: [Case("launches by the runtime", ("shim",), measure_gate, more=15, rounds=1)],
    [Table({"driver_instructions": "in the driver layer", "instructions": "with the runtime layer"}, 0)],
    "Counted by callgrind on the simulated GPU; the instructions are the same on a real one, and in every round.", short=False)


# --- start and memory -------------------------------------------------------------------------------------------------------------

def measure_start(bench, arm):
    command = [bench.machine.path("kernels/driver_spin"), "--iterations", "1", "--kernel-us", "1"]

    def elapsed_ms(side):
        env = command_env(bench, side)
        begun = time.monotonic()
        checked(bench, command, env)
        return (time.monotonic() - begun) * 1e3

    bench.once_a_call(f"first in the pool, {arm}", lambda: elapsed_ms(arm)) # measures the size of a context
    return pairs(bench, arm, PAIRS, elapsed_ms)


START = Piece(
    "From start to end of a program with one kernel",
    "at most 2 ms added",
    lambda bench: [Case("driver API", library_arms(bench), measure_start, more=2 * PAIRS * 0.35)],
    [pair_table("ms", 2)],
    f"A round is {PAIRS} pairs, with and without by turns. The first program in a pool, which measures the size of a context, is left out.",
    short=False)


MEMORY_PAIRS = 2


def measure_memory(bench, arm):
    def resident_mib(side):
        process = subprocess.Popen([bench.machine.path("kernels/driver_spin"), "--seconds", "60", "--kernel-us", "1000", "--progress"],
                                   env=command_env(bench, side), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        with process:
            try:
                # Its first line of progress comes after a second of work.
                for line in process.stderr:
                    if line.startswith("progress"):
                        with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
                            return int(re.search(r"VmRSS:\s*(\d+)", status.read()).group(1)) / 1024
                raise BenchError("driver_spin ended before it made progress")
            finally:
                process.kill()

    return pairs(bench, arm, MEMORY_PAIRS, resident_mib)


MEMORY = Piece(
    "Resident memory of a program while it runs",
    "at most 4 MiB added",
    lambda bench: [Case("driver API", library_arms(bench), measure_memory, more=2 * MEMORY_PAIRS * 1.4)],
    [pair_table("MiB", 2)], short=False)
