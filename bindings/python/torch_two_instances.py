# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two virtual GPUs in one PyTorch program: each has a stream, a quota that its tensors come out of, and its turns.

usage: torch_two_instances.py LIBTORCH_ALLOCATOR

Build that library first: c++ -shared -fPIC torch_allocator.cpp -o libtorch_allocator.so $(pkg-config --cflags --libs vgpu) -ldl
"""

import ctypes
import sys

import torch

import vgpu

MIB = 1 << 20


def use_as_allocator(path, gpus):
    """All CUDA tensors from here on are the virtual GPUs': of the one on whose stream they are made, else of the first."""
    library = ctypes.CDLL(path)
    for gpu in gpus:
        library.torch_allocator_add(ctypes.c_void_p(gpu.handle))
    allocator = torch.cuda.memory.CUDAPluggableAllocator(path, "torch_allocator_malloc", "torch_allocator_free")
    torch.cuda.memory.change_current_allocator(allocator)


def step(gpu, size):
    """Runs on the virtual GPU's worker thread, in its turn."""
    stream = torch.cuda.ExternalStream(gpu.stream)
    with torch.cuda.stream(stream):
        a = torch.full((size, size), 2.0, device="cuda")
        result = (a @ a).sum()
        del a
        return result.item()


def main():
    # What PyTorch keeps for itself (cuBLAS has a workspace for each stream) comes out of the quotas too.
    gpus = [vgpu.VirtualGPU("light", memory=512 * MIB, weight=100), vgpu.VirtualGPU("heavy", memory=512 * MIB, weight=300)]
    use_as_allocator(sys.argv[1], gpus)
    for gpu in gpus:
        tasks = [gpu.submit(step, gpu, 512) for _ in range(20)]
        values = [task.wait() for task in tasks]
        assert values == [4.0 * 512**3] * 20, values
        stats = gpu.stats()
        assert stats.live_bytes > 0 or stats.peak_bytes > 0, stats
        print(stats.name.decode(), stats.tasks_finished, "tasks, peak", stats.peak_bytes // MIB, "MiB")
    try:
        with torch.cuda.stream(torch.cuda.ExternalStream(gpus[0].stream)):
            torch.empty(600 * MIB, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:
        print("more than the quota is refused:", error)
    # Tensors of a virtual GPU go before it does, and PyTorch keeps some to its end: the process ends with the virtual GPUs open.


main()
