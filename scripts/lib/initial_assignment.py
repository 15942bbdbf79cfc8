"""The effect of the initial assignment: small training runs that differ only in the head's start and schedule."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev

from benchmarks.pages.formats import markdown
from lib.repository import NOT_MEASURED, RESULTS, Record

EARLY = {"initial_assignment": "random", "early_epochs": 2.0, "early_renewals_per_epoch": 5.0}
HEADS: dict[str, Record] = {
    "linear": {"name": "linear"},
    "fixed": {"name": "fixed"},
    "prototype": {"initial_assignment": "random"},
    "prototype, features": {"initial_assignment": "features"},
    "prototype, aligned": {"initial_assignment": "aligned"},
    "fixed, aligned": {"name": "fixed", "initial_assignment": "aligned"},
    "prototype, early": EARLY,
    "prototype, early, turned": EARLY | {"early_alignment": True},
}
COMPARED = tuple(HEADS)[:5]  # the heads of every study; the others were measured in two studies only
# Learning rates tried at seed 0 of each study. The one of the highest validation accuracy is used; heads with
# prototypes use the one found with `prototype`.
RATES = (0.01, 0.005, 0.02)
SEARCHED = ("linear", "prototype")
# name: (data settings, D, epochs, seeds)
STUDIES: dict[str, tuple[Record, int, int, range]] = {
    "digits, D = 2": ({"name": "digits"}, 2, 12, range(5)),
    "digits, D = 3": ({"name": "digits"}, 3, 12, range(5)),
    "digits, D = 5": ({"name": "digits"}, 5, 12, range(5)),
    "glyphs, 200 classes, D = 8": ({"name": "glyphs", "num_classes": 200}, 8, 12, range(3)),
    "glyphs, 200 classes, D = 16": ({"name": "glyphs", "num_classes": 200}, 16, 12, range(3)),
    "glyphs, 1,000 classes, D = 8": ({"name": "glyphs", "num_classes": 1000}, 8, 8, range(3)),
    "glyphs, 1,000 classes, D = 16": ({"name": "glyphs", "num_classes": 1000}, 16, 8, range(3)),
}
Run = tuple[str, str, int, float]  # study, head, seed, learning rate


def initial_assignment(out: Path = RESULTS / "initial_assignment.json") -> list[Record]:
    """Trains the runs that ``out`` lacks, writes ``out`` after each, and prints the table."""
    rows: list[Record] = json.loads(out.read_text()) if out.is_file() else []
    while missing := missing_runs(rows):
        rows.append(train(*missing[0]))
        out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(table(rows))
    return rows


def missing_runs(rows: list[Record]) -> list[Run]:
    """The runs that can be trained now, in order: the search of a study, and once it is complete the study's seeds."""
    done = {(row["study"], row["head"], row["seed"], row["lr"]) for row in rows}
    missing: list[Run] = []
    for study, (_, _, _, seeds) in STUDIES.items():
        search = [run for head in SEARCHED for lr in RATES if (run := (study, head, 0, lr)) not in done]
        missing += search
        for seed in () if search else seeds:
            rates = [(head, chosen_rate(rows, study, head)) for head in COMPARED]
            missing += [run for head, lr in rates if lr and (run := (study, head, seed, lr)) not in done]
    return missing


def chosen_rate(rows: list[Record], study: str, head: str) -> float | None:
    """The tried rate of the highest validation accuracy at seed 0, the first among ties; None if none was tried."""
    searched = "linear" if head == "linear" else "prototype"
    found = {r["lr"]: r["validation"] for r in rows if (r["study"], r["head"], r["seed"]) == (study, searched, 0)}
    tried = [lr for lr in RATES if lr in found]
    return max(tried, key=lambda lr: found[lr], default=None)


