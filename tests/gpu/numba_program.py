# SPDX-License-Identifier: AGPL-3.0-or-later
"""Numba: a kernel with shared memory, written and compiled in Python."""
from check import need, passes, result

numpy = need("numpy")
# Gone from NumPy 2.5, and asked for by numba-cuda when it is loaded.
if not hasattr(numpy, "row_stack"):
    numpy.row_stack = numpy.vstack
numba, cuda = need("numba", "numba.cuda")
if not cuda.is_available():
    print("Numba finds no CUDA here")
    raise SystemExit(77)

float64 = numba.float64


@cuda.jit
def smooth(a, b):
    tile = cuda.shared.array(128, float64)
    i = cuda.grid(1)
    tile[cuda.threadIdx.x] = a[i]
    cuda.syncthreads()
    b[i] = 0.5 * tile[cuda.threadIdx.x] + 0.25 * tile[(cuda.threadIdx.x + 1) % 128] + 0.25 * a[(i + 128) % a.size]


for _pass in passes():
    a = cuda.to_device(numpy.sin(numpy.arange(1 << 18, dtype=numpy.float64)))
    b = cuda.device_array_like(a)
    for _step in range(40):
        smooth[a.size // 128, 128](a, b)
        a, b = b, a
    result("smoothed", a.copy_to_host())
