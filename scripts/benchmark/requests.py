# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pieces about tenants that do not always have work: small launches, requests, and a donor that goes idle."""
from . import traces
from .core import Case, Need, Piece, Table, alone
from .machine import BenchError, NotHere
from .sharing import ALL_ARMS, HUGE_US, LONG_US, SHORT_US, length, others

# --- one small kernel at a time ---------------------------------------------------------------------------------------------------

ONE_AT_A_TIME = ("--burst", "1")
SMALL_SECONDS = 3


def measure_small(bench, arm):
    alone_ns = bench.exclusive(SHORT_US, ONE_AT_A_TIME).trace.period_ns()
    queue_ns = bench.period_ns(HUGE_US)
    members = [bench.tenant(SHORT_US, options=ONE_AT_A_TIME), bench.tenant(HUGE_US)]
    _, found, window = bench.side_by_side(arm, members, bench.seconds(SMALL_SECONDS))
    seconds = (window[1] - window[0]) / 1e9
    small, large = traces.work_in(found, [alone_ns, queue_ns], *window)
    return {"small_percent": 100 * small / seconds, "large_percent": 100 * large / seconds, "exclusive_per_s": 1e9 / alone_ns}


SMALL = Piece(
    f"One kernel of {length(SHORT_US)} at a time, beside a queue of kernels of {length(HUGE_US)}",
    "the small one at least 45 % of its rate alone while the other keeps at least 50 %",
    lambda bench: [Case("equal weights", ALL_ARMS + others(bench), measure_small, SMALL_SECONDS, 2,
                        needs=lambda _arm: (alone(SHORT_US, ONE_AT_A_TIME), alone(HUGE_US)))],
    [Table({"small_percent": "one at a time, % of alone", "large_percent": "queue, % of alone", "exclusive_per_s": "small alone, per s"})])


# --- requests ---------------------------------------------------------------------------------------------------------------------

REQUEST_KERNELS, REQUEST_US, LOW_US = 10, 100, 200
RATE = 200 # of requests of 1 ms: a load of 20 %
REQUEST_SECONDS = 10 # two thousand requests, of which two are beyond p99.9


def request_tenant(bench, rate):
    # The same seed for every arm of a round: all serve the same arrivals.
    options = ("--burst", str(REQUEST_KERNELS), "--rate", str(rate), "--seed", str(1000 + bench.round))
    return bench.tenant(REQUEST_US, weight=100, options=options)


def latency_metrics(latencies_ns):
    ascending = sorted(latencies_ns)
    metrics = {f"p{str(percent).replace('.', '')}_ms": traces.percentile(ascending, percent) / 1e6 for percent in (50, 99, 99.9)}
    metrics.update(mean_ms=sum(ascending) / len(ascending) / 1e6, requests=len(ascending))
    return metrics


def latency_series(latencies_ns):
    ascending = sorted(latencies_ns)
    # The tail is what matters: steps of a percent up to 99, of a twentieth from there.
    percents = list(range(99)) + [99 + step / 20 for step in range(20)]
    return {"percent": percents, "ms": [round(traces.percentile(ascending, percent) / 1e6, 4) for percent in percents]}


def requests_alone(rate):
    return Need(f"{rate} requests alone", REQUEST_SECONDS, whole=True)


