# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the benchmark computes, on figures that can be checked by hand."""
import contextlib
import io
import os
import sys
import tempfile
import time
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts"))
from benchmark import accounting, alone, pieces, report, rounds, sharing, statistics, traces, training  # noqa: E402
from benchmark.core import Bench, Case, Need, Piece, Table  # noqa: E402
from benchmark.machine import BenchError, Machine, OnPaper, TimeIsUp  # noqa: E402

Trace = traces.Trace


class Traces(unittest.TestCase):
    def test_a_kernel_counts_by_its_part_in_the_window(self):
        trace = Trace([0, 100, 200], [100, 200, 300])
        self.assertEqual(trace.kernels(0, 300), 3)
        self.assertEqual(trace.kernels(50, 250), 2)
        self.assertEqual(trace.kernels(120, 170), 0.5)
        self.assertEqual(trace.kernels(300, 400), 0)

    def test_the_period_is_from_begin_to_begin(self):
        self.assertEqual(Trace([0, 150, 300], [100, 250, 400]).period_ns(), 150)

    def test_the_window_is_where_all_are_at_work(self):
        first, second = Trace([0, 900], [10, 1000]), Trace([100, 600], [110, 700])
        self.assertEqual(traces.common_window([first, second], 20, 30), (120, 670))
        with self.assertRaises(ValueError):
            traces.common_window([first, Trace([2000], [2100])], 0, 0)

    def test_shares_are_by_work_and_not_by_kernels(self):
        short, long = Trace(list(range(0, 500, 10)), list(range(10, 510, 10))), Trace([500], [1000])
        self.assertEqual(traces.shares_in([short, long], [10, 500], 0, 1000), [0.5, 0.5])

    def test_errors_are_in_points_and_fairness_in_relation_to_weights(self):
        self.assertAlmostEqual(traces.share_error([0.32, 0.68], [0.3, 0.7]), 2)
        self.assertAlmostEqual(traces.jain([0.3, 0.7], [0.3, 0.7]), 1)
        self.assertAlmostEqual(traces.jain([1, 0], [0.5, 0.5]), 0.5)

    def test_windows_slide_and_a_short_run_is_one_window(self):
        self.assertEqual(traces.windows(0, 30, 20, 5), [(0, 20), (5, 25), (10, 30)])
        self.assertEqual(traces.windows(0, 10, 20, 5), [(0, 10)])

    def test_turns_and_the_gaps_between_them(self):
        turns = traces.Turns([Trace([0, 10, 100], [10, 20, 110]), Trace([50, 60], [60, 70])], 0, 200)
        self.assertEqual(turns.lengths_ns, [[20], [20]]) # the last turn has no end
        self.assertEqual(turns.gaps_ns, [30, 30])
        self.assertEqual(turns.overlap, 0)
        self.assertEqual(turns.shares(), [0.5, 0.5])

    def test_kernels_of_two_tenants_at_once_are_overlap(self):
        self.assertEqual(traces.Turns([Trace([0], [50]), Trace([25], [75])], 0, 100).overlap, 0.25)

    def test_recovery_ends_where_the_survivor_keeps_its_rate(self):
        # One kernel in two moments while the donor works until 100, and still until 200; from there on one in each.
        begins = list(range(0, 200, 20)) + list(range(200, 1000, 10))
        survivor = Trace(begins, [begin + 10 for begin in begins])
        donor = Trace([90, 950], [100, 960])
        self.assertEqual(traces.recovery_ns(donor, survivor, 10, 500, 100), [100])
        self.assertEqual(traces.recovery_ns(donor, survivor, 10, 900, 100), []) # no pause of that length
        self.assertEqual(traces.recovery_ns(donor, survivor, 20, 500, 100), [0]) # that rate it had all the time

    def test_percentiles_are_values_that_occurred(self):
        self.assertEqual(traces.percentile([1, 2, 3, 4], 50), 2)
        self.assertEqual(traces.percentile([1, 2, 3, 4], 99), 4)
        self.assertEqual(traces.percentile(list(range(1, 1001)), 99.9), 999)


