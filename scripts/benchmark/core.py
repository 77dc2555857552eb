# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every piece uses: kernels of a length, figures of a tenant that has the GPU to itself, rounds in turns, and the records.

A record is one run: a line of JSON in OUT/PIECE.jsonl, written with those of its whole round, so that there are no halves of rounds. Calls
only append, so rounds can be made in several calls and on several days; the stamp of a record leads to the line of OUT/stamps.jsonl that says
on what it was measured.
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
ALONE_SECONDS = 2
# What tenants are compared to is measured by one case of a round and used by the next ones, until the GPU may have become another: warmer.
KEPT_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Need:
    """A run whose result several cases and arms of a round use."""

    key: str
    seconds: float = ALONE_SECONDS
    programs: int = 1
    whole: bool = False     # the arm has no run of its own besides


def alone(kernel_us, options=()):
    """A tenant that has the GPU to itself, without the library."""
    return Need(" ".join((f"{kernel_us} µs alone",) + tuple(options)))


@dataclasses.dataclass
class Case:
    """One row of a table: `measure(bench, arm)` returns metrics by name, and under "series" what plots are drawn from. The rest says what
    that takes, for plans."""

    name: str
    arms: typing.Sequence[str]
    measure: typing.Callable
    seconds: float = 0              # of a run, whose place BENCH_SECONDS takes
    programs: int = 1               # at a time
    more: float = 0                 # seconds that a run takes besides
    needs: typing.Callable = lambda _arm: ()
    rounds: int = 0                 # at most, if that is fewer than are asked for
    short: typing.Sequence = None   # arms of the short set, if not all


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
    short: bool = True          # belongs to the short set


