"""The metrics.csv of a run that the tests draw."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = [
    *("epoch", "step", "train/loss", "val/loss", "val/accuracy_top1", "val/accuracy_top5"),
    *("test/accuracy_top1", "test/accuracy_top5", "assignment/changed", "lr"),
]


def write_metrics(path: Path, rows: list[dict[str, float]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def run_rows(epochs: int = 5, renewals: int = 1) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        at = {"epoch": epoch, "step": 100 * epoch + 99}
        rows.append({**at, "train/loss": 0.5 / (epoch + 1), "lr": 0.1})
        rows.append({**at, "val/loss": 0.6 / (epoch + 1), "val/accuracy_top1": 0.5, "val/accuracy_top5": 0.8})
        rows += [
            {"epoch": epoch, "step": 100 * epoch + 9 * k, "assignment/changed": 0.9**epoch} for k in range(renewals)
        ]
    return [*rows, {"epoch": epochs, "step": 100 * epochs, "test/accuracy_top1": 0.75, "test/accuracy_top5": 0.9}]
