# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small deterministic training loop. Prints the final loss, and with --seconds the number of steps so far and the time, twice a second."""
import argparse
import os
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
import torch  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=0)
parser.add_argument("--seconds", type=float, default=0)
parser.add_argument("--graph", action="store_true", help="capture one step into a CUDA graph and replay it")
options = parser.parse_args()

torch.use_deterministic_algorithms(True)
torch.manual_seed(1)
model = torch.nn.Sequential(
    torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 10)
).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
inputs = torch.randn(2048, 1024, device="cuda")
labels = torch.randint(10, (2048,), device="cuda")


def step():
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss


if options.graph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()

    def run():
        graph.replay()
        return captured
else:
    run = step

if options.seconds:
    start = said = time.monotonic()
    steps = 0
    while time.monotonic() - start < options.seconds:
        run().item()
        steps += 1
        if time.monotonic() - said >= 0.5:
            said = time.monotonic()
            print("steps", steps, f"{said:.3f}")
else:
    for _ in range(options.steps):
        loss = run()
    print("loss", f"{loss.item():.9e}")
