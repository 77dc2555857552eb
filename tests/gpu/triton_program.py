# SPDX-License-Identifier: AGPL-3.0-or-later
"""Triton: kernels that are compiled here and choose their block sizes by measuring. Small whole numbers, so that all choices agree."""
from check import need, passes, result

torch, triton = need("torch", "triton")
import triton.language as tl  # noqa: E402


@triton.autotune(
    configs=[triton.Config({"M": m, "N": n, "K": k}, num_warps=warps) for m, n, k, warps in
             ((64, 64, 32, 4), (128, 64, 32, 4), (128, 128, 32, 8), (64, 128, 64, 4))],
    key=["size"])
@triton.jit
def product(a, b, c, size, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    inner = tl.arange(0, K)
    total = tl.zeros((M, N), dtype=tl.float32)
    for start in range(0, size, K):
        left = tl.load(a + rows[:, None] * size + (start + inner)[None, :])
        right = tl.load(b + (start + inner)[:, None] * size + columns[None, :])
        total += tl.dot(left, right)
    tl.store(c + rows[:, None] * size + columns[None, :], total)


@triton.jit
def row_sums(x, out, size, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    tl.store(out + row, tl.sum(tl.load(x + row * size + columns, mask=columns < size, other=0.0), axis=0))


size = 1024
for _ in passes():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-8, 9, (size, size), generator=generator).half().cuda() for _ in range(2))
    c = torch.empty(size, size, device="cuda")
    for _ in range(10):
        product[lambda meta: (size // meta["M"], size // meta["N"])](a, b, c, size)
    result("product", c.cpu().numpy())
    if not torch.equal(c.cpu(), (a.double() @ b.double()).float().cpu()):
        raise SystemExit("the product is wrong")
    sums = torch.empty(size, device="cuda")
    row_sums[(size,)](c, sums, size, BLOCK=1024)
    result("row sums", sums.cpu().numpy())
