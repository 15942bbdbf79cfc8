"""Makes the panels of each picture from the results in benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

from lib import initial_assignment as study
from lib.report import losses
from lib.report.assignment import TITLES
from lib.report.gaussian_potential import NAMES
from lib.report.gpu import DIMS, results
from lib.report.pictures import Line, Panel
from lib.report.prototypes import noted
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


def training_step(found: Record) -> list[Panel]:
    """Milliseconds against C: the head over the whole range, its peers where they were measured."""
    first = found["cells"][0]
    alone = [float(cell["C"]) for cell in found["series"]], [1e3 * float(cell["median_s"]) for cell in found["series"]]
    lines = [Line("fastproto", *alone)]
    for key, name in (("authors", "the authors' formula in torch"), ("softmax", "softmax cross-entropy")):
        sizes, seconds = _provider(found["cells"], key)
        lines.append(Line(name, sizes, [1e3 * second for second in seconds]))
    title = f"Loss, gradient and class means, B = {first['B']:,}, D = {first['D']}"
    return [Panel(title, "classes C", "milliseconds", lines, "xy")]


def assignment(found: Record) -> list[Panel]:
    """Seconds of a cold solve against C."""
    lines = [
        Line(f"{TITLES.get(name, name)}: C^{fit['exponent']:.2f}", [float(c) for c in fit["sizes"]], fit["seconds"])
        for name, fit in found.get("exponents", {}).items()
    ]
    title = f"Assignment of clustered class means, D = {found['cells'][0]['D']}"
    return [Panel(title, "classes C", "seconds", lines, "xy")]


def gaussian_potential(found: Record) -> list[Panel]:
    """Seconds of a pass against C at D = 128."""
    cells = [cell for cell in (*found["series"], *found["sizes"]) if cell["D"] == 128]
    lines = [
        Line(name.replace("`", "").replace("W Wᵀ", "W·Wᵀ"), *_provider(cells, key))  # no markup in a picture
        for key, name in NAMES.items()
    ]
    return [Panel("Potential and pull of C points, D = 128", "points C", "seconds", lines, "xy")]


def prototypes(found: Record) -> list[Panel]:
    """The closest pair of 100 prototypes against D beside its bound, and the time of one pass."""
    sharp = [row for row in found["rows"] if row["what"] == "max cosine" and row["classes"] == 100]
    passes = [row for row in found["rows"] if row["what"] == "seconds of a pass"]
    dims = [float(row["dim"]) for row in sharp]
    cosines = [
        Line("reached, objective max_cosine", dims, [row["reached"] for row in sharp]),
        Line("lower bound", dims, [float(noted(row, "bound")) for row in sharp], reference=True),
    ]
    counts, milliseconds = [float(row["classes"]) for row in passes], [1e3 * row["reached"] for row in passes]
    took = Line("D = 64, float32", counts, milliseconds)
    return [
        Panel("Closest pair of 100 prototypes", "dimension D", "max cosine", cosines, "x", ticks=dims),
        Panel("One pass of the search", "prototypes C", "milliseconds", [took], "xy", ticks=counts),
    ]


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


def _provider(cells: list[Record], key: str) -> tuple[list[float], list[float]]:
    """C and seconds where this provider was measured."""
    held = [cell for cell in cells if key in cell["providers"]]
    return [float(cell["C"]) for cell in held], [float(cell["providers"][key]["median_s"]) for cell in held]


PLOTS: dict[str, tuple[str, Callable[[Any], list[Panel]]]] = {  # picture: (its results, what makes its panels)
    "accuracy_by_dimension": ("initial_assignment", accuracy_by_dimension),
    "learning_curves": ("initial_assignment", learning_curves),
    "losses": ("records/losses", losses.by_dimension),
    "training_step": ("head", training_step),
    "assignment": ("assignment", assignment),
    "gaussian_potential": ("gaussian_potential", gaussian_potential),
    "prototypes": ("prototypes", prototypes),
    "gpu_passes": ("gpu", gpu_passes),
}
