"""Pictures of a run and of prototypes, drawn by matplotlib without a display.

A picture is written under another name in its folder, then renamed: a file is whole or absent. The suffix of `out`
chooses the format (none: PNG). Only matplotlib's object API is used, and the first picture imports it, not this module.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
Table = dict[str, dict[int, float]]  # column -> row of the file -> the finite number there
DPI, LABELLED, PIXELS = 150, 40, 1000  # dots an inch; most classes drawn with names; side of the largest heat map
BLUE, ORANGE, SKY, VERMILLION, GREY = "#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#777777"  # Okabe and Ito's
STYLES = [(hue, shape) for shape in "o^sDvPX" for hue in (VERMILLION, BLUE, ORANGE, "#009E73", "#CC79A7", SKY)]


def draw_curves(metrics_csv: Path, out: Path) -> None:
    """Draw loss and accuracy (fractions in the file) by epoch; what the run did not log is left out.

    An epoch logged twice (a resumed run) shows its last value. Test accuracy is a horizontal mark.
    """
    table = _read(metrics_csv)
    axis = "epoch" if "epoch" in table else "step"
    figure = _figure(11, 5)
    loss, accuracy = figure.subplots(1, 2)
    for panel, column, name, colour, line in (
        (loss, "train/loss", "training", ORANGE, "-s"),
        (loss, "val/loss", "validation", BLUE, "-o"),
        (accuracy, "train/accuracy_top1", "training top-1", ORANGE, "-s"),
        (accuracy, "val/accuracy_top1", "validation top-1", BLUE, "-o"),
        (accuracy, "val/accuracy_top5", "validation top-5", BLUE, "--o"),
    ):
        at, values = _series(table, axis, column, 1 if panel is loss else 100)
        if at:
            panel.plot(at, values, line if len(at) <= 40 else line[:-1], color=colour, markersize=4, label=name)
            if panel is loss and max(values) > 20 * min(values) > 0:
                loss.set_yscale("log")
    for k, dashes in ((1, "-."), (5, ":")):
        for value in _series(table, "", f"test/accuracy_top{k}", 100)[1][-1:]:
            accuracy.axhline(value, color=VERMILLION, linestyle=dashes, label=f"test top-{k}: {value:.1f} %")
    loss.set(title="Loss", ylabel=f"loss ({loss.get_yscale()} scale)")
    accuracy.set(title="Accuracy", ylabel="accuracy (% of samples)")
    for panel in (loss, accuracy):
        _count_along(panel, axis)
        if panel.lines:
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
        else:
            panel.text(0.5, 0.5, "not logged by this run", transform=panel.transAxes, ha="center", color=GREY)
    _save(figure, out)


def draw_changed(metrics_csv: Path, out: Path) -> bool:
    """Draw the share of labels that changed prototype at each renewal (the paper's Figure 4b); False: no renewal.

    By epoch where no epoch has two renewals, else by step. Shares are fractions; values above 1 are numbers of labels.
    """
    table, column = _read(metrics_csv), "assignment/changed"
    if column not in table:
        return False
    whole = [axis for axis in ("epoch", "step") if len(_series(table, axis, column)[0]) == len(table[column])]
    share = max(table[column].values()) <= 1
    at, changed = _series(table, [*whole, ""][0], column, 100 if share else 1)
    figure = _figure(8, 4.5)
    axes = figure.add_subplot()
    axes.plot(at, changed, "-o" if len(at) <= 40 else "-", color=BLUE, markersize=4)
    axes.set(ylabel="changed (% of labels)" if share else "changed (labels)", ylim=(0, 1.06 * max(*changed, 1)))
    axes.set_title("Labels whose prototype changed at each renewal of the assignment")
    _count_along(axes, [*whole, "renewal"][0])
    _save(figure, out)
    return True


def draw_cosines(vectors: ArrayLike, names: Sequence[str], out: Path, *, title: str) -> None:
    """Draw the cosines of vectors [C, D] as a heat map with similar classes side by side, colours from -1 to 1.

    A row without a direction (zero or not finite) has cosine 0 with all; the title counts such rows. Names show up to
    40 classes; above 1000 a pixel is the mean of a square of pairs; above 5000 evenly spaced classes are drawn.
    """
    unit, note = _unit(vectors, "vectors", names=names)
    side = 7.5 if len(unit) > LABELLED else 4.5 + 0.1 * len(unit)
    figure = _figure(side + 1, side + 0.4, title + note)
    axes = figure.add_subplot()
    order = _heat(axes, unit, "classes", 5000, 1.0)
    if len(unit) <= LABELLED:
        labels = [_text(names[i], 24) for i in order]
        axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(len(order)), labels, fontsize=8, parse_math=False)
    _save(figure, out)


def draw_sphere(
    prototypes: ArrayLike,
    names: Sequence[str] | None,
    features: ArrayLike | None,
    labels_of_features: ArrayLike | None,
    out: Path,
    *,
    title: str,
) -> None:
    """Draw prototypes [C, 3] and the directions of features [N, 3] on the sphere, seen from two opposite sides.

    names: one for each prototype row (None: its number). labels_of_features [N]: the prototype row that each feature
    belongs to, which gives it colour and shape (None: grey). Rows without a direction are left out and counted.
    """
    unit, note = _unit(prototypes, "prototypes", 3, names)
    points, lost = _unit(np.empty((0, 3)) if features is None else features, "features", 3)
    labels = None if labels_of_features is None else np.asarray(labels_of_features)
    if labels is not None and (labels.shape != points.shape[:1] or ((labels < 0) | (labels >= len(unit))).any()):
        raise ValueError(f"labels_of_features must hold, for {len(points)} features, rows of {len(unit)} prototypes")
    figure = _figure(11, 6, title + note + lost)
    _sphere(figure.subplots(1, 2), unit, names, points, labels)
    _save(figure, out)


def draw_prototypes(vectors: ArrayLike, out: Path, *, title: str, bound: float | None) -> None:
    """Draw the histogram of all pairwise cosines of vectors [C, D], beside their matrix with similar rows together.

    bound: a lower bound on the largest cosine of any C vectors in D dimensions, marked beside the largest one found.
    The matrix shows at most 1000 evenly spaced rows, in colours scaled to the largest |cosine| off its diagonal. In
    three dimensions the sphere is drawn below, in the same file.
    """
    unit, note = _unit(vectors, "vectors")
    rows = 2 if unit.shape[1] == 3 else 1
    figure = _figure(12, 6 * rows, title + note)
    panels = figure.subplots(rows, 2, squeeze=False)
    _histogram(panels[0, 0], unit, bound)
    _heat(panels[0, 1], unit, "prototypes", PIXELS, None)
    if rows == 2:
        _sphere(panels[1], unit, None, np.empty((0, 3)), None)
    _save(figure, out)


def _histogram(axes: Axes, unit: Array, bound: float | None) -> None:
    cells, block, largest = 200_000, max(1, 4_000_000 // len(unit)), -1.0
    counts = np.zeros(cells + 1, np.int64)
    for start in range(0, len(unit), block):
        tile = unit[start : start + block] @ unit[start:].T  # the pairs i < j of these rows: a triangle, a rectangle
        for cosines in (tile[np.triu_indices(len(tile), 1)], tile[:, len(tile) :].ravel()):
            largest = max(largest, float(cosines.max(initial=-1)))
            counts += np.bincount(np.clip((cosines + 1) * (cells / 2), 0, cells).astype(np.intp), minlength=cells + 1)
    used = np.flatnonzero(counts)
    low, high = (used[[0, -1]] + [-0.5, 0.5]) * (2 / cells) - 1 if len(used) else (-1.0, 1.0)
    bars = np.linspace(low, high, 2 + min(98, int((high - low) * cells) // 50))
    if len(used):
        axes.hist(used * (2 / cells) - 1, bars, weights=counts[used], color=SKY, log=True)
        axes.axvline(largest, color=VERMILLION, label=f"largest cosine: {largest:.4f}")
    if bound is not None:
        axes.axvline(bound, color="black", linestyle="--", label=f"lower bound on it: {bound:.4f}")
    ...
    axes.set(title=f"Cosines of all {counts.sum():,} pairs", xlabel="cosine of a pair", ylabel="pairs (log scale)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)


def _heat(axes: Axes, unit: Array, what: str, most: int, limit: float | None) -> Array:
    """Draw the cosines of at most `most` rows in an order of similarity, returned; limit None: the largest |cosine|."""
    from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped, unused-ignore]
    from scipy.spatial.distance import squareform  # type: ignore[import-untyped, unused-ignore]

    step = -(-min(len(unit), most) // PIXELS)
    count = min(len(unit), most) // step * step  # whole pixels
    some = unit[np.linspace(0, len(unit) - 1, count).astype(int)]
    cosines, order = np.clip(some @ some.T, -1, 1), np.arange(count)
    if count > 2:
        tree = linkage(squareform(1 - cosines, checks=False), "average", optimal_ordering=count <= 400)
        order = np.asarray(leaves_list(tree))
    scale = limit or float(np.abs(cosines[~np.eye(count, dtype=bool)]).max(initial=0)) or 1.0
    image = cosines[np.ix_(order, order)].reshape(count // step, step, count // step, step).mean((1, 3))
    extent = (-0.5, count - 0.5, count - 0.5, -0.5)
    shown = axes.imshow(image, cmap="RdBu_r", vmin=-scale, vmax=scale, extent=extent)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8, extend="max" if scale < 1 else "neither")
    bar.set_label("cosine" if step == 1 else f"cosine, mean of {step} x {step} pairs")
    for (i, j), value in np.ndenumerate(image if count <= 12 else image[:0]):
        ink = "white" if abs(value) > 0.6 * scale else "black"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    number = f"{len(unit):,}" if count == len(unit) else f"{count:,} of {len(unit):,}"
    axes.set(title=f"Cosines of {number} {what}", xlabel=f"{what}, similar ones side by side", ylabel=what)
    return order


def _sphere(panels: Array, unit: Array, names: Sequence[str] | None, points: Array, labels: Array | None) -> None:
    """Draw two orthographic views from opposite sides: what lies behind in one is in front in the other."""
    size = 70.0 if len(unit) <= LABELLED else max(5.0, 2800 / len(unit))
    own = np.zeros(len(unit), int) if labels is None else np.arange(len(unit)) % len(STYLES)
    kind = np.full(len(points), -1) if labels is None else own[labels]
    turn, (across, up) = np.linspace(0, 2 * np.pi, 181)[:, None], np.meshgrid(*[np.linspace(-1, 1, 401)] * 2)
    shade = np.where(across**2 + up**2 <= 1, 0.8 * across - 0.6 * up, np.nan)
    east, north, pole = np.eye(3)
    rings = [np.cos(b) * (np.cos(turn) * east + np.sin(turn) * north) + np.sin(b) * pole for b in ...]
    view = np.array([[-0.574, 0.819, 0.0], [...]])
