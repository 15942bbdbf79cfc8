"""The short table: the time of each task, beside the usual alternative."""

from __future__ import annotations

from .formats import NOT_MEASURED, duration, markdown, ratio
from .results import OURS, Results, Size

TITLES = ["task", "fastproto", "otherwise", "ratio"]
STEP = "loss, gradient, class means: {C:,} classes, B = {B:,}, D = {D}"
CLUSTERED = "assignment of clustered class means: C = {C:,}, D = {D}"
TASKS: list[tuple[str, str, Size, str, str | None]] = [  # (task, op, size, our provider, peer)
    (STEP, "head_step", {"C": 1_000, "D": 512}, OURS, "softmax"),
    (STEP, "head_step", {"C": 100_000, "D": 512}, OURS, "softmax"),
    (
        "{k} nearest of {C:,} prototypes: {B:,} samples, D = {D}",
        "nearest_prototypes",
        {"C": 100_000, "D": 128},
        OURS,
        "matmul and topk",
    ),
    (CLUSTERED, "assign", {"C": 1_000, "D": 128, "means": "clustered"}, OURS, "lapjv"),
    (CLUSTERED, "assign", {"C": 10_000, "D": 128, "means": "clustered"}, OURS, "lapjv"),
    (CLUSTERED, "assign", {"C": 100_000, "D": 64, "means": "clustered"}, OURS, None),
    (
        "prototypes, best effort: C = {C:,}, D = {D}",
        "estimate_prototypes",
        {"C": 1_000, "D": 64, "objective": "uniform"},
        f"{OURS}, best",
        None,
    ),
]


def short_table(results: Results) -> str:
    """The tasks that were measured, in one thread."""
    lines = []
    for task, op, size, provider, peer in TASKS:
        ours = results.one(op, size, provider)
        if ours is None:
            continue
        other = None if peer is None else results.one(op, ours.size, peer)
        beside = (
            [NOT_MEASURED] * 2 if other is None else [f"{duration(other.median)}, {peer}", ratio(*other.over(ours))]
        )
        lines.append([task.format(**ours.size), duration(ours.median), *beside])
    table = markdown(TITLES, lines) if lines else NOT_MEASURED
    ratios = "ratios are taken within one run, round by round; no ±: fewer than three rounds"
    return f"{table}\n\n{machine_line(results)} One thread; {ratios}."


def machine_line(results: Results) -> str:
    """The machines and versions in a line each."""
    lines = []
    for each in results.machines:
        device = "" if each["device"] == each["processor"] else f", {each['device']}"
        torch = next((part for part in each["versions"].split(", ") if part.startswith("torch ")), "")
        lines.append(f"{each['processor']}{device}, {each['cores']} cores, {each['capability']}, {torch}.")
    return " ".join(dict.fromkeys(lines))
