# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every piece uses: kernels of a length, figures of a tenant that has the GPU to itself, rounds in turns, and the records.

A record is one run: a line of JSON in OUT/PIECE.jsonl. Calls only append, so rounds can be made in several calls and on several days; the
stamp of a record leads to the line of OUT/stamps.jsonl that says on what it was measured.
"""
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import typing

from . import tenants, traces
from .machine import BenchError, NotHere

# An H100 settles within a few turns after the tenants have begun.
SETTLE_SECONDS = 0.5


@dataclasses.dataclass
class Case:
    """One row of a table: `measure(bench, arm)` returns metrics by name, and under "series" what plots are drawn from."""

    name: str
    arms: typing.Sequence[str]
    measure: typing.Callable


@dataclasses.dataclass
class Table:
    """`metrics` maps the name of a metric to its heading. One metric: arms side by side. Several: a row for each case and arm."""

    metrics: dict
    digits: int = 1


@dataclasses.dataclass
class Piece:
    title: str
    aim: str
    cases: typing.Callable      # of a Bench, to a list of Case
    tables: list
    note: str = ""
    labels: dict = dataclasses.field(default_factory=dict)  # of arms, where the usual ones do not fit


class Bench:
    def __init__(self, machine, out, rounds, seconds=None, arms="", cases=""):
        self.machine, self.out, self.rounds, self.given_seconds = machine, out, rounds, seconds
        self.arm_names, self.case_pattern = [name for name in arms.split(",") if name], re.compile(cases)
        unknown = set(self.arm_names) - set(machine.arms) - {"exclusive"}
        if unknown:
            raise BenchError(f"BENCH_ARMS={arms}: there is no arm {', '.join(sorted(unknown))}; there are {', '.join(machine.arms)}")
        os.makedirs(out, exist_ok=True)
        self.round, self.round_cache, self.left_out, self.failures = 0, {}, set(), 0
        self.stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.getpid()}"
        self.append("stamps", {"stamp": self.stamp, "machine": machine.describe()})
        self.calibration = None

    def append(self, name, record):
        with open(os.path.join(self.out, name + ".jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    # --- kernels and tenants ------------------------------------------------------------------------------------------------------

    def work_for(self, kernel_us):
        """Work of a kernel that lasts so long on an idle GPU. Lengths are a straight line over the work, measured at two points."""
        if not self.calibration:
            small, large = 2000, 40000
            lengths = []
            for work in (small, large):
                tenant = tenants.Tenant(work=work, expected_ns=10000)
                lengths.append(self.run("native", [tenant], 0.4)[0].trace.duration_ns())
            slope = max(1e-3, (lengths[1] - lengths[0]) / (large - small))
            self.calibration = (lengths[0] - slope * small, slope)
        base_ns, slope_ns = self.calibration
        return max(1, round((kernel_us * 1000 - base_ns) / slope_ns))

    def tenant(self, kernel_us, **more):
        return tenants.Tenant(work=self.work_for(kernel_us), expected_ns=int(kernel_us * 1000), **more)

    def seconds(self, usual):
        return self.given_seconds or usual

    def settle_ns(self, seconds):
        return int(min(SETTLE_SECONDS, seconds / 8) * 1e9)

    def run(self, arm, members, seconds, observe=None):
        return tenants.run(self.machine, self.machine.arms[arm], members, seconds, observe)

    def once_a_round(self, key, make):
        if key not in self.round_cache:
            self.round_cache[key] = make()
        return self.round_cache[key]

    def exclusive(self, kernel_us, options=()):
        """The one result of a tenant that has the GPU to itself, without the library, in this round."""
        return self.once_a_round(("exclusive", kernel_us, options), lambda: self.run(
            "native", [self.tenant(kernel_us, options=options)], min(3, self.seconds(3)))[0])

    def period_ns(self, kernel_us):
        return self.exclusive(kernel_us).trace.period_ns()

    def side_by_side(self, arm, members, seconds, observe=None):
        """Runs tenants and returns their traces and the window in which all were at work."""
        results = self.run(arm, members, seconds, observe)
        found = [result.trace for result in results]
        settle = self.settle_ns(seconds)
        return results, found, traces.common_window(found, settle, settle // 4)

    # --- rounds -------------------------------------------------------------------------------------------------------------------

    def is_mps(self, arm):
        return arm in self.machine.arms and self.machine.arms[arm].mps

    def in_turns(self, arms, number, place):
        """Who begins changes from round to round. Those under MPS stay together, and from case to case the order of the two kinds is
        reversed, so that a daemon serves two cases."""
        kinds = []
        for mps in (False, True):
            kind = [arm for arm in arms if self.is_mps(arm) == mps]
            turn = number % len(kind) if kind else 0
            kinds.append(kind[turn:] + kind[:turn])
        return kinds[1] + kinds[0] if (number + place) % 2 else kinds[0] + kinds[1]

    def measure(self, name, piece):
        cases = [case for case in piece.cases(self) if self.case_pattern.search(case.name)]
        for number in range(self.rounds):
            self.round, self.round_cache = number, {}
            for place, case in enumerate(cases):
                for arm in self.in_turns(case.arms, number, place):
                    self.measure_one(name, case, arm)

    def leave_out(self, what, reason):
        """Says so once, however many cases and rounds it concerns."""
        if (what, reason) not in self.left_out:
            self.left_out.add((what, reason))
            print(f"bench: {what} is left out: {reason}", file=sys.stderr, flush=True)

    def measure_one(self, name, case, arm):
        if self.arm_names and arm not in self.arm_names:
            return
        reason = self.machine.lacks(self.machine.arms[arm]) if arm in self.machine.arms else ""
        if reason:
            self.leave_out(arm, reason)
            return
        begun = time.monotonic()
        record = {"stamp": self.stamp, "piece": name, "case": case.name, "arm": arm}
        try:
            if not self.is_mps(arm):
                self.machine.stop_mps()
            metrics = case.measure(self, arm)
            record["series"] = metrics.pop("series", None)
            record["metrics"] = metrics
            said = " ".join(f"{key}={value:.4g}" for key, value in metrics.items())
        except NotHere as error:
            self.leave_out(f"{name} ({arm})", str(error))
            return
        except (BenchError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.failures += 1
            record["failed"] = str(error)
            said = f"failed: {error}"
        self.append(name, record)
        print(f"{name} | {case.name} | {arm} | {said} | {time.monotonic() - begun:.1f} s", flush=True)
