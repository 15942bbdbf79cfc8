"""The table of the README: the time of each task, beside the usual alternative."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, machine, markdown, ratio

TITLES = ["task", "fastproto", "otherwise", "ratio"]


def table(head: Record, assignment: Record, prototypes: Record) -> str:
    rows = [*steps(head), predictions(head), *solves(assignment), *searches(prototypes)]
    return f"{markdown(TITLES, rows)}\n\n{machine(head['machine'])}. Ratios are taken within one run."


def steps(found: Record) -> list[list[str]]:
    rows = []
    for cell in found["cells"]:
        if cell["C"] in (1_000, 100_000):
            task = f"loss, gradient, class means: {cell['C']:,} classes, B = {cell['B']:,}, D = {cell['D']}"
            softmax = cell["providers"].get("softmax")
            rows.append([task, duration(cell["providers"]["ours"]["median_s"]), *beside("softmax", softmax)])
    return rows


def predictions(found: Record) -> list[str]:
    top = found["prediction"]
    task = f"{top['k']} nearest of {top['C']:,} prototypes: {top['B']:,} samples, D = {top['D']}"
    ours, plain = (duration(top["providers"][name]["median_s"]) for name in ("ours", "matmul_topk"))
    return [task, ours, f"{plain}, matmul and topk", ratio(top["speedup"])]


def solves(found: Record) -> list[list[str]]:
    rows = []
    for cell in found["cells"]:
        if cell["kind"] == "clustered" and cell["C"] in (1_000, 10_000):
            task = f"assignment of clustered class means: C = {cell['C']:,}, D = {cell['D']}"
            lapjv = cell["providers"].get("lapjv")
            rows.append([task, duration(cell["providers"]["ours"]["median_s"]), *beside("lapjv", lapjv)])
    for run in found["large"][-1:]:
        task = f"the same: C = {run['C']:,}, D = {run['D']}"
        rows.append([task, duration(run["seconds"]), NOT_MEASURED, NOT_MEASURED])
    return rows


def searches(found: Record) -> list[list[str]]:
    rows = [row for row in found["rows"] if row["what"] == "L_uni" and (row["classes"], row["dim"]) == (1000, 64)]
    return [
        [
            f"prototypes, best effort: C = {row['classes']:,}, D = {row['dim']}",
            duration(row["seconds"]),
            NOT_MEASURED,
            NOT_MEASURED,
        ]
        for row in rows
    ]


def beside(name: str, peer: Record | None) -> list[str]:
    if peer is None:
        return [NOT_MEASURED, NOT_MEASURED]
    return [f"{duration(peer['median_s'])}, {name}", ratio(peer["over_ours"])]
