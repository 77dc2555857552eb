# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pieces about what the scheduler promises beside shares: caps, the agents' own time, and the end of a turn."""
import time

from . import traces
from .core import Case, Piece, Table, alone
from .machine import BenchError, NotHere
from .sharing import LONG_US, length, others
from .statistics import Looks, listing, quantiles

SHIM_ARMS = ("shim", "shim-mps")

# --- caps -------------------------------------------------------------------------------------------------------------------------

CAPS_SECONDS = 4


def measure_caps(limits):
    def measure(bench, arm):
        if arm.startswith("shim") and not bench.machine.has_option("VGPU_COMPUTE_LIMIT"):
            raise NotHere("this build knows no VGPU_COMPUTE_LIMIT")
        period = bench.period_ns(LONG_US)
        members = [bench.tenant(LONG_US, env={"VGPU_COMPUTE_LIMIT": str(limit)} if arm.startswith("shim") else {}, percent=limit)
                   for limit in limits]
        _, found, window = bench.side_by_side(arm, members, bench.seconds(CAPS_SECONDS))
        work = traces.work_in(found, [period] * len(limits), *window)
        got = [100 * part / ((window[1] - window[0]) / 1e9) for part in work]
        metrics = {f"got_{limit}_percent": part for limit, part in zip(limits, got)}
        return metrics | {"error_points": max(abs(part - limit) for part, limit in zip(got, limits))}
    return measure


def caps_cases(bench):
    return [Case(name, SHIM_ARMS + others(bench), measure_caps(limits), CAPS_SECONDS, len(limits), needs=lambda _arm: (alone(LONG_US),),
                 short=("shim",))
            for name, limits in (("30 % alone", (30,)), ("30 % and 70 %", (30, 70)))]


CAPS = Piece(
    "Caps: work done, in percent of what a tenant without a cap does alone",
    "within 1 point",
    caps_cases,
    [Table({"got_30_percent": "capped at 30 %", "got_70_percent": "at 70 %", "error_points": "error, points"}, 2)])


# --- the agents' own time ---------------------------------------------------------------------------------------------------------

AGENT_SECONDS = 2


def measure_agents(count):
    def measure(bench, arm):
        seconds = bench.seconds(AGENT_SECONDS)
        looks = Looks(bench, arm, seconds, listed=False)
        bench.side_by_side(arm, [bench.tenant(LONG_US)] * count, seconds, looks)
        return looks.agents()
    return measure


def agent_cases(bench):
    # Those of 32 tenants are looked at where those are measured.
    counts = (1, 2) if bench.machine.simulated else (1, 2, 8)
    return [Case("alone" if count == 1 else f"{count} tenants", SHIM_ARMS, measure_agents(count), AGENT_SECONDS, count, short=("shim",))
            for count in counts]


CPU = Piece(
    "CPU time of the agents, in percent of a core per tenant",
    "at most 3 % contended, none alone",
    agent_cases,
    [Table({"agent_mean_percent": "mean", "agent_worst_percent": "worst", "agents": "agents"}, 2)],
    "By the kernel's accounting of the threads named vgpu-agent, over 0.6 of the run. Those of 32 tenants are under many tenants.")


# --- the end of a turn ------------------------------------------------------------------------------------------------------------

TURN_MS = 20
DRAIN_SECONDS = 4 # 160 turns


def single_overruns(samples):
    """GPU time past the end of a turn, turn by turn: between two looks closer together than a turn, a tenant has ended one at most."""
    found, last = [], {}
    for sample in samples:
        for vgpu in sample["vgpus"]:
            at_ns, overrun_ns = last.get(vgpu["index"], (0, 0))
            if sample["at_ns"] - at_ns < TURN_MS * 1_000_000 and vgpu["overrun_ns"] > overrun_ns:
                found.append(vgpu["overrun_ns"] - overrun_ns)
            last[vgpu["index"]] = (sample["at_ns"], vgpu["overrun_ns"])
    return sorted(found)


def measure_drain(kernel_us):
    def measure(bench, arm):
        seconds = max(2, bench.seconds(DRAIN_SECONDS)) # several turns have to end
        samples = []

        def observe(_pids):
            time.sleep(bench.settle_ns(seconds) / 1e9)
            until = time.monotonic() + seconds * 0.8
            while time.monotonic() < until:
                samples.append(listing(bench, arm))
                time.sleep(0.002)

        members = [bench.tenant(kernel_us, env={"VGPU_QUANTUM": str(TURN_MS)})] * 2
        bench.side_by_side(arm, members, seconds, observe)
        found = single_overruns(samples)
        if not found:
            raise BenchError("no turn was seen to end")
        p99_us = traces.percentile(found, 99) / 1e3
        return {"end_p50_us": traces.percentile(found, 50) / 1e3, "end_p99_us": p99_us, "turns": len(found),
                "above_p99_us": p99_us - max(1000, kernel_us)} | quantiles(samples[-1]["vgpus"], "drain")
    return measure


DRAIN = Piece(
    "From the end of a turn until the holder's work has left the GPU",
    "p99 at most the longer of window (1 ms) and kernel, + 50 µs",
    lambda bench: [Case(f"kernels of {length(kernel_us)}", SHIM_ARMS, measure_drain(kernel_us), DRAIN_SECONDS, 2, short=("shim",))
                   for kernel_us in ((500,) if bench.machine.simulated else (100, 500, 1000, 2000))],
    [Table({"end_p50_us": "p50, µs", "end_p99_us": "p99, µs", "above_p99_us": "p99 above window or kernel, µs", "turns": "turns",
            "drain_p50_us": "drain p50, µs", "drain_p99_us": "p99, µs"}, 0)],
    "From `overrun_ns` of `vgpu list --json`, looked at every few milliseconds, so turn by turn. Drain: from the closing of the gate, "
    "by the histogram of `vgpu list --json`, whose buckets are a fifth wide.")