def measure_latency(rate):
    def undisturbed(bench):
        def make():
            return bench.run("native", [request_tenant(bench, rate)], bench.seconds(REQUEST_SECONDS))[0].latencies_ns
        return bench.once_a_round(requests_alone(rate).key, make)

    def measure(bench, arm):
        if arm == "exclusive":
            found = undisturbed(bench)
            return latency_metrics(found) | {"series": latency_series(found)}
        if arm.startswith("shim") and not bench.machine.has_option("VGPU_PRIORITY"):
            raise NotHere("this build knows no VGPU_PRIORITY")
        reference, low_ns = latency_metrics(undisturbed(bench)), bench.period_ns(LOW_US)
        high, low = request_tenant(bench, rate), bench.tenant(LOW_US)
        if arm.startswith("shim"):
            high.env, low.env = {"VGPU_PRIORITY": "high"}, {"VGPU_PRIORITY": "low"}
        elif arm == "mps-priority":
            high.env, low.env = {"CUDA_MPS_CLIENT_PRIORITY": "0"}, {"CUDA_MPS_CLIENT_PRIORITY": "1"}
        results, found, window = bench.side_by_side(arm, [high, low], bench.seconds(REQUEST_SECONDS))
        metrics = latency_metrics(results[0].latencies_ns)
        seconds = (window[1] - window[0]) / 1e9
        used, left = traces.work_in(found, [bench.period_ns(REQUEST_US), low_ns], *window)
        metrics.update(stretch_p99=metrics["p99_ms"] / reference["p99_ms"], stretch_mean=metrics["mean_ms"] / reference["mean_ms"],
                       added_p99_us=(metrics["p99_ms"] - reference["p99_ms"]) * 1e3, low_percent=100 * left / (seconds - used))
        return metrics | {"series": latency_series(results[0].latencies_ns)}
    return measure


def latency_cases(bench):
    arms = ("exclusive", "native", "mps", "mps-priority", "shim", "shim-mps") + others(bench)
    # A simulated kernel takes longer to launch.
    rate = 50 if bench.machine.simulated else RATE
    needs = (requests_alone(rate), alone(LOW_US), alone(REQUEST_US))
    return [Case(f"{rate} requests of {length(REQUEST_KERNELS * REQUEST_US)} per s", arms, measure_latency(rate), REQUEST_SECONDS, 2,
                 needs=lambda arm: needs[:1] if arm == "exclusive" else needs[1:], short=("exclusive", "native", "mps", "shim"))]


LATENCY = Piece(
    f"Requests at high priority, arriving at random, beside a saturated tenant of low priority with kernels of {length(LOW_US)}",
    "p99 at most that of exclusive use + one low kernel + 150 µs, stretch 1.25; the low one at least 95 % of what is left",
    latency_cases,
    [Table({"p50_ms": "p50, ms", "p99_ms": "p99, ms", "p999_ms": "p99.9, ms", "added_p99_us": "p99 added, µs",
            "stretch_p99": "stretch of p99", "stretch_mean": "stretch of mean", "low_percent": "low one, % of what is left"}, 2)],
    "A latency runs from the arrival of a request, so what waits behind another counts; every arm of a round serves the same arrivals.")


# --- a donor goes idle ------------------------------------------------------------------------------------------------------------

BUSY_MS, IDLE_MS, SURVIVOR_US = 40, 40, 100
IDLE_SECONDS = 5 # sixty pauses


def measure_idle(bench, arm):
    period = bench.period_ns(SURVIVOR_US)
    donor = bench.tenant(LONG_US, options=("--burst", str(BUSY_MS * 1000 // LONG_US), "--think-us", str(IDLE_MS * 1000)))
    _, found, _ = bench.side_by_side(arm, [donor, bench.tenant(SURVIVOR_US)], bench.seconds(IDLE_SECONDS))
    spans = traces.recovery_ns(found[0], found[1], period, IDLE_MS * 500_000, 5_000_000)
    if not spans:
        raise BenchError("the donor never paused")
    return {"recovery_p50_us": traces.percentile(spans, 50) / 1e3, "recovery_p90_us": traces.percentile(spans, 90) / 1e3,
            "recovery_p99_us": traces.percentile(spans, 99) / 1e3, "pauses": len(spans)}


IDLE = Piece(
    "A tenant goes idle: time until the other runs at 99 % of its rate alone",
    "at most 300 µs",
    lambda bench: [Case(f"{BUSY_MS} ms of work, {IDLE_MS} ms of pause", ALL_ARMS + others(bench), measure_idle, IDLE_SECONDS, 2,
                        needs=lambda _arm: (alone(SURVIVOR_US),))],
    [Table({"recovery_p50_us": "p50, µs", "recovery_p90_us": "p90, µs", "recovery_p99_us": "p99, µs", "pauses": "pauses"}, 0)],
    "From the end of the last kernel of the one to the moment from which the other keeps that rate for 5 ms, by the GPU's clock.")
