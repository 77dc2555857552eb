#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-or-later
"""Records what a PyTorch training allocates, for tests/unit/test_heap_mix.c. Needs a GPU and PyTorch.

    scripts/record-trace.py tests/traces/pytorch-transformer.txt

A small transformer is trained for some steps, with batches of changing length. What its tensors ask of PyTorch's allocator, and when
they let go, becomes one line each: "+BYTES" and "-N", N the number of the allocation, counted from 0.
"""
import sys

import torch

STEPS = 6
HEADER = "# PyTorch {}, {}: {} steps of training a transformer of {} parameters, mixed precision\n"


def train(steps):
    torch.manual_seed(1)
    layer = torch.nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True)
    model = torch.nn.Sequential(torch.nn.Embedding(32000, 1024), torch.nn.TransformerEncoder(layer, 8),
                                torch.nn.Linear(1024, 32000)).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(steps):
        length = 128 + 64 * (step * 5 % 7)
        tokens = torch.randint(32000, (16, length), device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = model(tokens)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr)
    return sum(p.numel() for p in model.parameters())


def main():
    torch.cuda.memory._record_memory_history("all", context=None, max_entries=1000000)
    parameters = train(STEPS)
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(None)
    live, count = {}, 0
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(HEADER.format(torch.__version__, torch.cuda.get_device_name(), STEPS, parameters))
        for entry in trace:
            if entry["action"] == "alloc":
                live[entry["addr"]] = count
                count += 1
                out.write(f"+{entry['size']}\n")
            elif entry["action"] == "free_completed" and entry["addr"] in live:
                out.write(f"-{live.pop(entry['addr'])}\n")
    print(f"{count} allocations", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
