# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the GPU did, from the first and last moment of every kernel of every tenant.

A trace holds the kernels of one tenant, one after the other, in nanoseconds of the GPU's clock, which all processes share. Work is counted
in kernels, and a kernel counts in a window by the part of it that lies there; its cost is its period when it has the GPU to itself.
"""
import array
import bisect
import heapq
import math


def read_numbers(path):
    """A file of 64-bit numbers."""
    values = array.array("Q")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values


class Trace:
    """The kernels of one tenant: begins and ends, each ascending."""

    def __init__(self, begins, ends):
        self.begins, self.ends = begins, ends

    @classmethod
    def read(cls, path):
        values = read_numbers(path)
        return cls(values[0::2], values[1::2])

    def __len__(self):
        return len(self.begins)

    def kernels(self, start, stop):
        """Kernels run between two moments, with fractions of those that lie across the edges."""
        first, last = bisect.bisect_right(self.ends, start), bisect.bisect_left(self.begins, stop)
        count = float(max(0, last - first))
        for i in {first, last - 1} if last > first else ():
            length = max(1, self.ends[i] - self.begins[i])
            count -= (max(0, start - self.begins[i]) + max(0, self.ends[i] - stop)) / length
        return count

    def period_ns(self):
        """From one kernel to the next, on average, of a tenant that was alone; the first quarter is left out, in which clocks rise."""
        skip = len(self) // 4
        return (self.begins[-1] - self.begins[skip]) / (len(self) - 1 - skip)

    def duration_ns(self):
        """Of an undisturbed kernel: the first decile."""
        lengths = sorted(end - begin for begin, end in zip(self.begins, self.ends))
        return lengths[len(lengths) // 10]


def common_window(traces, lead_ns, tail_ns):
    """When all were at work, without the time in which they settle."""
    start = max(trace.begins[0] for trace in traces) + lead_ns
    stop = min(trace.ends[-1] for trace in traces) - tail_ns
    if stop <= start:
        raise ValueError("the tenants did not run side by side for long enough")
    return start, stop


def work_in(traces, periods_ns, start, stop):
    """What each did, in seconds of a GPU of its own."""
    return [trace.kernels(start, stop) * period / 1e9 for trace, period in zip(traces, periods_ns)]


def shares_in(traces, periods_ns, start, stop):
    work = work_in(traces, periods_ns, start, stop)
    return [part / sum(work) for part in work] if sum(work) > 0 else [0.0] * len(work)


def windows(start, stop, length, step):
    """Every window of a length that fits, a step after the other; the whole if none does."""
    if stop - start < length:
        return [(start, stop)]
    return [(at, at + length) for at in range(start, stop - length + 1, step)]


def share_error(shares, due):
    """The largest difference of a tenant's share from what is due to it, in points."""
    return max(abs(share - part) for share, part in zip(shares, due)) * 100


def jain(shares, due):
    """Jain's index of fairness of shares in relation to weights: 1 where all get what is due.

    R. Jain, D. Chiu, W. Hawe, "A quantitative measure of fairness and discrimination for resource allocation in shared computer systems",
    DEC Research Report TR-301, 1984.
    """
    parts = [share / part for share, part in zip(shares, due)]
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else 0.0


class Turns:
    """Who had the GPU when: a turn is an unbroken row of one tenant's kernels, a gap what lies between the last kernel of one and the
    first of another. `overlap` is the part of the time in which kernels of several ran at once; above zero the rest means little."""

    def __init__(self, traces, start, stop):
        self.lengths_ns = [[] for _ in traces]
        self.gaps_ns = []
        overlap_ns, holder, begun, last_end = 0, None, 0, 0
        for begin, end, tenant in heapq.merge(*(self._kernels(i, trace, start, stop) for i, trace in enumerate(traces))):
            if tenant != holder:
                if holder is not None:
                    self.lengths_ns[holder].append(last_end - begun)
                    self.gaps_ns.append(begin - last_end)
                holder, begun = tenant, begin
            if begin < last_end:
                overlap_ns += min(last_end, end) - begin
            last_end = max(last_end, end)
        self.overlap = overlap_ns / (stop - start)
        self.gaps_ns.sort()

    @staticmethod
    def _kernels(tenant, trace, start, stop):
        first, last = bisect.bisect_left(trace.begins, start), bisect.bisect_left(trace.begins, stop)
        for i in range(first, last):
            yield trace.begins[i], trace.ends[i], tenant

    def shares(self):
        total = sum(map(sum, self.lengths_ns))
        return [sum(lengths) / total if total else 0.0 for lengths in self.lengths_ns]


def recovery_ns(donor, survivor, period_ns, idle_ns, look_ns):
    """For each pause of the donor of at least idle_ns: from its last kernel's end to the moment from which the survivor runs, for look_ns,
    at 99 % of the rate it has alone. A pause in which it never does counts as the whole pause."""
    found = []
    for i in range(len(donor) - 1):
        end, resumed = donor.ends[i], donor.begins[i + 1]
        if resumed - end < idle_ns or survivor.ends[-1] < resumed:
            continue
        first = bisect.bisect_left(survivor.begins, end)
        at = end
        while at + look_ns < resumed:
            if survivor.kernels(at, at + look_ns) * period_ns >= 0.99 * look_ns:
                break
            at, first = survivor.begins[first], first + 1
        found.append(at - end if at + look_ns < resumed else resumed - end)
    return sorted(found)


def percentile(ascending, percent):
    """The smallest value that so many percent of the values do not exceed."""
    if not ascending:
        return 0
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def median(values):
    ascending = sorted(values)
    middle = len(ascending) // 2
    return ascending[middle] if len(ascending) % 2 else (ascending[middle - 1] + ascending[middle]) / 2
