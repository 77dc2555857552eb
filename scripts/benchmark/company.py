# SPDX-License-Identifier: AGPL-3.0-or-later
"""A piece about tenants whose kernels leave most of the GPU free, as clients of MPS: in turns, and several at a time."""
from . import traces
from .core import Case, Piece, Table, alone
from .sharing import others

KERNEL_US = 300 # as long as it would be with blocks for the whole GPU
FEW_BLOCKS = ("--size", "16384") # 32 blocks: a quarter of an H100's multiprocessors
LEAST_NS = 30_000 # blocks that have a multiprocessor to themselves are done sooner
SECONDS = 1.5


def measure_company(weights):
    def measure(bench, arm):
        period = bench.exclusive(KERNEL_US, FEW_BLOCKS, expected_ns=LEAST_NS).trace.period_ns()
        members = [bench.tenant(KERNEL_US, weight=weight, options=FEW_BLOCKS, expected_ns=LEAST_NS) for weight in weights]
        _, found, window = bench.side_by_side(arm, members, bench.seconds(SECONDS))
        seconds = (window[1] - window[0]) / 1e9
        rates = [100 * work / seconds for work in traces.work_in(found, [period] * len(weights), *window)]
        return {"aggregate_percent": sum(rates), "first_percent": rates[0], "last_percent": rates[-1],
                "exclusive_per_s": 1e9 / period}
    return measure


def company_cases(bench):
    arms = ("mps", "shim-mps", "shim-mps-company") + others(bench)
    return [Case(name, arms, measure_company(weights), SECONDS, len(weights), needs=lambda _arm: (alone(KERNEL_US, FEW_BLOCKS),))
            for name, weights in (("4 equal", (100,) * 4), ("3:1", (300, 100)))]


COMPANY = Piece(
    "Tenants that fill a quarter of the GPU, under MPS: in percent of one that is alone",
    "more than 100 % together where they may run at the same time, and by weights 3:1 the heavier all the time and the lighter half of it",
    company_cases,
    [Table({"aggregate_percent": "all together", "first_percent": "the heaviest", "last_percent": "the lightest",
            "exclusive_per_s": "kernels alone, per s"})],
    "Kernels of 32 blocks, each with the work of a block of a kernel that fills the GPU for 0.3 ms. At the same time: VGPU_CONCURRENCY=8.")
