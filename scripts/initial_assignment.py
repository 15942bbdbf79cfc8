"""When does the first assignment matter? Small training runs that differ in the head's start and schedule alone."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fastproto.training import TrainConfig, fit

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "initial_assignment.json"
Row = dict[str, Any]

EARLY = {"early_epochs": 2.0, "early_renewals_per_epoch": 5.0}
HEADS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "fixed": {"name": "fixed"},
    "fixed, aligned": {"name": "fixed", "initial_assignment": "aligned"},
    "prototype": {},
    "prototype, features": {"initial_assignment": "features"},
    "prototype, aligned": {"initial_assignment": "aligned"},
    "prototype, early": EARLY,
    "prototype, early, turned": EARLY | {"early_alignment": True},
}
# name: (data settings, D, epochs, seeds, learning rate of linear where it is not the default)
STUDIES: dict[str, tuple[dict[str, Any], int, int, range, float | None]] = {
    "digits, D = 3": ({"name": "digits"}, 3, 12, range(4), None),
    "glyphs, 200 classes, D = 8": ({"name": "glyphs", "num_classes": 200}, 8, 12, range(2), 0.005),
}


def initial_assignment(out: Path = RESULTS) -> list[Row]:
    """Train what ``out`` does not hold yet, seed by seed, and print the table; ``out`` is written after every run."""
    rows: list[Row] = json.loads(out.read_text()) if out.is_file() else []
    done = {(row["study"], row["head"], row["seed"]) for row in rows}
    for study, (_, _, _, seeds, _) in STUDIES.items():
        for seed in seeds:
            for head in HEADS:
                if (study, head, seed) not in done:
                    rows.append(run(study, head, seed))
                    out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(table(rows))
    return rows


def run(study: str, head: str, seed: int) -> Row:
    data, dim, epochs, _, linear_lr = STUDIES[study]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig.from_dict({"data": data, "head": {"dim": dim, **HEADS[head]}, "seed": seed})
        config.out, config.progress, config.accelerator = str(Path(folder) / "run"), False, "cpu"
        config.optim.epochs = epochs
        if head == "linear" and linear_lr is not None:
            config.optim.lr = linear_lr
        result = fit(config)
        with (result.folder / "metrics.csv").open(newline="") as file:
            metrics = list(csv.DictReader(file))

    def column(name: str) -> list[float]:
        return [round(float(row[name]), 4) for row in metrics if row.get(name)]

    row = {
        "study": study,
        "head": head,
        "seed": seed,
        "epochs": epochs,
        "lr": config.optim.lr,
        "validation": result.validation_accuracy,
        "test": result.test_accuracy,
        "validation_curve": column("val/accuracy_top1"),
        "loss_curve": column("train/loss"),
        "changed": column("assignment/changed"),
    }
    print(study, "|", head, "| seed", seed, f"| validation {row['validation']:.4f} test {row['test']:.4f}", flush=True)
    return row


def table(rows: list[Row]) -> str:
    """A row for each head: validation and test accuracy in %, mean ± standard deviation over seeds."""
    titles = ("data", "head", "validation, %", "test, %", "labels moved at a renewal, %", "seeds")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for study in STUDIES:
        for head in HEADS:
            found = [row for row in rows if (row["study"], row["head"]) == (study, head)]
            if not found:
                continue
            moved = [100 * share for row in found for share in row["changed"]]
            cells = [study, head, spread(found, "validation"), spread(found, "test")]
            cells += [f"{mean(moved):.0f}" if moved else "", ", ".join(str(row["seed"]) for row in found)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(rows: list[Row], key: str) -> str:
    values = [100 * row[key] for row in rows]
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
