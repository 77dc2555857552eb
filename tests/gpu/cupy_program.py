# SPDX-License-Identifier: AGPL-3.0-or-later
"""CuPy with its own memory pool (pool) or the driver's stream-ordered one (async)."""
import sys

from check import need, passes, result

cupy = need("cupy")
if sys.argv[1] == "async":
    cupy.cuda.set_allocator(cupy.cuda.MemoryAsyncPool().malloc)

mix = cupy.RawKernel(
    'extern "C" __global__ void mix(unsigned *p, unsigned n) {'
    "    unsigned i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] = (p[i] ^ i) * 2654435761u; }", "mix")
twice = cupy.ElementwiseKernel("float64 x", "float64 y", "y = 2 * x + 1", "twice")

for _ in passes():
    numbers = cupy.arange(1 << 20, dtype=cupy.uint32)
    for _ in range(20):
        mix((numbers.size // 256,), (256,), (numbers, cupy.uint32(numbers.size)))
    result("raw kernel", numbers.get())
    result("sort", cupy.sort(numbers).get())
    result("sum", cupy.asnumpy(numbers.astype(cupy.uint64).sum()))
    x = cupy.sin(cupy.arange(1 << 16, dtype=cupy.float64)).reshape(256, 256)
    result("elementwise", twice(x).get())
    result("product", (x @ x.T).get())
    result("fft", cupy.fft.fft2(x).get())
    with cupy.cuda.Stream(non_blocking=True) as stream:
        parts = [cupy.full(1 << (10 + k % 8), k, dtype=cupy.int64) for k in range(64)]
        total = sum(int(part.sum()) for part in parts)
        stream.synchronize()
    result("allocations", str(total))
    cupy.get_default_memory_pool().free_all_blocks()