class Bench:
    def __init__(self, machine, out, seconds=None, arms="", cases=""):
        self.machine, self.out, self.given_seconds = machine, out, seconds
        self.arm_names, self.case_pattern = [name for name in arms.split(",") if name], re.compile(cases)
        unknown = set(self.arm_names) - set(machine.arms) - {"exclusive"}
        if unknown:
            raise BenchError(f"BENCH_ARMS={arms}: there is no arm {', '.join(sorted(unknown))}; there are {', '.join(machine.arms)}")
        self.round, self.left_out, self.failures = 0, set(), 0
        self.kept = {}      # by key: a result, and when it was made
        self.made = {}      # by key: how long it took
        self.once = {}
        self.stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.getpid()}"

    def append(self, name, records):
        """By one call, which nothing interrupts: a round is there or not."""
        os.makedirs(self.out, exist_ok=True)
        file = os.open(os.path.join(self.out, name + ".jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, "".join(json.dumps(record) + "\n" for record in records).encode())
        finally:
            os.close(file)

    def identity(self):
        """Records in which one of these differs are never put together."""
        return {"gpu": self.machine.gpu, "version": self.machine.version, "seconds": self.given_seconds}

    # --- kernels and tenants ------------------------------------------------------------------------------------------------------

    def work_for(self, kernel_us):
        """Work of a kernel that lasts so long on an idle GPU. Lengths are a straight line over the work, measured at two points."""
        def calibrate():
            small, large = 2000, 40000
            lengths = []
            for work in (small, large):
                tenant = tenants.Tenant(work=work, expected_ns=10000)
                lengths.append(self.run("native", [tenant], 0.4)[0].trace.duration_ns())
            slope = max(1e-3, (lengths[1] - lengths[0]) / (large - small))
            return lengths[0] - slope * small, slope

        base_ns, slope_ns = self.once_a_call("calibration", calibrate)
        return max(1, round((kernel_us * 1000 - base_ns) / slope_ns))

    def tenant(self, kernel_us, **more):
        more.setdefault("expected_ns", int(kernel_us * 1000))
        return tenants.Tenant(work=self.work_for(kernel_us), **more)

    def seconds(self, usual):
        return self.given_seconds or usual

    def settle_ns(self, seconds):
        return int(min(SETTLE_SECONDS, seconds / 8) * 1e9)

    def run(self, arm, members, seconds, observe=None):
        return tenants.run(self.machine, self.machine.arms[arm], members, seconds, observe)

    def timed(self, key, make):
        """What is made, with a note of how long that took, less what has a note of its own."""
        begun, noted = time.monotonic(), sum(self.made.values())
        result = make()
        self.made[key] = time.monotonic() - begun - (sum(self.made.values()) - noted)
        return result

    def once_a_call(self, key, make):
        if key not in self.once:
            self.once[key] = self.timed(key, make)
        return self.once[key]

    def once_a_round(self, key, make):
        if key not in self.kept:
            self.kept[key] = self.timed(key, make), time.monotonic()
        return self.kept[key][0]

    def kept_for(self, number, now):
        """Keys of what is of this round and not too old."""
        return {key for key, (_, at) in self.kept.items() if number == self.round and now - at < KEPT_SECONDS}

    def exclusive(self, kernel_us, options=(), **more):
        """The one result of a tenant that has the GPU to itself, without the library, in this round."""
        need = alone(kernel_us, options)
        return self.once_a_round(need.key, lambda: self.run(
            "native", [self.tenant(kernel_us, options=options, **more)], min(need.seconds, self.seconds(need.seconds)))[0])

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

    def cases(self, piece):
        return [case for case in piece.cases(self) if self.case_pattern.search(case.name)]

    def arms(self, case, short=False):
        """Those of a case that were asked for and can be measured here."""
        own = {arm.key for arm in self.machine.own_arms("")} | {"exclusive"}
        found = []
        for arm in case.arms:
            if self.arm_names and arm not in self.arm_names or short and case.short is not None and arm in own and arm not in case.short:
                continue
            reason = self.machine.lacks(self.machine.arms[arm]) if arm in self.machine.arms else ""
            if reason:
                self.leave_out(arm, reason)
            else:
                found.append(arm)
        return found

    def in_turns(self, arms, number, place):
        """Who begins changes from round to round. Those under MPS stay together, and from case to case the order of the two kinds is
        reversed, so that a daemon serves two cases."""
        kinds = []
        for mps in (False, True):
            kind = [arm for arm in arms if self.is_mps(arm) == mps]
            turn = number % len(kind) if kind else 0
            kinds.append(kind[turn:] + kind[:turn])
        return kinds[1] + kinds[0] if (number + place) % 2 else kinds[0] + kinds[1]

    def measure(self, each, said):
        """One rounds.Round. Its records; none where this machine has nothing of it to measure. `said(arm)`: see rounds.said_s."""
        kept = self.kept_for(each.number, time.monotonic())
        self.kept, self.round = {key: value for key, value in self.kept.items() if key in kept}, each.number
        records = [self.measure_one(each.name, each.case, arm, said(arm)) | {"round": each.number, "of": each.of}
                   for arm in self.in_turns(each.arms, each.number, each.place)]
        if all("left_out" in record for record in records):
            return []
        self.once_a_call("stamp", lambda: self.append("stamps", [
            {"stamp": self.stamp, "machine": self.machine.describe()} | self.identity()]))
        self.append(each.name, records)
        return records

    def leave_out(self, what, reason):
        """Says so once, however many cases and rounds it concerns."""
        if (what, reason) not in self.left_out:
            self.left_out.add((what, reason))
            print(f"bench: {what} is left out: {reason}", file=sys.stderr, flush=True)

    def measure_one(self, name, case, arm, said_s):
        begun, self.made = time.monotonic(), {}
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
            return record | {"left_out": str(error)}
        except (BenchError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.failures += 1
            record["failed"] = str(error)
            said = f"failed: {error}"
        took_s = time.monotonic() - begun
        print(f"{name} | {case.name} | {arm} | {said} | {took_s:.1f} s", flush=True)
        made = {key: round(seconds, 3) for key, seconds in self.made.items()}
        return record | {"took_s": round(took_s - sum(made.values()), 3), "said_s": said_s, "made": made}
