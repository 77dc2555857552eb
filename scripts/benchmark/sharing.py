# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pieces about saturated tenants side by side: throughput, shares, many tenants."""
from . import traces
from .core import Case, Need, Piece, Table, alone
from .statistics import Looks

LONG_US, SHORT_US, HUGE_US = 600, 14, 11700
ALL_ARMS = ("native", "mps", "shim", "shim-mps")


def others(bench):
    """Arms of other preload libraries, given as BENCH_PRELOAD_NAME."""
    own = {arm.key for arm in bench.machine.own_arms("")}
    return tuple(key for key in bench.machine.arms if key not in own)


def length(kernel_us):
    return f"{kernel_us / 1000:g} ms" if kernel_us >= 100 else f"{kernel_us:g} µs"


def turn_metrics(found, window, due):
    """What the timeline says of turns and of the gaps between them, if there are turns: where kernels overlap, there are none. The
    driver's context switch is part of a gap."""
    turns = traces.Turns(found, *window)
    metrics = {"overlap_percent": 100 * turns.overlap}
    if turns.overlap < 0.01:
        lengths = sorted(ns for tenant in turns.lengths_ns for ns in tenant)
        metrics.update({"turn_p50_ms": traces.percentile(lengths, 50) / 1e6, "gap_p50_us": traces.percentile(turns.gaps_ns, 50) / 1e3,
                        "gap_p99_us": traces.percentile(turns.gaps_ns, 99) / 1e3,
                        "error_turns_points": traces.share_error(turns.shares(), due)})
    return metrics


# --- equal tenants ----------------------------------------------------------------------------------------------------------------

EQUAL_SECONDS = 1.5 # five cycles of eight tenants, more than a hundred turns at 10 ms


def alone_under_mps(kernel_us):
    """A tenant that has the GPU to itself, without the library, as a client of MPS, which slows it down."""
    return Need(f"{kernel_us} µs alone under MPS", EQUAL_SECONDS)


def measure_equal(kernel_us, count):
    def measure(bench, arm):
        period, seconds = bench.period_ns(kernel_us), bench.seconds(EQUAL_SECONDS)
        _, found, window = bench.side_by_side(arm, [bench.tenant(kernel_us)] * count, seconds)
        work = traces.work_in(found, [period] * count, *window)
        metrics = {"aggregate_percent": 100 * sum(work) / ((window[1] - window[0]) / 1e9), "exclusive_per_s": 1e9 / period}
        if bench.is_mps(arm):
            mps = bench.once_a_round(alone_under_mps(kernel_us).key, lambda: bench.run("mps", [bench.tenant(kernel_us)], seconds)[0])
            metrics["aggregate_mps_percent"] = metrics["aggregate_percent"] * mps.trace.period_ns() / period
        if count > 1:
            metrics.update(turn_metrics(found, window, [1 / count] * count))
        return metrics
    return measure


def equal_cases(bench):
    arms = ("native", "mps", "shim", "shim-10ms", "shim-mps", "shim-mps-2ms") + others(bench)
    aims = ("shim", "shim-10ms", "shim-mps-2ms")
    short = {1: (), 2: ("native", "mps") + aims, 4: aims, 8: ("native", "mps") + aims}
    counts = (1, 2) if bench.machine.simulated else tuple(short)

    def case(kernel_us, count):
        def needs(arm):
            return (alone(kernel_us),) + ((alone_under_mps(kernel_us),) if bench.is_mps(arm) else ())

        return Case(f"{count} × {length(kernel_us)}", arms if count > 1 else ("shim", "shim-mps"), measure_equal(kernel_us, count),
                    EQUAL_SECONDS, count, needs=needs, short=short[count])

    return [case(kernel_us, count) for kernel_us in (LONG_US, SHORT_US) for count in counts]


EQUAL = Piece(
    "Equal tenants: work of all together, in percent of one that has the GPU to itself",
    "at least 99.3 % at the automatic quantum, 98.5 % at 10 ms, under MPS 99 % at 2 ms",
    equal_cases,
    [Table({"aggregate_percent": ""}),
     Table({"turn_p50_ms": "turn, ms", "gap_p50_us": "between turns p50, µs", "gap_p99_us": "p99, µs", "overlap_percent": "overlap, %",
            "aggregate_mps_percent": "% of one that is alone under MPS"})],
    "Between turns: from the end of the last kernel of one tenant to the begin of the first of the next, by the GPU's clock.")


# --- shares -----------------------------------------------------------------------------------------------------------------------

