# SPDX-License-Identifier: AGPL-3.0-or-later
"""SVG plots by matplotlib; where it is missing there are none, and that is said."""
import os
import re
import sys


def pyplot():
    try:
        import matplotlib
    except ImportError:
        print("bench: no plots, since this Python has no matplotlib", file=sys.stderr)
        return None
    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "vgpu", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt
    return plt


def save(plt, figure, out, name):
    os.makedirs(out, exist_ok=True)
    figure.tight_layout()
    figure.savefig(os.path.join(out, name), metadata={"Date": None})
    plt.close(figure)


def file_name(*parts):
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part.replace("µ", "u")).strip("-") for part in parts) + ".svg"


def first_series(records):
    """By case and arm, what was kept to draw of the first round measured."""
    found = {}
    for record in records:
        if record.get("series"):
            found.setdefault(record["case"], {}).setdefault(record["arm"], record["series"])
    return found


def shares(plt, out, name, records, label):
    """Share over time: one picture a case, one panel an arm."""
    pictures = []
    for case, first in first_series(records).items():
        figure, axes = plt.subplots(1, len(first), figsize=(3.2 * len(first), 2.6), sharey=True, squeeze=False)
        for axis, (arm, series) in zip(axes[0], first.items()):
            times = [i * series["step_s"] for i in range(len(series["shares"]))]
            for tenant, due in enumerate(series["due"]):
                line, = axis.plot(times, [100 * part[tenant] for part in series["shares"]], linewidth=0.9)
                axis.axhline(100 * due, color=line.get_color(), linestyle=":", linewidth=0.8)
            axis.set(title=label(arm), xlabel="s", ylim=(0, 100))
        axes[0][0].set_ylabel("share in 1 s, %")
        figure.suptitle(case)
        pictures.append((f"Share over time, {case}", file_name(name, case)))
        save(plt, figure, out, pictures[-1][1])
    return pictures


def latencies(plt, out, name, records, label):
    """Latency CDF: one picture a case, all arms in it, the tail drawn out."""
    pictures = []
    for case, first in first_series(records).items():
        figure, axis = plt.subplots(figsize=(5, 3.2))
        for arm, series in first.items():
            axis.plot(series["ms"], [100 - percent for percent in series["percent"]], label=label(arm))
        axis.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="requests that take longer, %")
        axis.legend()
        axis.set_title(case)
        pictures.append((f"Latency, {case}", file_name(name, case)))
        save(plt, figure, out, pictures[-1][1])
    return pictures


DRAWN = {"shares": shares, "shares30": shares, "latency": latencies}


def draw(out, name, records, label):
    """The pictures of a piece, as (title, file name)."""
    plt = pyplot() if name in DRAWN else None
    return DRAWN[name](plt, out, name, records, label) if plt else []
