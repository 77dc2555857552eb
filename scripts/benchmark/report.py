# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables, CSV and plots from records, of one call or of many."""
import csv
import os
import sys

from . import plots
from .core import Bench
from .machine import BenchError, Machine, OnPaper
from .pieces import PIECES
from .rounds import read
from .traces import median


def identity(stamp):
    """What records that stand in one table have in common."""
    seconds = f", runs of {stamp['seconds']:g} s" if stamp.get("seconds") else ""
    return f"{stamp.get('gpu', 'an unknown GPU')}, {stamp.get('version', 'an unknown version')}{seconds}"


def complete(piece, records):
    """Whether every case of a piece, or of its short set, has all the rounds that were wanted of it, and all its arms."""
    simulated = records[0]["gpu"].startswith("simulated")
    cases = {case.name: set(case.arms if case.short is None else case.short) for case in piece.cases(Bench(OnPaper(simulated), ""))}
    rounds, wanted, arms = {}, {}, {}
    for record in records:
        rounds.setdefault(record["case"], set()).add((record["stamp"], record.get("round")))
        wanted[record["case"]] = max(record.get("of", 1), wanted.get(record["case"], 0))
        arms.setdefault(record["case"], set()).add(record["arm"])
    return (all(needed <= arms.get(case, set()) for case, needed in cases.items())
            and all(len(found) >= wanted[case] for case, found in rounds.items()))


def chosen(name, piece, records, stamps, of):
    """Of records of several versions or GPUs, those of the newest that is complete, or of the newest; says which were not chosen. `of`: only
    those with that in their name, or all of them."""
    if of == "all":
        return records
    groups = {}
    for record in sorted(records, key=lambda record: record["stamp"]): # a stamp begins with the time
        stamp = stamps.get(record["stamp"], {})
        key = identity(stamp)
        groups.setdefault(key, []).append(record | {"gpu": stamp.get("gpu", "")})
    fitting = {key: found for key, found in groups.items() if of in key}
    if not fitting:
        return []
    newest_first = sorted(fitting, key=lambda key: fitting[key][-1]["stamp"], reverse=True)
    best = next((key for key in newest_first if complete(piece, fitting[key])), newest_first[0])
    for key in groups:
        if key != best:
            why = "" if complete(piece, groups[key]) else ", which lacks rounds"
            print(f"bench: {name} is reported of {best}; not of {key}{why}", file=sys.stderr)
    return groups[best]


def values_of(records, metric):
    return [record["metrics"][metric] for record in records if metric in record.get("metrics", {})]


def cell(records, metric, digits):
    """Median and spread over the rounds."""
    values = values_of(records, metric)
    if not values:
        return "–"
    # Whole numbers are counts.
    digits = 0 if all(value == int(value) for value in values) else digits
    if min(values) == max(values):
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def in_order(values):
    return list(dict.fromkeys(values))


def select(records, case, arm):
    return [record for record in records if record["case"] == case and record["arm"] == arm]


def row(cells):
    return "| " + " | ".join(cells) + " |"


class Labels:
    """Headings of arms, and the order in which they stand: other libraries last."""

    def __init__(self, own):
        arms = {"exclusive": "exclusive"} | {arm.key: arm.label for arm in Machine.own_arms("")}
        self.order, self.labels = list(arms), arms | own

    def __call__(self, arm):
        return self.labels.get(arm, arm)

    def arms(self, records):
        return sorted(in_order(record["arm"] for record in records),
                      key=lambda arm: self.order.index(arm) if arm in self.order else len(self.order))


def markdown_table(table, records, label):
    cases, arms = in_order(record["case"] for record in records), label.arms(records)
    metrics = [metric for metric in table.metrics if values_of(records, metric)]
    if len(table.metrics) == 1:
        lines = [row([""] + [label(arm) for arm in arms]), "|" + "---|" * (len(arms) + 1)]
        return lines + [row([case] + [cell(select(records, case, arm), metrics[0], table.digits) for arm in arms]) for case in cases]
    lines = [row(["", ""] + [table.metrics[metric] for metric in metrics]), "|" + "---|" * (len(metrics) + 2)]
    for case in cases:
        for arm in arms:
            mine = select(records, case, arm)
            if any(values_of(mine, metric) for metric in metrics):
                lines.append(row([case, label(arm)] + [cell(mine, metric, table.digits) for metric in metrics]))
    return lines


def rounds_of(records):
    counts = {}
    for record in records:
        key = (record["case"], record["arm"])
        counts[key] = counts.get(key, 0) + 1
    least, most = min(counts.values()), max(counts.values())
    return (f"{most} round" if least == most else f"{least} to {most} round") + ("s" if most > 1 else "")


def section(piece, records, stamps, label, pictures):
    lines = [f"Aim: {piece.aim}.", ""]
    measured = [record for record in records if "metrics" in record]
    for table in piece.tables:
        if any(values_of(measured, metric) for metric in table.metrics):
            lines += markdown_table(table, measured, label) + [""]
    if measured:
        machines = in_order(stamps.get(record["stamp"], {}).get("machine", "an unknown machine") for record in measured)
        spread = ": median [smallest, largest]" if rounds_of(measured) != "1 round" else ""
        lines += [f"{rounds_of(measured)}{spread}. {piece.note}".strip(), "", "Measured on " + "; ".join(machines) + ".", ""]
    lines += [f"- {record['case']}, {label(record['arm'])}: {record['failed']}" for record in records if "failed" in record]
    lines += [f"![{title}]({name})" for title, name in pictures]
    return "\n".join(lines).strip()


def write_csv(path, records):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stamp", "piece", "case", "arm", "metric", "value"])
        for record in records:
            for metric, value in record.get("metrics", {}).items():
                writer.writerow([record["stamp"], record["piece"], record["case"], record["arm"], metric, repr(value)])


def put_into(path, sections):
    """Puts sections between <!-- bench NAME --> and <!-- end NAME --> of a page, and leaves the rest as it is."""
    with open(path, encoding="utf-8") as file:
        page = file.read()
    for name, text in sections.items():
        begin, end = f"<!-- bench {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise BenchError(f"{path} has no place for {name}: {begin.strip()} and {end}")
        page = f"{before}{begin}\n{text}\n\n{end}{after}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)


def write(folders, into="", of=""):
    """Writes report.md, CSV and plots into the first folder; or, with `into`, sections and plots to where a page has its place for them.
    `of` names the versions. 0, or 1 where nothing was measured."""
    out = folders[0]
    stamps = {stamp["stamp"]: stamp for stamp in read(folders, "stamps")}
    # Pictures of docs/benchmarks.md are in docs/benchmarks/.
    picture_folder, link = (os.path.splitext(into)[0], os.path.basename(os.path.splitext(into)[0]) + "/") if into else (out, "")
    sections = {}
    for name, piece in PIECES.items():
        records = chosen(name, piece, read(folders, name), stamps, of)
        if records:
            label = Labels(piece.labels)
            pictures = plots.draw(picture_folder, name, records, label)
            sections[name] = section(piece, records, stamps, label, [(title, link + picture) for title, picture in pictures])
            if not into:
                write_csv(os.path.join(out, name + ".csv"), records)
    if not sections:
        print("bench: nothing of that was measured", file=sys.stderr)
        return 1
    if into:
        put_into(into, {name: f"{PIECES[name].title}.\n\n{text}" for name, text in sections.items()})
    else:
        with open(os.path.join(out, "report.md"), "w", encoding="utf-8") as file:
            file.write("\n\n".join(f"## {PIECES[name].title}\n\n{text}" for name, text in sections.items()) + "\n")
    print(into or f"{out}/report.md")
    return 0
