# SPDX-License-Identifier: AGPL-3.0-or-later
"""The piece about the C API: memory, regions and tasks of virtual GPUs inside one program, and the heap under an unmodified one."""
import glob
import os

from . import alloc, tenants
from .alone import checked
from .core import Case, Piece, Table
from .machine import ROOT, NotHere

SIZES_KIB = (4, 16, 64, 256, 1024, 4096, 16384, 65536)
QUOTA_MIB, ALLOCATIONS = 16384, 10000
LIGHT_PERCENT = 25 # of two virtual GPUs with weights 1:3
QUEUE_SECONDS = 5


def figures(bench, *arguments):
    """What tests/programs/api_bench says; it needs nothing but libvgpu.so."""
    env = dict(bench.machine.env, VGPU_POOL=os.path.join(bench.machine.work, "pool-api"), VGPU_LOG="error")
    env["LD_LIBRARY_PATH"] = bench.machine.build + ":" + env["LD_LIBRARY_PATH"]
    if bench.machine.simulated: # recorded quotas do not fit on the usual one
        env.update(SIMGPU_STATE=os.path.join(bench.machine.work, "simgpu-api"), SIMGPU_MEMORY="80G")
    command = [bench.machine.path("tests/programs/api_bench"), bench.machine.path("kernels/testkernels.ptx")]
    values = tenants.result_line(checked(bench, command + [str(argument) for argument in arguments], env))
    return {name: float(value) for name, value in values.items()}


def measure_pairs(kib):
    def measure(bench, _arm):
        found = figures(bench, "pairs", kib * 1024)
        return found | {"times": found["driver_ns"] / found["own_ns"], "times_async": found["driver_async_ns"] / found["own_ns"]}
    return measure


def measure_mix(percent):
    def measure(bench, _arm):
        shorter = 4 if bench.machine.simulated else 1
        return figures(bench, "mix", QUOTA_MIB // shorter, percent, ALLOCATIONS // shorter)
    return measure


def measure_trace(percent, seed):
    def measure(bench, _arm):
        traces = sorted(glob.glob(os.path.join(ROOT, "tests/traces/*")))
        if not traces:
            raise NotHere("nothing is recorded in tests/traces: scripts/record-trace.py does so")
        return figures(bench, "trace", percent, traces[0], seed)
    return measure


def measure_region(bench, _arm):
    return figures(bench, "region", 64 if bench.machine.simulated else 1024)


def measure_queues(bench, _arm):
    found = figures(bench, "queues", bench.seconds(QUEUE_SECONDS))
    return found | {"error_points": abs(found["task_percent"] - LIGHT_PERCENT)}


def cases(_bench):
    pairs = [(f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB", measure_pairs(kib)) for kib in SIZES_KIB]
    mixes = [case for percent in (80, 90) for case in (
        (f"heavy-tailed lifetimes, {percent} %", measure_mix(percent)),
        (f"lifetimes of a PyTorch training, {percent} %", measure_trace(percent, 1)),
        (f"its sizes too, {percent} %", measure_trace(percent, 0)))]
    pairs.append(("cudaMalloc and cudaFree of 2 MiB", alloc.measure(2048)))
    # What a mix leaves of its quota depends on its seed alone, which is the same in every round.
    return ([Case(name, ("shim",), measure, more=1.5) for name, measure in pairs]
            + [Case(name, ("shim",), measure, more=3, rounds=1) for name, measure in mixes]
            + [Case("another process's region", ("shim",), measure_region, more=1),
               Case("idle GPU", ("shim",), lambda bench, _arm: figures(bench, "tasks"), more=1),
               Case("weights 1:3", ("shim",), measure_queues, QUEUE_SECONDS, more=1)])


API = Piece(
    "Virtual GPUs inside one program",
    "vgpu_malloc and vgpu_free at most 300 ns, 100 times faster than cudaMalloc and cudaFree and 3 times faster than cudaMallocAsync and "
    "cudaFreeAsync; VGPU_ALLOCATOR=chunk 50 times faster than native; physical memory at most 1.10 × what is in use at 80 % of the quota, and "
    "nothing refused up to 90 %; a region copied at 99 % of the rate of other memory; a task started in 20 µs; shares within 1 point",
    cases,
    [Table({"own_ns": "vgpu_malloc, vgpu_free, ns", "own_async_ns": "the same by stream", "driver_ns": "cuMemAlloc, cuMemFree",
            "driver_async_ns": "cuMemAllocAsync, cuMemFreeAsync", "times": "times faster than the one", "times_async": "than the other"}, 1),
     Table({"native": "native, ns", "chunk": "VGPU_ALLOCATOR=chunk, ns", "ratio": "times faster"}, 1),
     Table({"worst": "physical / live, at most", "mean": "on average", "refused": "refused", "allocations": "of allocations"}, 3),
     Table({"plain_gbs": "copy from own memory, GB/s", "region_gbs": "from the region, GB/s", "percent": "%"}, 1),
     Table({"submit_us": "from vgpu_submit to the start of the task, µs", "submit_p99_us": "p99"}, 1),
     Table({"task_percent": "tasks of the lighter, %", "time_percent": "its GPU time, %", "error_points": "error, points"}, 2)],
    "Pairs: one thread, medians of 21 batches of 400, the four kinds by turns. Sizes of the mixes are random, 256 bytes to 256 MiB, unless the "
    "recorded ones are named; a looked-at moment has at least 97 % of the most that is ever in use. Tasks of 0.5 ms.",
    {"shim": "vgpu-shim"}, short=False)
