# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the library says of itself while tenants run, and what /proc says of its threads."""
import contextlib
import json
import os
import subprocess
import time

from .machine import BenchError


def listing(bench, arm):
    """What `vgpu list --json` says of an arm's pool."""
    pool = os.path.join(bench.machine.work, "pool" + ("-mps" if bench.machine.arms[arm].mps else ""))
    try:
        output = subprocess.run([bench.machine.vgpu, "list", "--json", "--interval", "0", "--pool", pool], env=bench.machine.env,
                                capture_output=True, check=True, timeout=30).stdout
    except subprocess.SubprocessError as error:
        raise BenchError(f"vgpu list: {error}") from None
    return json.loads(output)


class Looks:
    """An observer of a run: CPU time of the agents over 0.6 of it, and what the library's figures say of that time. The first fifth
    is left out: tenants that have just begun make their agents and fill their queues."""

    def __init__(self, bench, arm, seconds, listed=True):
        self.bench, self.arm, self.seconds, self.listed = bench, arm, seconds, listed
        self.samples, self.figures = [], []     # figures: before and after

    def __call__(self, pids):
        for part in (0.2, 0.6):
            time.sleep(self.seconds * part)
            self.samples.append((time.monotonic(), [agent_ns(pid) for pid in pids]))
            if self.listed:
                self.figures.append(listing(self.bench, self.arm)["vgpus"])

    def quantiles(self, name):
        return quantiles(self.figures[1], name, self.figures[0])

    def agents(self):
        """In percent of a core, of the agents of one tenant, on average and at worst."""
        (begun, before), (ended, after) = self.samples
        used = [100 * (b[0] - a[0]) / 1e9 / (ended - begun) for a, b in zip(before, after)]
        return {"agent_mean_percent": sum(used) / len(used), "agent_worst_percent": max(used), "agents": sum(number for _, number in after)}


def bucket_end_ns(start_ns):
    """There are four buckets to an octave of microseconds, and one for what is below one."""
    return start_ns + 250 * (1 << (start_ns // 1000).bit_length() - 1) if start_ns else 1000


def quantiles(figures, name, before=()):
    """Median and p99 of a histogram that `vgpu list --json` has of every virtual GPU, over all of them together; without what it had
    before."""
    counts = {}
    for sign, listed in ((1, figures), (-1, before)):
        for vgpu in listed:
            for start_ns, count in vgpu.get(name, {}).get("buckets", []):
                counts[start_ns] = counts.get(start_ns, 0) + sign * count
    starts, total = sorted(counts), sum(counts.values())
    found = {}
    for percent in (50, 99) if total else ():
        below = 0
        for start_ns in starts:
            below += counts[start_ns]
            if 100 * below >= percent * total:
                found[f"{name}_p{percent}_us"] = bucket_end_ns(start_ns) / 1e3
                break
    return found


def agent_ns(pid):
    """CPU time of the agent of a process, and how many agents it has."""
    total = count = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            folder = f"/proc/{pid}/task/{task}"
            with open(f"{folder}/comm", encoding="utf-8") as comm:
                if comm.read().strip() != "vgpu-agent":
                    continue
            with open(f"{folder}/schedstat", encoding="utf-8") as schedstat: # nanoseconds, where stat has hundredths of a second
                total += int(schedstat.read().split()[0])
            count += 1
    return total, count
