"""docs/renewals.png: class means, prototypes and the assignment between them, before and after renewals of a real run.

The run trains on printed characters with D = 3 and saves every renewal; the picture shows three moments of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.repository import ROOT

Array = NDArray[Any]
SETTINGS = [
    "--data",
    "glyphs",
    "--data.num_classes",
    "36",
    "--head.loss",
    "eq6",
    "--head.dim",
    "3",
    "--head.effort",
    "best",
    "--optim.epochs",
    "60",
]
SAVING = ["--head.save_class_means", "true", "--progress", "false"]
BLUE, VERMILLION = "#0072B2", "#D55E00"  # palette of Okabe and Ito, safe for colour-blind readers
AHEAD, RIGHT = np.array([0.7595, 0.5318, 0.3746]), np.array([-0.5736, 0.8192, 0.0])  # 35 degrees east, 22 north
VIEW = np.stack([RIGHT, np.cross(AHEAD, RIGHT), AHEAD])  # rows: the directions right, up, towards the reader


@dataclass(frozen=True)
class Moment:
    """One panel: unit class means [C, 3], the prototype [C, 3] of each label, whether each label [C] just moved."""

    title: str
    means: Array
    targets: Array
    moved: Array

    def angles(self) -> Array:
        """Degrees [C] between each class mean and the prototype of its label."""
        return np.asarray(np.degrees(np.arccos(np.clip((self.means * self.targets).sum(1), -1, 1))))


def renewals(out: Path = ROOT / "docs" / "renewals.png", extra: Sequence[str] = ()) -> list[Moment]:
    """Trains the run, with ``extra`` arguments of fastproto-train, and draws it."""
    from fastproto.cli.train_command import parse_train
    from fastproto.training import fit
    from fastproto.training.classifier import load_classifier
    from fastproto.training.renewals import read_class_means

    with tempfile.TemporaryDirectory() as folder:
        result = fit(parse_train([*SETTINGS, *extra, *SAVING, "--out", f"{folder}/run"]))
        moments = choose_moments(read_class_means(result.folder))
        names = load_classifier(result.checkpoint).class_names
    draw(moments, [name[0] for name in names], out)
    for moment in moments:
        print(f"{moment.title}: {moment.angles().mean():.0f} degrees to the assigned prototype on average")
    print(f"written to {out}")
    return moments


def choose_moments(saved: Mapping[str, Array]) -> list[Moment]:
    """Before and after the first renewal, and at the last one; ``saved`` is the result of ``read_class_means``."""
    means, prototypes, assignment = saved["class_means"], saved["prototypes"], saved["assignment"]
    count = len(assignment)
    if count < 2:
        raise ValueError(f"the run has {count} renewals; expected at least 2 renewals: train for more epochs")
    unit = means / np.maximum(np.linalg.norm(means, axis=2, keepdims=True), 1e-12)
    still = np.zeros(assignment.shape[1], bool)
    moved = assignment[1] != assignment[0]
    first = "Before the first renewal:\nrandom assignment"
    second = f"The same, after the first renewal:\n{moved.sum()} of {len(moved)} labels moved"
    third = f"After {count - 1} renewals,\none an epoch"
    return [
        Moment(first, unit[0], prototypes[0][assignment[0]], still),
        Moment(second, unit[0], prototypes[1][assignment[1]], moved),
        Moment(third, unit[-1], prototypes[-1][assignment[-1]], still),
    ]


def draw(moments: Sequence[Moment], characters: Sequence[str], out: Path) -> None:
    """Draws the moments side by side: the near half of the sphere, class means as discs, lines to their prototypes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5 * len(moments), 4.6), dpi=140, layout="constrained")
    for panel, moment in zip(np.atleast_1d(figure.subplots(1, len(moments))), moments, strict=True):
        _draw_moment(panel, moment, characters)
    figure.supxlabel(
        "Circles: prototypes, the same in all panels. Discs: class means. Lines: the assignment (red: just moved).\n"
        "The near half of the sphere is shown; lines that end at the rim go on behind it.",
        fontsize=9.5,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, bbox_inches="tight", pad_inches=0.1)


def _draw_moment(panel: Any, moment: Moment, characters: Sequence[str]) -> None:
    turn = np.linspace(-np.pi, np.pi, 181)
    panel.fill(np.cos(turn), np.sin(turn), facecolor="#f5f5f5", edgecolor="#b0b0b0")
    for east, north in [(turn, b) for b in np.radians(range(-60, 90, 30))] + [
        (a, turn) for a in np.radians(range(0, 180, 30))
    ]:
        ring = VIEW @ np.stack([np.cos(east) * np.cos(north), np.sin(east) * np.cos(north), np.sin(north) + 0 * turn])
        panel.plot(np.where(ring[2] >= 0, ring[0], np.nan), ring[1], color="#d9d9d9", linewidth=0.6, zorder=1)
    means, targets = moment.means @ VIEW.T, moment.targets @ VIEW.T
    near = targets[:, 2] >= 0
    panel.scatter(*targets[near, :2].T, 55, "white", edgecolors="black", linewidths=1.1, zorder=3)
    for label, (mean, target, moved) in enumerate(zip(means, targets, moment.moved, strict=True)):
        hue = VERMILLION if moved else BLUE
        x, y = arc(mean, target)
        panel.plot(x, y, color=hue, linewidth=1.4, alpha=0.8, zorder=2)
        if mean[2] >= 0:
            style: dict[str, Any] = {"ha": "center", "va": "center", "size": 9, "weight": "bold", "parse_math": False}
            panel.scatter(*mean[:2], 170, hue, edgecolors="white", linewidths=0.8, zorder=4 + label)
            panel.text(*mean[:2], characters[label], color="white", zorder=4.5 + label, **style)
    panel.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect=1)
    panel.set_title(f"{moment.title}\n{moment.angles().mean():.0f}° to the prototype on average", fontsize=10)
    panel.set_axis_off()


def arc(start: Array, end: Array, points: int = 60) -> tuple[Array, Array]:
    """The great circle between two unit vectors as seen by the reader: x and y [points], NaN behind the sphere."""
    share = np.linspace(0, 1, points)[:, None]
    angle = np.arccos(np.clip(start @ end, -1, 1))
    sine = max(float(np.sin(angle)), 1e-6)
    path = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / sine
    return np.where(path[:, 2] >= 0, path[:, 0], np.nan), np.where(path[:, 2] >= 0, path[:, 1], np.nan)
