# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two PyTorch trainings side by side."""
import os
import subprocess
import sys

from .core import Case, Need, Piece, Table
from .machine import ROOT, BenchError, NotHere
from .sharing import ALL_ARMS, others
from .tenants import Tenant

WEIGHTS = (100, 300)
START_SECONDS = 10 # until both have imported PyTorch and take steps, at most
IMPORT_SECONDS = 4 # as it usually is
TRAIN_SECONDS, ALONE_SECONDS = 5, 3


def progress(text):
    """(time, steps) of every line of progress."""
    rows = [line.split() for line in text.splitlines() if line.startswith("steps ")]
    return [(float(row[2]), int(row[1])) for row in rows]


class TooShort(BenchError):
    """Says that too few lines of progress lie in the time to be measured."""


def rate(rows, start, stop):
    """Steps per second between two moments, both between lines of progress."""
    inside = [row for row in rows if start <= row[0] <= stop]
    if len(inside) < 3:
        raise TooShort(f"a training made too little progress to be measured: {len(inside)} of {len(rows)} lines, in {stop - start:.1f} s")
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def has_torch(bench):
    """PyTorch brings its own CUDA runtime, so the toolkit's is not put in its way."""
    done = subprocess.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], check=False, capture_output=True,
                          env=dict(os.environ))
    return done.returncode == 0


def trainer(options, weight, seconds):
    command = (sys.executable, "-u", os.path.join(ROOT, "tests/programs/train.py"), "--seconds", str(seconds)) + options
    return Tenant(command=command, weight=weight, env={"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")})


def training_alone(options):
    return Need(" ".join(("training alone",) + options), IMPORT_SECONDS + ALONE_SECONDS)


def measure_training(options):
    def measure(bench, arm):
        if bench.machine.simulated or not bench.once_a_call("torch", lambda: has_torch(bench)):
            raise NotHere("there is no PyTorch that sees a GPU")
        seconds = bench.seconds(TRAIN_SECONDS)

        def alone():
            rows = progress(bench.run("native", [trainer(options, 100, min(seconds, ALONE_SECONDS))], seconds + START_SECONDS)[0].text)
            return rate(rows, rows[0][0] + 1, rows[-1][0])

        def together():
            results = bench.run(arm, [trainer(options, weight, seconds) for weight in WEIGHTS], seconds + START_SECONDS)
            rows = [progress(result.text) for result in results]
            if not all(rows):
                raise BenchError("a training made no progress")
            start, stop = max(row[0][0] for row in rows) + 1, min(row[-1][0] for row in rows)
            return [rate(row, start, stop) / exclusive for row in rows]

        exclusive = bench.once_a_round(training_alone(options).key, alone)
        try:
            speeds = together()
        except TooShort as error:
            # Until they take steps they need 8 to 11 s, and now and then one of them needs 2 s more than the other.
            print(f"{arm}: {error}: once more", flush=True)
            speeds = together()
        share = 100 * speeds[0] / sum(speeds)
        return {"sum_percent": 100 * sum(speeds), "light_percent": share, "error_points": abs(share - 25), "exclusive_per_s": exclusive}
    return measure


def training_cases(bench):
    arms = ALL_ARMS + others(bench)
    return [Case(name, arms, measure_training(options), TRAIN_SECONDS, len(WEIGHTS), IMPORT_SECONDS,
                 needs=lambda _arm, options=options: (training_alone(options),), short=("native", "mps", "shim"))
            for name, options in (("both graphed", ("--graph",)), ("both eager", ()))]


PYTORCH = Piece(
    "Two PyTorch trainings that read the loss after each step, weights 1:3",
    "sum of speeds ahead of time slicing, share error at most 2 points",
    training_cases,
    [Table({"sum_percent": "sum of speeds, % of one alone", "light_percent": "share of the lighter (due 25), %",
            "error_points": "error, points"})],
    "Speeds are steps per second while both train, in percent of one training that has the GPU to itself.")
