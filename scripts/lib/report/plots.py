"""Makes the panels of the pictures that no benchmark draws, from the results in benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

from benchmarks.pages.pictures import Line, Panel
from lib import initial_assignment as study
from lib.report import losses
from lib.report.gpu import DIMS, results
from lib.repository import Record

LABELS = {
    "linear": "linear",
    "fixed": "fixed",
    "prototype": "prototype, random start",
    "prototype, features": "prototype, features",
    "prototype, aligned": "prototype, aligned",
}
GROUPS = ("digits", "glyphs, 200 classes", "glyphs, 1,000 classes")
CURVES = "glyphs, 1,000 classes, D = 16"


def accuracy_by_dimension(rows: list[Record]) -> list[Panel]:
    """Test accuracy against D, one panel per data set."""
    panels = []
    for group in GROUPS:
        sizes = {setting[1]: name for name, setting in study.STUDIES.items() if name.startswith(f"{group}, D")}
        lines = []
        for head, label in LABELS.items():
            runs = {dim: study.measured(rows, name, head) for dim, name in sizes.items()}
            found = {dim: [100 * run["test"] for run in held] for dim, held in runs.items() if held}
            error = [stdev(values) if len(values) > 1 else 0.0 for values in found.values()]
            lines.append(Line(label, [float(dim) for dim in found], [mean(v) for v in found.values()], error))
        dims = [float(dim) for dim in sizes]
        panels.append(Panel(group, "dimension D", "test accuracy, %", lines, ticks=dims, bottom=0.0))
    return panels


def learning_curves(rows: list[Record]) -> list[Panel]:
    """One study over the epochs: accuracy, and the share of labels that each renewal changes."""
    accuracy, moved = [], []
    for head, label in LABELS.items():
        found = study.measured(rows, CURVES, head)
        accuracy.append(_mean_line(label, [[100 * v for v in run["validation_curve"]] for run in found]))
        if head.startswith("prototype"):
            moved.append(_mean_line(label, [[100 * v for v in run["changed"]] for run in found]))
    return [
        Panel(CURVES, "epoch", "validation accuracy, %", accuracy, bottom=0.0),
        Panel("labels that a renewal moves", "renewal", "share of the labels, %", moved, bottom=0.0),
    ]


def _mean_line(name: str, curves: list[list[float]]) -> Line:
    """The mean over the runs, up to the end of the shortest."""
    values = [mean(at) for at in zip(*curves, strict=False)]
    return Line(name, [float(i) for i in range(1, len(values) + 1)], values)


def gpu_passes(found: Record) -> list[Panel]:
    """Milliseconds of a pass on the GPU against D, beside the two products at the measured bfloat16 rate."""
    speed, dims = results(found, "speed"), [float(dim) for dim in DIMS]
    lines = [
        Line(precision, dims, [speed[f"{precision} D={dim}"]["median_ms"] for dim in DIMS])
        for precision in ("medium", "high", "higher")
    ]
    least = [4 * 32768**2 * dim / speed["bf16_gemm_tflops"] / 1e9 for dim in DIMS]
    lines.append(Line("its products at the rate of a bfloat16 product", dims, least, reference=True))
    title = f"A pass over 32,768 points, {results(found, 'machine')['gpu']}"
    return [Panel(title, "dimension D", "milliseconds", lines, "xy", ticks=dims)]


PLOTS: dict[str, tuple[str, Callable[[Any], list[Panel]]]] = {  # picture: (its results, what makes its panels)
    "accuracy_by_dimension": ("initial_assignment", accuracy_by_dimension),
    "learning_curves": ("initial_assignment", learning_curves),
    "losses": ("records/losses", losses.by_dimension),
    "gpu_passes": ("gpu", gpu_passes),
}