class Statistics(unittest.TestCase):
    def test_overruns_are_told_apart_by_looks_closer_than_a_turn(self):
        def look(at_ms, overrun_ns):
            return {"at_ns": at_ms * 1_000_000, "vgpus": [{"index": 0, "overrun_ns": overrun_ns}]}
        looks = [look(100, 500), look(105, 500), look(110, 800), look(115, 800), look(215, 1800), look(220, 1900)]
        self.assertEqual(accounting.single_overruns(looks), [100, 300])

    def test_instructions_are_the_library_s_own_and_not_those_it_calls(self):
        with tempfile.NamedTemporaryFile("w", suffix=".out") as file:
            file.write("ob=/x/libvgpu_shim.so\nfl=shim/launch.c\nfn=cuLaunchKernel\n10 5\nfi=gate.h\n+3 7\nfe=shim/launch.c\n"
                       "cob=/x/libcuda.so.1\ncfn=cuLaunchKernel\ncalls=1 0\n11 1000\n12 2\n\nob=/x/libcuda.so.1\nfn=cuLaunchKernel\n1 1000\n")
            file.flush()
            self.assertEqual(alone.instructions_of(file.name, "libvgpu_shim.so"), {("launch.c", "cuLaunchKernel"): 14})

    def test_speeds_of_trainings_are_between_lines_of_progress(self):
        rows = training.progress("loss 1\nsteps 10 100.0\nsteps 20 100.5\nsteps 40 101.5\nsteps 90 104.0\n")
        self.assertEqual(training.rate(rows, 100, 102), 20)


class Quantiles(unittest.TestCase):
    @staticmethod
    def of(*buckets):
        return [{"handover": {"buckets": list(buckets)}}]

    def test_they_are_the_ends_of_buckets(self):
        figures = self.of((0, 90), (4000, 9), (64000, 1))
        self.assertEqual(statistics.quantiles(figures, "handover"), {"handover_p50_us": 1, "handover_p99_us": 5})

    def test_what_was_before_does_not_count(self):
        before, after = self.of((64000, 32)), self.of((0, 200), (64000, 32))
        self.assertEqual(statistics.quantiles(after, "handover")["handover_p99_us"], 80)
        self.assertEqual(statistics.quantiles(after, "handover", before)["handover_p99_us"], 1)

    def test_nothing_has_none(self):
        self.assertEqual(statistics.quantiles(self.of((0, 5)), "handover", self.of((0, 5))), {})


