# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tables, CSV and plots from records, of one call or of many."""
import csv
import glob
import json
import os

from . import plots
from .machine import Machine
from .pieces import PIECES
from .traces import median

def read(folders, name):
    records = []
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, name + ".jsonl"))):
            with open(path, encoding="utf-8") as file:
                records += [json.loads(line) for line in file if line.strip()]
    return records


def cell(records, metric, digits):
    """Median and spread over the rounds."""
    values = [record["metrics"][metric] for record in records if metric in record.get("metrics", {})]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def select(records, case, arm):
    return [record for record in records if record["case"] == case and record["arm"] == arm]


def in_order(records, key):
    return list(dict.fromkeys(record[key] for record in records))


def arms_of(records, labels):
    """In the order in which the arms are defined, other libraries last."""
    known = list(labels)
    return sorted(in_order(records, "arm"), key=lambda arm: known.index(arm) if arm in labels else len(known))


def row(cells):
    return "| " + " | ".join(cells) + " |"


def markdown_table(table, records, labels):
    def label(arm):
        return labels.get(arm, arm)

    cases, arms = in_order(records, "case"), arms_of(records, labels)
    if len(table.metrics) == 1:
        metric = next(iter(table.metrics))
        lines = [row([""] + [label(arm) for arm in arms]), "|" + "---|" * (len(arms) + 1)]
        return lines + [row([case] + [cell(select(records, case, arm), metric, table.digits) for arm in arms]) for case in cases]
    metrics = [metric for metric in table.metrics if any(metric in record.get("metrics", {}) for record in records)]
    lines = [row(["", ""] + [table.metrics[metric] for metric in metrics]), "|" + "---|" * (len(metrics) + 2)]
    for case in cases:
        for arm in arms:
            mine = select(records, case, arm)
            if any(metric in record.get("metrics", {}) for record in mine for metric in metrics):
                lines.append(row([case, label(arm)] + [cell(mine, metric, table.digits) for metric in metrics]))
    return lines


def rounds_of(records):
    counts = [len(select(records, case, arm)) for case in in_order(records, "case") for arm in in_order(records, "arm")]
    counts = [count for count in counts if count]
    least, most = min(counts), max(counts)
    return f"{most} round{'s' if most > 1 else ''}" if least == most else f"{least} to {most} rounds"


def section(piece, records, stamps, labels, pictures):
    lines = [f"## {piece.title}", "", f"Aim: {piece.aim}.", ""]
    for table in piece.tables:
        lines += markdown_table(table, records, labels) + [""]
    machines = in_order([{"machine": stamps.get(record["stamp"], "an unknown machine")} for record in records], "machine")
    lines += [f"{rounds_of(records)}: median [smallest, largest]. {piece.note}".strip(), ""]
    failed = [f"{record['case']}, {labels.get(record['arm'], record['arm'])}: {record['failed']}" for record in records if "failed" in record]
    lines += [f"- {line}" for line in failed] + ([""] if failed else [])
    lines += [f"![{title}]({name})" for title, name in pictures] + ([""] if pictures else [])
    return lines + ["Measured on: " + "; ".join(machines) + ".", ""]


def write_csv(path, records):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stamp", "piece", "case", "arm", "metric", "value"])
        for record in records:
            for metric, value in record.get("metrics", {}).items():
                writer.writerow([record["stamp"], record["piece"], record["case"], record["arm"], metric, repr(value)])


def write(folders):
    """Writes report.md, PIECE.csv and plots into the first folder. 0, or 1 where nothing was measured."""
    out = folders[0]
    stamps = {stamp["stamp"]: stamp["machine"] for stamp in read(folders, "stamps")}
    labels = {"exclusive": "exclusive"} | {arm.key: arm.label for arm in Machine.own_arms("")}
    lines = []
    for name, piece in PIECES.items():
        records = read(folders, name)
        if not records:
            continue
        write_csv(os.path.join(out, name + ".csv"), records)
        pictures = plots.draw(out, name, records, lambda arm: labels.get(arm, arm))
        lines += section(piece, records, stamps, labels, pictures)
    with open(os.path.join(out, "report.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    print(f"{out}/report.md")
    return 0 if lines else 1
