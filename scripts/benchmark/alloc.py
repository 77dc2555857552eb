# SPDX-License-Identifier: AGPL-3.0-or-later
"""The piece about allocating and freeing device memory in a loop."""
from . import tenants
from .alone import checked, command_env
from .core import Case, Piece, Table

SIZES_KIB = (4, 64, 1024, 2048, 16384, 65536)


def loop(bench, arm, kib, allocator=None):
    env = command_env(bench, arm)
    if allocator:
        env["VGPU_ALLOCATOR"] = allocator
    batches = 3 if bench.machine.simulated else 20
    command = [bench.machine.path("kernels/alloc_loop"), "--size", str(kib * 1024), "--iterations", str(batches)]
    return tenants.result_line(checked(bench, command, env))


def measure(kib):
    def measure_one(bench, arm):
        native, chunk = loop(bench, "native", kib), loop(bench, arm, kib, "chunk")
        own, heap = float(native["malloc_free_ns"]), float(chunk["malloc_free_ns"])
        return {"native": own, "chunk": heap, "async": float(native["async_ns"]), "ratio": own / heap}

    return measure_one


ALLOC = Piece(
    "Allocating and freeing device memory",
    "chunk at least 50 times faster than native at 2 MiB",
    lambda bench: [Case(f"{kib} KiB", ("shim",), measure(kib), more=1) for kib in SIZES_KIB],
    [Table({"native": "cudaMalloc and cudaFree, ns", "chunk": "the same with VGPU_ALLOCATOR=chunk, ns",
            "async": "cudaMallocAsync and cudaFreeAsync, ns"}, 0), Table({"ratio": "native / chunk"}, 1)],
    "One thread, 20 batches of 100 pairs a run, medians over the batches; runs without and with the library by turns.", short=False)