class Rounds(unittest.TestCase):
    """On a machine of paper; what a case measures is told by a list."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory() # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.out, self.ran = folder.name, []
        said = contextlib.redirect_stdout(io.StringIO())
        said.__enter__()
        self.addCleanup(said.__exit__, None, None, None)

    def bench(self, **more):
        bench = Bench(OnPaper(), self.out, **more)
        bench.machine.stop_mps = lambda: None
        bench.machine.describe = lambda: "paper"
        bench.stamp = f"stamp-{time.monotonic_ns()}"
        return bench

    def case(self, name, arms=("native", "shim"), seconds=1.0, **more):
        def measure(bench, arm):
            self.ran.append((bench.round, name, arm))
            return {"m": 1.0}
        return Case(name, arms, measure, seconds, **more)

    @staticmethod
    def piece(*cases):
        return Piece("a title", "an aim", lambda _bench: list(cases), [Table({"m": ""})])

    def rounds(self, *cases, count=2, bench=None, short=False):
        return rounds.Rounds(bench or self.bench(), {f"piece-{case.name}": self.piece(case) for case in cases}, count, short)

    @staticmethod
    def names(missing):
        return [(each.number, each.case.name) for each in missing]

    def test_a_round_of_everything_comes_before_the_second_of_anything(self):
        found = self.rounds(self.case("a"), self.case("b", rounds=1), self.case("c"))
        self.assertEqual(self.names(found.missing), [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "c")])
        found.measure(float("inf"))
        self.assertEqual([self.ran[0], self.ran[-1]], [(0, "a", "native"), (1, "c", "native")])
        self.assertEqual(found.missing, [])

    def test_what_is_there_is_not_measured_again(self):
        self.rounds(self.case("a"), count=1).measure(float("inf"))
        self.assertEqual(self.names(self.rounds(self.case("a"), self.case("b")).missing), [(0, "b"), (1, "a"), (1, "b")])

    def test_a_round_counts_if_all_arms_are_there(self):
        self.rounds(self.case("a"), count=1, bench=self.bench(arms="shim")).measure(float("inf"))
        self.assertEqual(self.names(self.rounds(self.case("a"), count=1).missing), [(0, "a")])
        self.assertEqual(self.rounds(self.case("a"), count=1, bench=self.bench(arms="shim")).missing, [])
        self.assertEqual(self.rounds(self.case("a", short=("shim",)), count=1, short=True).missing, [])

    def test_an_arm_that_fails_is_part_of_its_round_unless_all_do(self):
        def measure(_bench, arm):
            if arm in failing:
                raise BenchError("no")
            return {"m": 1.0}
        case = Case("a", ("native", "shim"), measure)
        for failing, missing in ((("native", "shim"), [(0, "a")]), (("shim",), [])):
            self.rounds(case, count=1).measure(float("inf"))
            self.assertEqual(self.names(self.rounds(case, count=1).missing), missing)

    def test_a_round_that_is_not_finished_leaves_nothing(self):
        def measure(_bench, arm):
            if arm == "shim":
                raise TimeIsUp
            return {"m": 1.0}
        found = self.rounds(Case("a", ("native", "shim"), measure), count=1)
        found.measure(float("inf"))
        self.assertEqual(self.names(found.missing), [(0, "a")])
        self.assertEqual(os.listdir(self.out), ["stamps.jsonl"] if os.listdir(self.out) else [])

    def test_a_program_does_not_outlast_the_call(self):
        bench = types.SimpleNamespace(machine=types.SimpleNamespace(seconds_left=lambda: 0.1))
        with self.assertRaises(TimeIsUp):
            alone.checked(bench, ["sleep", "60"], os.environ)

    def test_a_record_that_was_cut_off_is_none(self):
        self.rounds(self.case("a"), count=1).measure(float("inf"))
        path = os.path.join(self.out, "piece-a.jsonl")
        os.truncate(path, os.path.getsize(path) - 5)
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(self.names(self.rounds(self.case("a"), count=1).missing), [(0, "a")])

    def test_another_version_gpu_or_length_of_runs_does_not_count(self):
        self.rounds(self.case("a"), count=1).measure(float("inf"))
        for name, value in (("version", "next"), ("gpu", "another")):
            bench = self.bench()
            setattr(bench.machine, name, value)
            found = self.rounds(self.case("a"), count=1, bench=bench)
            self.assertEqual((self.names(found.missing), found.others), ([(0, "a")], ["paper"]))
        self.assertEqual(self.names(self.rounds(self.case("a"), count=1, bench=self.bench(seconds=3)).missing), [(0, "a")])

    def test_nothing_is_begun_that_is_not_expected_to_end_and_what_fits_is(self):
        found = self.rounds(self.case("long", seconds=100), self.case("short", seconds=0.1), count=1)
        found.measure(time.monotonic() + 60)
        self.assertEqual({name for _, name, _ in self.ran}, {"short"})
        self.assertEqual(self.names(found.missing), [(0, "long")])

    def test_how_long_it_takes_is_known_from_what_was_measured(self):
        found = self.rounds(self.case("a"), count=1)
        each = found.missing[0]
        said = found.durations.of(each, set())
        self.assertAlmostEqual(said, 2 * (1 + rounds.START_SECONDS + rounds.EACH_SECONDS))
        for took_s in (9, 2, 3, 4):
            found.durations.add({"piece": "piece-a", "case": "a", "arm": "shim", "metrics": {}, "took_s": took_s, "said_s": (1, 2), "made": {}})
        # The longest of the last three; what was never measured lasts its second, and what it takes besides is off by as much as the rest.
        self.assertAlmostEqual(found.durations.of(each, set()), 4 + 1 + (said / 2 - 1) * 14 / 8)

    def test_what_several_cases_are_compared_to_is_made_once_a_round(self):
        case = {"needs": lambda _arm: (Need("x alone", 5),)}
        found = self.rounds(self.case("a", **case), self.case("b", **case), count=2)
        each = 2 * (1 + rounds.START_SECONDS + rounds.EACH_SECONDS)
        alone_s = 5 + rounds.START_SECONDS + rounds.EACH_SECONDS
        self.assertEqual([round(seconds, 3) for _, seconds in found.durations.of_all(found.missing)],
                         [round(seconds, 3) for seconds in (each + alone_s, each) * 2])

    def test_what_was_made_in_a_round_is_kept_until_the_next_or_until_it_is_old(self):
        bench = self.bench()
        bench.once_a_round("x", lambda: 1)
        now = time.monotonic()
        self.assertEqual([bench.kept_for(0, now), bench.kept_for(1, now), bench.kept_for(0, now + 1000)], [{"x"}, set(), set()])

    def test_who_begins_changes_and_those_under_mps_follow_one_another(self):
        bench, arms = self.bench(), ("native", "mps", "shim", "shim-mps")
        self.assertEqual(bench.in_turns(arms, 0, 0), ["native", "shim", "mps", "shim-mps"])
        self.assertEqual(bench.in_turns(arms, 0, 1), ["mps", "shim-mps", "native", "shim"])
        self.assertEqual(bench.in_turns(arms, 1, 0), ["shim-mps", "mps", "shim", "native"])
        self.assertEqual(bench.in_turns(("native", "shim"), 1, 1), ["shim", "native"])

    def test_the_whole_plan_takes_little_more_than_an_hour_and_the_short_one_two_thirds(self):
        for short, minutes in ((False, 68), (True, 45)):
            found = rounds.Rounds(self.bench(), pieces.PIECES, 5, short)
            self.assertLess(sum(seconds for _, seconds in found.durations.of_all(found.missing)), minutes * 60)

    def test_what_is_needed_is_what_is_made(self):
        """A plan counts what a case names; a measurement makes what it asks for."""
        bench, made = self.bench(), []
        trace = Trace(range(0, 10**10, 10**8), range(10**7, 10**10 + 10**7, 10**8))
        bench.run = lambda _arm, members, *_rest: [types.SimpleNamespace(trace=trace) for _ in members]
        for case in sharing.EQUAL.cases(bench) + sharing.SHARES.cases(bench):
            for arm in case.arms:
                bench.kept, bench.made = {}, {}
                case.measure(bench, arm)
                self.assertEqual(set(bench.kept), {need.key for need in case.needs(arm)}, (case.name, arm))
                made += bench.made
        self.assertIn("600 µs alone", made)


class Report(unittest.TestCase):
    def test_of_several_versions_the_newest_that_is_complete_is_shown(self):
        cases = [Case("a", ("x", "y"), None, short=("x",)), Case("b", ("x",), None), Case("c", (), None, short=())]
        piece = Piece("", "", lambda _bench: cases, [])
        stamps = {name: {"gpu": "G", "version": name} for name in ("1", "2", "3")}

        def made(stamp, case, number):
            return {"stamp": stamp, "case": case, "arm": "x", "round": number, "of": 2}
        whole = [made(stamp, case, number) for stamp in "12" for case in "ab" for number in (0, 1)]
        newest = [made("3", "a", 0), made("3", "a", 1), made("3", "b", 0)]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            def shown(records, of=""):
                return {record["stamp"] for record in report.chosen("p", piece, records, stamps, of)}
            self.assertEqual(shown(newest + whole), {"2"})
            self.assertIn("not of G, 3, which lacks rounds", said.getvalue())
            other_arm = [record | {"arm": "y"} for record in newest + [made("3", "b", 1)]]
            self.assertEqual(shown(other_arm + whole), {"2"})
            self.assertEqual(shown(newest + whole, "G, 1"), {"1"})
            self.assertEqual(shown(newest), {"3"})
            self.assertEqual(shown(newest + whole, "all"), {"1", "2", "3"})
            self.assertEqual(shown(newest + whole, "4"), set())

    def test_rounds_become_median_and_spread(self):
        records = [{"metrics": {"a": value}} for value in (3.0, 1.5, 2.5)]
        self.assertEqual(report.cell(records, "a", 1), "2.5 [1.5, 3.0]")
        self.assertEqual(report.cell(records, "b", 1), "–")

    def test_other_libraries_stand_behind_the_own_arms(self):
        records = [{"case": "c", "arm": arm, "metrics": {"m": 1.0}} for arm in ("other", "shim", "native")]
        lines = report.markdown_table(Table({"m": ""}), records, report.Labels({}))
        self.assertEqual(lines[0], "|  | time slicing | vgpu-shim | other |")

    def test_sections_go_between_their_marks_and_nowhere_else(self):
        with tempfile.NamedTemporaryFile("w+") as page:
            page.write("before\n<!-- bench small -->\nold\n<!-- end small -->\nafter\n")
            page.flush()
            report.put_into(page.name, {"small": "new"})
            report.put_into(page.name, {"small": "newer \\1"})
            page.seek(0)
            self.assertEqual(page.read(), "before\n<!-- bench small -->\n\nnewer \\1\n\n<!-- end small -->\nafter\n")
            with self.assertRaises(report.BenchError):
                report.put_into(page.name, {"large": "x"})


class Mps(unittest.TestCase):
    def test_one_daemon_serves_runs_in_a_row_and_none_without_mps(self):
        log = []

        @contextlib.contextmanager
        def daemon():
            log.append("start")
            yield {"pipe": len(log)}
            log.append("stop")
        machine = OnPaper()
        machine.daemon, machine.mps_env, machine.mps = contextlib.ExitStack(), {}, daemon
        self.assertEqual(machine.environment_of_mps(), machine.environment_of_mps())
        self.assertEqual(log, ["start"])
        machine.stop_mps()
        machine.stop_mps()
        self.assertEqual(log, ["start", "stop"])
        self.assertEqual(machine.environment_of_mps(), {"pipe": 3})

    def test_the_daemon_is_private_and_quits_whatever_happens(self):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            control = os.path.join(folder, "nvidia-cuda-mps-control")
            with open(control, "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\n{{ echo "$# $*"; [ $# -gt 0 ] || cat; echo "$CUDA_MPS_PIPE_DIRECTORY"; }} >>{log}\n')
            os.chmod(control, 0o755)
            machine = types.SimpleNamespace(work=folder, env=dict(os.environ, PATH=folder + ":" + os.environ["PATH"]))
            with self.assertRaises(KeyboardInterrupt):
                with Machine.mps(machine) as env:
                    raise KeyboardInterrupt
            with open(log, encoding="utf-8") as file:
                said = file.read().splitlines()
            pipe = env["CUDA_MPS_PIPE_DIRECTORY"]
            self.assertEqual(said, ["1 -d", pipe, "0 ", "quit", pipe])
            self.assertTrue(pipe.startswith(folder))


if __name__ == "__main__":
    unittest.main()