def share_metrics(found, periods, due, window):
    """Errors in points: of every window of a second, of the whole, and of the whole counted by turns instead of work."""
    second = 1_000_000_000
    errors = [traces.share_error(traces.shares_in(found, periods, *part), due) for part in traces.windows(*window, second, second // 20)]
    whole = traces.shares_in(found, periods, *window)
    metrics = {"error_1s_points": max(errors), "error_whole_points": traces.share_error(whole, due),
               "jain": traces.jain(whole, due), "seconds": (window[1] - window[0]) / second}
    return metrics | turn_metrics(found, window, due)


def share_series(found, periods, due, window):
    """Shares in every window of a second, a tenth after the other, for a plot."""
    second = 1_000_000_000
    parts = traces.windows(*window, second, second // 10)[:300]
    shares = [[round(share, 4) for share in traces.shares_in(found, periods, *part)] for part in parts]
    return {"step_s": 0.1, "due": due, "shares": shares}


SHARE_SECONDS = 5           # windows of a second slide over four
CLAIM_SECONDS = 31          # the aim is over 30 s
WITHOUT_WEIGHTS = ("native", "mps")


def unweighted(arm, kernels_us, seconds):
    """A run in which weights change nothing does for all weights."""
    return Need(f"{arm} {kernels_us}", seconds, len(kernels_us), whole=True)


def measure_shares(weights, kernels_us, usual_seconds):
    def measure(bench, arm):
        due = [weight / sum(weights) for weight in weights]
        periods = [bench.period_ns(kernel_us) for kernel_us in kernels_us]
        seconds = bench.seconds(usual_seconds)

        def make():
            members = [bench.tenant(kernel_us, weight=weight) for kernel_us, weight in zip(kernels_us, weights)]
            return bench.side_by_side(arm, members, seconds)

        if arm in WITHOUT_WEIGHTS:
            _, found, window = bench.once_a_round(unweighted(arm, kernels_us, seconds).key, make)
        else:
            _, found, window = make()
        metrics = share_metrics(found, periods, due, window)
        metrics["series"] = share_series(found, periods, due, window)
        return metrics
    return measure


def share_case(name, weights, kernels_us, arms, seconds=SHARE_SECONDS, **more):
    def needs(arm):
        own = tuple(alone(kernel_us) for kernel_us in dict.fromkeys(kernels_us))
        return own + ((unweighted(arm, kernels_us, seconds),) if arm in WITHOUT_WEIGHTS else ())

    return Case(name, arms, measure_shares(weights, kernels_us, seconds), seconds, len(kernels_us), needs=needs, **more)


WEIGHTS = (("1:1", (100, 100)), ("3:7", (30, 70)), ("7:2:1", (700, 200, 100)), ("8 equal", (100,) * 8))
DIFFERENT = ((f"{length(SHORT_US)} beside {length(HUGE_US)}", (SHORT_US, HUGE_US)),
             (f"{length(HUGE_US)}, {length(LONG_US)}, {length(SHORT_US)}", (HUGE_US, LONG_US, SHORT_US)))


def share_cases(bench):
    arms = ALL_ARMS + others(bench)
    # Short: two tenants show what time slicing and MPS do, one run for all weights; the rest what the library does.
    own = ("shim",)
    two = {"1:1": ("native", "mps", "shim"), "3:7": arms}
    cases = [share_case(f"{name}, {length(LONG_US)}", weights, (LONG_US,) * len(weights), arms, short=two.get(name, own))
             for name, weights in WEIGHTS]
    for number, lengths, short in ((0, 0, own), (1, 0, arms), (2, 1, own)):
        name, weights = WEIGHTS[number]
        kernels, kernels_us = DIFFERENT[lengths]
        cases.append(share_case(f"{name}, {kernels}", weights, kernels_us, arms, short=short))
    return cases[:2] + cases[4:5] if bench.machine.simulated else cases


ERRORS = {"error_1s_points": "worst 1 s", "error_whole_points": "whole run", "error_turns_points": "whole run, by turns",
          "jain": "Jain's", "seconds": "seconds"}
SHARE_NOTE = ("A share is the part of the work done, each kernel counted at what it costs a tenant that is alone; by turns, it is the part of "
              "the time from first to last kernel of a turn.")

SHARES = Piece(
    "Shares by weight: error in points",
    "at most 1 point in every window of 1 s; Jain's index at least 0.999",
    share_cases,
    [Table(ERRORS, 3)],
    f"{SHARE_NOTE} Time slicing and MPS know no weights, so that one run of theirs stands for all weights of the same kernels.")


def claim_cases(bench):
    arms = ("shim",) + others(bench)
    cases = [share_case(f"{name}, {length(LONG_US)}", weights, (LONG_US,) * len(weights), arms, CLAIM_SECONDS)
             for name, weights in WEIGHTS[1:3]]
    cases.append(share_case(f"3:7, {DIFFERENT[0][0]}", WEIGHTS[1][1], DIFFERENT[0][1], arms, CLAIM_SECONDS))
    return cases[:1] if bench.machine.simulated else cases


CLAIM = Piece(
    "Shares by weight over 30 s: error in points",
    "at most 0.3 points over 30 s, 1 point in every window of 1 s; Jain's index at least 0.999",
    claim_cases,
    [Table(ERRORS, 3)],
    SHARE_NOTE)


# --- many tenants -----------------------------------------------------------------------------------------------------------------

MANY_SECONDS = 6.5 # the aim is over 5 s


def measure_many(count):
    def measure(bench, arm):
        seconds = bench.seconds(MANY_SECONDS)
        period = bench.period_ns(LONG_US)
        looks = Looks(bench, arm, seconds) if arm.startswith("shim") else None
        _, found, window = bench.side_by_side(arm, [bench.tenant(LONG_US)] * count, seconds, looks)
        metrics = share_metrics(found, [period] * count, [1 / count] * count, window)
        return metrics | (looks.agents() | looks.quantiles("handover") if looks else {})
    return measure


def many_cases(bench):
    count = 4 if bench.machine.simulated else 32
    return [Case(f"{count} tenants, {length(LONG_US)}", ALL_ARMS + others(bench), measure_many(count),
                 MANY_SECONDS, count, needs=lambda _arm: (alone(LONG_US),), short=("native", "shim"))]


MANY = Piece(
    "Many tenants",
    "share error at most 1 point over 5 s; hand-over without drain at most 30 µs at p99",
    many_cases,
    [Table({"error_whole_points": "share error, points", "handover_p50_us": "hand-over p50, µs", "handover_p99_us": "p99, µs",
            "gap_p50_us": "between turns p50, µs", "gap_p99_us": "p99, µs", "agent_mean_percent": "CPU of an agent, % of a core",
            "agent_worst_percent": "worst"}, 2)],
    "Hand-over: from the end of the drain to the first launch of the next tenant, as `vgpu list --json` has it, of all tenants together, from a fifth of the run on. "
    "Between turns: from the end of the last kernel to the begin of the next tenant's first, by the GPU's clock, its context switch included.")