def train(study: str, head: str, seed: int, lr: float) -> Record:
    from fastproto.training import TrainConfig, fit  # late, so that tables need no Lightning

    data, dim, epochs, _ = STUDIES[study]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig.from_dict(
            {"data": data, "head": {"dim": dim, "effort": "best", "loss": "eq6", **HEADS[head]}, "seed": seed}
        )
        config.out, config.progress, config.accelerator = str(Path(folder) / "run"), False, "cpu"
        config.optim.epochs, config.optim.lr = epochs, lr
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
        "lr": lr,
        "validation": round(result.validation_accuracy, 6),
        "test": round(result.test_accuracy, 6),
        "validation_curve": column("val/accuracy_top1"),
        "loss_curve": column("train/loss"),
        "changed": column("assignment/changed"),
    }
    reached = f"validation {row['validation']:.4f} test {row['test']:.4f}"
    print(f"{study} | {head} | seed {seed} | lr {lr} | {reached}", flush=True)
    return row


def table(rows: list[Record]) -> str:
    """Accuracy of each head in each study, differences at equal seeds, and the other schedules."""
    parts = [accuracy_table(rows), gains_table(rows), schedules_table(rows)]
    return "\n\n".join(part for part in parts if part)


def accuracy_table(rows: list[Record]) -> str:
    """Validation and test accuracy of each head in each study."""
    lines = []
    for study, (_, _, epochs, seeds) in STUDIES.items():
        rates = [shown_rate(rows, study, head) for head in SEARCHED]
        cells = [accuracies(measured(rows, study, head), len(seeds)) for head in COMPARED]
        lines.append([study, str(epochs), NOT_MEASURED if set(rates) == {NOT_MEASURED} else " / ".join(rates), *cells])
    return markdown(["validation / test, %", "epochs", "rate: linear / prototypes", *COMPARED], lines)


def gains_table(rows: list[Record]) -> str:
    """Differences to ``prototype`` at equal seeds, and the share of labels that a renewal changes."""
    others, lines = [head for head in COMPARED if head != "prototype"], []
    for study in STUDIES:
        base = measured(rows, study, "prototype")
        cells = [difference(measured(rows, study, head), base) for head in others]
        moved = [share_moved(measured(rows, study, head)) for head in COMPARED if head.startswith("prototype")]
        lines.append([study, *cells, NOT_MEASURED if set(moved) == {NOT_MEASURED} else " / ".join(moved)])
    minus = [f"{head} - prototype" for head in others]
    return markdown(["validation, points", *minus, "labels moved at a renewal, %: random / features / aligned"], lines)


def schedules_table(rows: list[Record]) -> str:
    """The heads outside COMPARED; empty if none was measured."""
    lines = []
    for study in STUDIES:
        base = measured(rows, study, "prototype")
        for head in HEADS:
            found = measured(rows, study, head)
            if head not in COMPARED and found:
                lines.append([study, head, accuracies(found, len(found)), difference(found, base)])
    titles = ["other schedules", "head", "validation / test, %", "validation: - prototype, points"]
    return markdown(titles, lines) if lines else ""


def shown_rate(rows: list[Record], study: str, head: str) -> str:
    tried = {row["lr"] for row in rows if (row["study"], row["head"], row["seed"]) == (study, head, 0)}
    return (
        f"{chosen_rate(rows, study, head)}{'' if tried >= set(RATES) else ' (not searched)'}" if tried else NOT_MEASURED
    )


def measured(rows: list[Record], study: str, head: str) -> list[Record]:
    """The runs of a head at the study's learning rate; some seeds may be missing."""
    lr = chosen_rate(rows, study, head)
    return [row for row in rows if (row["study"], row["head"], row["lr"]) == (study, head, lr)]


def accuracies(rows: list[Record], seeds: int) -> str:
    if not rows:
        return NOT_MEASURED
    text = " / ".join(spread([100 * row[key] for row in rows]) for key in ("validation", "test"))
    return text + ("" if len(rows) == seeds else f" ({len(rows)} of {seeds} seeds)")


def difference(rows: list[Record], base: list[Record]) -> str:
    """Mean ± standard deviation of the differences in validation accuracy at common seeds."""
    of_base = {row["seed"]: row["validation"] for row in base}
    gains = [100 * (row["validation"] - of_base[row["seed"]]) for row in rows if row["seed"] in of_base]
    return spread(gains, "+") if gains else NOT_MEASURED


def share_moved(rows: list[Record]) -> str:
    shares = [100 * share for row in rows for share in row["changed"]]
    return f"{mean(shares):.0f}" if shares else NOT_MEASURED


def spread(values: list[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
