"""What a run folder says: how far a run has come, and the record of one that has ended."""

from __future__ import annotations

import csv
import json
import math
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from fastproto.training.config_files import read_config
from fastproto.training.resume_rules import PATHS
from lib.repository import Record
from lib.reproduce.cells import Cell
from lib.reproduce.records import FORMAT, commit

Rows = list[dict[str, str]]
# Settings that say where, not what
ELSEWHERE = (
    *("out", "name", "resume", "progress", "accelerator"),
    *("data.root", "data.lists", "data.download", "data.workers"),
)
SHOTS = {"many": (101, None), "medium": (20, 100), "few": (0, 19)}
"""Kinds of classes of a long tail, by the least and the most training images; as Liu et al., CVPR 2019, have them."""
VERSIONS = ("fastproto", "python", "torch", "lightning", "platform")


def rows_of(run: Path) -> Rows:
    """The whole lines of metrics.csv; none where there is no such file."""
    file = run / "metrics.csv"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))


def test_row(rows: Rows) -> dict[str, str] | None:
    """The row of the test, the last thing that a run measures."""
    tested = [row for row in rows if row.get("test/accuracy_top1")]
    return tested[-1] if tested else None


def epochs_done(rows: Rows) -> int:
    return len(_by_epoch(rows, "train/loss"))


def record_of(cell: Cell, run: Path, machine: Path) -> Record | None:
    """The record of a run that has ended; None where it has not.

    Args:
        machine: the file that says what its last start ran on; a run that an earlier version has begun has none.
    """
    rows = rows_of(run)
    tested = test_row(rows)
    if tested is None:
        return None
    facts = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    classes = _classes(run)
    return {
        "format": FORMAT,
        "cell": cell.to_dict(),
        "settings": _settings(run),
        "validation": max(_by_epoch(rows, "val/accuracy_top1").values()),
        "test": float(tested["test/accuracy_top1"]),
        "test_top5": float(tested["test/accuracy_top5"]),
        "seconds": float(tested["seconds"]),
        "seconds_per_epoch": _seconds_per_epoch(rows),
        "curve": _curve(rows),
        "train_images": sum(int(row["train"]) for row in classes) or None,
        "shots": shots(classes),
        "versions": {name: facts[name] for name in VERSIONS},
        "device": facts["device"],
        "machine": json.loads(machine.read_text(encoding="utf-8")) if machine.is_file() else None,
        "commit": commit(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _classes(run: Path) -> Rows:
    """The rows of classes.csv; none of a run that an earlier version has tested."""
    file = run / "classes.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def shots(classes: Rows) -> dict[str, Record]:
    """Mean test accuracy of the classes of each kind in :data:`SHOTS`, and how many they are; none of a kind: no entry.

    Classes without test images are left out.
    """
    found: dict[str, Record] = {}
    for name, (least, most) in SHOTS.items():
        own = [row for row in classes if least <= int(row["train"]) <= (most or math.inf) and row["accuracy_top1"]]
        if own:
            found[name] = {"classes": len(own), "accuracy": mean(float(row["accuracy_top1"]) for row in own)}
    return found


def _settings(run: Path) -> Record:
    """As resolved; of a file its name alone."""
    settings = read_config(run / "config.yaml")
    kept = {key: value for key, value in settings.items() if key not in ELSEWHERE}
    return {key: Path(value).name if key in PATHS and value is not None else value for key, value in kept.items()}


def _curve(rows: Rows) -> list[Record]:
    """By epoch: training loss, validation accuracy, and the mean share of labels that its renewals have moved.

    A renewal between two epochs belongs to the second of them.
    """
    losses, accuracies = _by_epoch(rows, "train/loss"), _by_epoch(rows, "val/accuracy_top1")
    moved: dict[int, list[float]] = {}
    for row in rows:
        if row.get("assignment/changed"):
            moved.setdefault(int(row["epoch"]), []).append(float(row["assignment/changed"]))
    return [
        {
            "epoch": epoch,
            "train_loss": losses[epoch],
            "validation": accuracies[epoch],
            "moved": sum(moved[epoch]) / len(moved[epoch]) if epoch in moved else None,
        }
        for epoch in losses
    ]


def _by_epoch(rows: Rows, column: str) -> dict[int, float]:
    return {int(row["epoch"]): float(row[column]) for row in rows if row.get(column)}


def _seconds_per_epoch(rows: Rows) -> float:
    """The median from one epoch's end to the next; of a run of one epoch, until its end."""
    ends = list(_by_epoch([row for row in rows if row.get("train/loss")], "seconds").values())
    return round(median(b - a for a, b in pairwise(ends)) if len(ends) > 1 else ends[0], 3)
