# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which rounds are missing, what they will take, and which of them fit into a call.

What is measured or not is a round of a case: all its arms by turns, with what they are compared to. A call makes the first round of all
cases, then the second, and so on, and none that it does not expect to finish: how long one takes is known from those that are there.
"""
import dataclasses
import glob
import json
import os
import sys
import time

from . import core
from .machine import TimeIsUp

# Until a program has its context and again until it is gone; contexts of several are made one after the other.
START_SECONDS, EACH_SECONDS = 0.5, 0.1
MPS_SECONDS = 1     # half of the start and end of a daemon and its server: it serves two cases
CALL_SECONDS = 4    # calibration, and the report
UNSURE = 1.2        # of what was never measured
LAST = 3            # records that are believed


@dataclasses.dataclass(frozen=True)
class Round:
    number: int
    name: str           # of the piece
    place: int          # of the case in the piece
    case: core.Case
    arms: tuple
    of: int


def read(folders, name):
    """Records of a piece, or stamps. A line that was cut off, as by a full disk, is none."""
    records = []
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, name + ".jsonl"))):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    try:
                        records.append(json.loads(line))
                    except ValueError:
                        print(f"bench: {path} has a line that is no record", file=sys.stderr)
    return records


def said_s(bench, each, arm):
    """What an arm takes by what the case says, besides what it needs: seconds that a run lasts, and others."""
    if any(need.whole for need in each.case.needs(arm)):
        return 0, 0
    daemon = MPS_SECONDS / sum(map(bench.is_mps, each.arms)) if bench.is_mps(arm) else 0
    seconds = bench.seconds(each.case.seconds) if each.case.seconds else 0
    return seconds, START_SECONDS + EACH_SECONDS * each.case.programs + each.case.more + daemon


class Durations:
    """How long things take: as long as they took, or what the cases say. A run lasts what it is told to; the rest is in proportion to how
    right they were."""

    def __init__(self, bench, records):
        self.bench, self.took, self.besides = bench, {}, [0, 0]
        for record in records:
            self.add(record)

    def add(self, record):
        if "metrics" in record: # what failed says nothing of what it takes
            self.took.setdefault((record["piece"], record["case"], record["arm"]), []).append(record["took_s"])
            seconds, besides = record["said_s"]
            self.besides[0] += max(0, record["took_s"] - seconds)
            self.besides[1] += besides
            for key, seconds in record["made"].items():
                self.took.setdefault(key, []).append(seconds)

    def expected(self, key, seconds, besides):
        if key in self.took:
            return max(self.took[key][-LAST:])
        return seconds + besides * (self.besides[0] / self.besides[1] if self.besides[1] else 1)

    def of(self, each, kept):
        """Of a round, where `kept` says what is there of what it needs; adds what it makes."""
        total = 0
        for arm in each.arms:
            total += self.expected((each.name, each.case.name, arm), *said_s(self.bench, each, arm))
            for need in each.case.needs(arm):
                if need.key not in kept:
                    kept.add(need.key)
                    total += self.expected(need.key, min(need.seconds, self.bench.seconds(need.seconds)),
                                           START_SECONDS + EACH_SECONDS * need.programs)
        return total

    def of_all(self, rounds):
        """Of rounds one after the other, as (round, seconds)."""
        now, number, kept, found = 0, -1, {}, []
        for each in rounds:
            kept = {key: at for key, at in kept.items() if each.number == number and now - at < core.KEPT_SECONDS}
            keys = set(kept)
            seconds = self.of(each, keys)
            now, number = now + seconds, each.number
            kept.update({key: now for key in keys - set(kept)})
            found.append((each, seconds))
        return found


class Rounds:
    """What is missing of `count` rounds of pieces in the folder of a Bench, for its version and GPU."""

    def __init__(self, bench, pieces, count, short=False):
        self.bench, self.missing, self.total = bench, [], 0
        stamps = {stamp["stamp"]: stamp for stamp in read([bench.out], "stamps")}
        own = {stamp for stamp, said in stamps.items() if all(said.get(key) == value for key, value in bench.identity().items())}
        # Durations of another version are as good; those of a simulated GPU, or of runs of another length, are not.
        alike = {stamp for stamp, said in stamps.items() if said.get("seconds") == bench.given_seconds
                 and said.get("gpu", "").startswith("simulated") == bench.machine.simulated}
        self.others, timed = set(), []
        for name, piece in pieces.items():
            records = read([bench.out], name)
            timed += [record for record in records if record["stamp"] in alike]
            self.others |= {record["stamp"] for record in records} - own
            self.add(name, piece, [record for record in records if record["stamp"] in own], count, short)
        self.others = sorted({stamps[stamp]["machine"] if stamp in stamps else stamp for stamp in self.others})
        self.missing.sort(key=lambda each: each.number)
        self.durations = Durations(bench, timed)

    def add(self, name, piece, records, count, short):
        there, measured = {}, set()
        for record in records:
            key = (record["case"], record["stamp"], record["round"])
            there.setdefault(key, set()).add(record["arm"])
            if "metrics" in record:
                measured.add(key)
        for place, case in enumerate(self.bench.cases(piece)):
            arms = tuple(self.bench.arms(case, short))
            if short and not piece.short or not arms:
                continue
            of = min(count, case.rounds or count)
            # An arm that fails beside others is a result; where all failed, something else was wrong.
            have = sum(1 for key in measured if key[0] == case.name and there[key].issuperset(arms))
            self.missing += [Round(number, name, place, case, arms, of) for number in range(have, of)]
            self.total += of

    def measure(self, until):
        """Measures what fits, in order; what does not is passed over for what does. `until` is the end on time.monotonic()."""
        while self.missing:
            now = time.monotonic()
            each = next((each for each in self.missing if now + self.expected(each, now) <= until), None)
            if not each:
                return
            try:
                records = self.bench.measure(each, lambda arm, each=each: said_s(self.bench, each, arm))
            except TimeIsUp:
                print(f"bench: a round of {each.name}, {each.case.name}, took longer than expected and is not kept", flush=True)
                return
            # A case of which there is nothing to measure here has no further rounds.
            self.missing = [other for other in self.missing if other is not each and (records or other.case is not each.case)]
            for record in records:
                self.durations.add(record)

    def expected(self, each, now):
        sure = all((each.name, each.case.name, arm) in self.durations.took for arm in each.arms)
        return self.durations.of(each, self.bench.kept_for(each.number, now)) * (1 if sure else UNSURE)

    def say_missing(self):
        """On one line for each piece, and in all."""
        if not self.missing:
            print(f"bench: all {self.total} rounds are there" if self.total else "bench: there is nothing to measure")
            return
        seconds = {}
        for each, took in self.durations.of_all(self.missing):
            seconds.setdefault(each.name, []).append(took)
        for name, took in seconds.items():
            print(f"bench: missing: {name}, rounds: {len(took)}, minutes: {sum(took) / 60:.1f}")
        print(f"bench: {len(self.missing)} of {self.total} rounds are missing, about {sum(map(sum, seconds.values())) / 60:.1f} minutes; "
              "the same call again goes on")

    def plan(self):
        """What is missing, as a table."""
        rows = {}
        for each, seconds in self.durations.of_all(self.missing):
            cases = rows.setdefault(each.name, {})
            cases.setdefault(each.case.name, [len(each.arms), []])[1].append(seconds)
        print(f"{'piece':<10}{'cases':>6}{'runs a round':>14}{'rounds':>8}{'seconds a round':>17}{'minutes':>9}")
        total = CALL_SECONDS
        for name, cases in rows.items():
            runs = sum(arms for arms, _ in cases.values())
            took = [seconds for _, seconds in cases.values()]
            least, most = min(map(len, took)), max(map(len, took))
            count = str(most) if least == most else f"{least}-{most}"
            seconds = sum(map(sum, took))
            total += seconds
            print(f"{name:<10}{len(cases):>6}{runs:>14}{count:>8}{sum(sum(each) / len(each) for each in took):>17.1f}{seconds / 60:>9.1f}")
        print(f"in all {len(self.missing)} rounds, {total / 60:.1f} minutes, and {CALL_SECONDS} seconds more for every further call")
