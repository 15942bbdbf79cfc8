"""The tables of what each integration reaches on digits beside fastproto-train."""

from __future__ import annotations

from math import sqrt
from statistics import mean, stdev

from benchmarks.pages.formats import listed, markdown
from lib.repository import NOT_MEASURED, Record

TRAINER = "trainer"
MLP, TIMM = "mlp", "timm:test_resnet"  # backbones, by the trainer's names
TITLES = {
    (MLP, TRAINER): "`fastproto-train`",
    (MLP, "plain"): "plain loop",
    (MLP, "dl2pa"): "the authors' loop, `compat.dl2pa`",
    (MLP, "dl2pa_same_start"): "the same, from the plain loop's first assignment",
    (MLP, "lightning"): "Lightning",
    (MLP, "lightning_manual"): "Lightning, manual optimisation",
    (MLP, "pml"): "PyTorch Metric Learning",
    (MLP, "transformers"): "Hugging Face Trainer",
    (MLP, "accelerate"): "accelerate",
    (TIMM, TRAINER): f"`fastproto-train --model {TIMM}`",
    (TIMM, "timm"): "plain loop, the same network of timm",
}
SHOWN = 3
"""Seeds of the first table."""
ONLY_LONGER = (MLP, "dl2pa_same_start")
"""What the first table leaves out: it is no integration, and explains one."""
Accuracies = dict[int, float]  # in percent, by seed


def accuracy_table(rows: list[Record]) -> str:
    """Mean, lowest and highest of the seeds, and whether the mean is within the trainer's lowest to highest."""
    lines = []
    for (backbone, name), title in TITLES.items():
        if (backbone, name) == ONLY_LONGER:
            continue
        reached = list(_of(rows, backbone, name, SHOWN).values())
        if not reached:
            lines.append([title, NOT_MEASURED, "", "", ""])
            continue
        trainer = list(_of(rows, backbone, TRAINER, SHOWN).values())
        within = "" if name == TRAINER or not trainer else _within(mean(reached), trainer)
        lines.append([title, *(f"{value:.2f}" for value in (mean(reached), min(reached), max(reached))), within])
    head = ["trained by", "accuracy, %", "lowest", "highest", "mean within the trainer's lowest to highest"]
    return f"{markdown(head, lines)}\n\n{_made_with(rows)}"


def longer_table(rows: list[Record]) -> str:
    """More seeds: mean ± standard deviation, and the difference to the trainer at equal seeds ± its standard error."""
    lines = []
    trainer = _of(rows, MLP, TRAINER)
    for (backbone, name), title in TITLES.items():
        reached = _of(rows, backbone, name)
        if backbone != MLP or len(reached) <= SHOWN:
            continue
        points = [reached[seed] - trainer[seed] for seed in reached if seed in trainer]
        apart = (
            "" if name == TRAINER else f"{round(mean(points), 2) + 0.0:+.2f} ± {stdev(points) / sqrt(len(points)):.2f}"
        )
        values = list(reached.values())
        lines.append([title, str(len(values)), f"{mean(values):.2f} ± {stdev(values):.2f}", apart])
    return markdown(["trained by", "seeds", "accuracy ± deviation, %", "less the trainer ± standard error"], lines)


def _of(rows: list[Record], backbone: str, name: str, seeds: int | None = None) -> Accuracies:
    """All of them, or those of the first seeds."""
    own = [row for row in rows if (row["backbone"], row["integration"]) == (backbone, name)]
    return {row["seed"]: 100 * row["test"] for row in own if seeds is None or row["seed"] < seeds}


def _within(value: float, trainer: list[float]) -> str:
    if value < min(trainer):
        return f"{min(trainer) - value:.2f} below"
    return f"{value - max(trainer):.2f} above" if value > max(trainer) else "yes"


def _made_with(rows: list[Record]) -> str:
    versions: dict[str, str] = {}
    for row in rows:
        versions |= row["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    commits = ", ".join(dict.fromkeys(row["commit"][:12] for row in rows))
    devices = ", ".join(dict.fromkeys(row["device"] for row in rows))
    return listed([f"{named}; {devices}; commit {commits}."])
