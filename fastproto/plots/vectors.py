"""Pictures of unit vectors: their cosines, and the sphere in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastproto.plots.figure import (
    GREY,
    LABELLED,
    PIXELS,
    SKY,
    STYLES,
    VERMILLION,
    Array,
    picture,
    text,
    unit_rows,
)


def draw_cosines(vectors: ArrayLike, names: Sequence[str], out: Path, *, title: str) -> None:
    """Draw the cosines of vectors as a heat map with similar classes side by side, colours from -1 to 1.

    A row without a direction (zero or not finite) has cosine 0 with all; the title counts such rows. Above 1000 classes
    a pixel is the mean of a square of pairs; above 5000, evenly spaced classes are drawn.

    Args:
        vectors: [C, D], of any norm.
        names: one per row; drawn for at most 80 classes.
        out: the picture to write.
        title: of the picture.

    Raises:
        ValueError: ``vectors`` is not a matrix with rows, or ``names`` has another length.
        OSError: the picture cannot be written.
        ImportError: matplotlib is not installed.
    """
    unit, note = unit_rows(vectors, "vectors", names=names)
    named = len(unit) <= 2 * LABELLED
    side = 4.5 + 0.11 * len(unit) if named else 7.5
    with picture(out, side + 1, side + 0.1, title + note) as figure:
        order = _heat(axes := figure.add_subplot(), unit, "classes", 5000, 1.0)
        if named:
            labels = [text(names[i], 24) for i in order]
            axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=9, parse_math=False)
            axes.set_yticks(range(len(order)), labels, fontsize=9, parse_math=False)


def draw_sphere(
    prototypes: ArrayLike, names: Sequence[str] | None, features: ArrayLike | None,
    labels_of_features: ArrayLike | None, out: Path, *, title: str,
) -> None:  # fmt: skip
    """Draw prototypes and the directions of features on the sphere, seen from two opposite sides.

    Rows without a direction (zero or not finite) are left out; the title counts them.

    Args:
        prototypes: [C, 3], of any norm.
        names: one per prototype (None: its row number); drawn for at most 40.
        features: [N, 3], of any norm; None: none.
        labels_of_features: integers [N]: the prototype row of each feature, for its colour and shape (None: grey).
        out: the picture to write.
        title: of the picture.

    Raises:
        ValueError: a shape other than these, or a label outside 0..C-1.
        OSError: the picture cannot be written.
        ImportError: matplotlib is not installed.
    """
    unit, note = unit_rows(prototypes, "prototypes", 3, names)
    points, lost = unit_rows(np.empty((0, 3)) if features is None else features, "features", 3)
    own, kind = np.zeros(len(unit), int), np.full(len(points), -1)  # the STYLES of prototypes and of features
    if labels_of_features is not None:
        labels, own = np.asarray(labels_of_features), np.arange(len(unit)) % len(STYLES)
        if labels.shape != kind.shape or not np.isin(labels, np.arange(len(unit))).all():
            raise ValueError(f"labels have shape {labels.shape}; expected [{len(kind)}], each in 0..{len(unit) - 1}")
        kind = own[labels]
    turn, dot = np.linspace(-np.pi, np.pi, 181), 5 + 6000 / (250 + len(points))
    rings = [(turn, b) for b in np.radians(range(-60, 90, 30))] + [(a, turn) for a in np.radians(range(0, 180, 30))]
    ball = np.array([[np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b) + 0 * turn] for a, b in rings])
    ahead, right = np.array([0.7595, 0.5318, 0.3746]), np.array([-0.5736, 0.8192, 0.0])  # 35 degrees east, 22 north
    with picture(out, 12, 5, title + note + lost) as figure:
        called = names if names is not None else [str(row) for row in range(len(unit))]
        texts = [text(name, 18) for name in called] if len(unit) <= LABELLED else []
        reach, size = 1.25 + 0.05 * max(map(len, texts), default=-2), 70 * min(1, 40 / len(unit)) ** 0.5
        figure.set_figheight(1.0 + 6.4 / reach)
        samples = ", small ones samples in the style of their label's prototype" * (labels_of_features is not None)
        figure.supxlabel(f"Large marks are prototypes{samples}, hollow circles prototypes on the far side", fontsize=10)
        for panel, sign, side in zip(figure.subplots(1, 2), (1, -1), ("one", "the opposite"), strict=True):
            view = np.stack([sign * right, np.cross(ahead, right), sign * ahead])  # what points right, up, at us
            x, y, depth = np.moveaxis(view @ ball, 1, 0)
            panel.fill(np.cos(turn), np.sin(turn), facecolor="#f4f4f4", edgecolor="#b0b0b0")
            panel.plot(np.where(depth >= 0, x, np.nan).T, y.T, color="#c4c4c4", linewidth=0.6)
            dots, marks = points @ view.T, unit @ view.T
            near, front = (dots[:, 2] >= 0) & points.any(1), (marks[:, 2] >= 0) & unit.any(1)
            panel.scatter(*marks[~front & unit.any(1), :2].T, size / 2, "none", edgecolors="#999999")
            for k in np.unique(np.r_[own, kind]):
                hue, shape = STYLES[k] if k >= 0 else (GREY, "o")
                panel.scatter(*dots[near & (kind == k), :2].T, dot, hue, marker=shape, alpha=0.6, lw=0, zorder=3)
                panel.scatter(*marks[front & (own == k), :2].T, size, hue, marker=shape, edgecolors="black", zorder=4)
            panel.set(xlim=(-reach, reach), ylim=(-1.12, 1.12), title=f"Seen from {side} side", aspect=1)
            panel.set_axis_off()
            shown = np.flatnonzero(front)[: len(texts)]
            for edge, half in zip((-1, 1), np.array_split(shown[np.argsort(marks[shown, 0])], 2), strict=True):
                half, steps = half[np.argsort(marks[half, 1])], 0.11 * np.arange(len(half))
                slots = np.maximum.accumulate(marks[half, 1] - steps) + steps  # beside the point, or above the last
                for i, slot in zip(half, np.minimum(slots, 1.1 - steps[::-1]), strict=True):
                    panel.plot([marks[i, 0], 1.1 * edge], [marks[i, 1], slot], color=GREY, linewidth=0.6)
                    style = {"ha": "right" if edge < 0 else "left", "va": "center", "fontsize": min(10, 17 / reach)}
                    panel.text(1.13 * edge, slot, texts[i], parse_math=False, **style)


def draw_prototypes(vectors: ArrayLike, out: Path, *, title: str, bound: float | None) -> None:
    """Draw the histogram of all pairwise cosines of vectors, beside their matrix with similar rows together.

    The matrix has at most 1000 evenly spaced rows, in colours up to the largest |cosine| off its diagonal. For D = 3 a
    second file, ``<stem>-sphere``, is drawn by :func:`draw_sphere`.

    Args:
        vectors: [C, D], of any norm.
        out: the picture to write.
        title: of the picture.
        bound: a lower bound on the largest cosine of C vectors in D dimensions, drawn as a line (None: not drawn).

    Raises:
        ValueError: ``vectors`` is not a matrix with rows.
        OSError: the picture cannot be written.
        ImportError: matplotlib is not installed.
    """
    unit, note = unit_rows(vectors, "vectors")
    with picture(out, 12, 5.6, title + note) as figure:
        cells, block, largest = 200_000, max(1, 4_000_000 // len(unit)), -1.0
        counts = np.zeros(cells + 1, np.int64)
        for start in range(0, len(unit), block):
            tile = unit[start : start + block] @ unit[start:].T  # its pairs i < j: a triangle and a rectangle
            for part in (tile[np.triu_indices(len(tile), 1)], tile[:, len(tile) :].ravel()):
                largest = max(largest, float(part.max(initial=-1)))
                counts += np.bincount(np.clip((part + 1) * (cells / 2), 0, cells).astype(np.intp), minlength=cells + 1)
        pairs, used = int(counts.sum()), np.flatnonzero(counts)
        left, right = figure.subplots(1, 2)
        _heat(right, unit, "prototypes", PIXELS, None)
        right.set_title("Cosine of each prototype with each other one")
        left.set(title=f"Cosines of all {pairs:,} pairs", xlabel="cosine of a pair", ylabel="pairs (log scale)")
        if pairs:
            width = max(100, (used[-1] - used[0]) // min(99, 1 + int(pairs**0.5)))  # of a bar, in cells
            edges = np.clip(np.arange(used[0] - width // 2, used[-1] + width + 1, width), 0, cells) * (2 / cells) - 1
            left.hist(used * (2 / cells) - 1, edges, weights=counts[used], log=True, color=SKY)
            left.axvline(largest, color=VERMILLION, label=f"largest cosine: {largest:.4f}")
            if bound is not None:
                left.axvline(bound, color="black", linestyle="--", label=f"lower bound on it: {bound:.4f}")
            left.set_ylim(0.5)  # a single pair is seen
            left.locator_params(axis="x", nbins=6)
            left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    if unit.shape[1] == 3:
        draw_sphere(unit, None, None, None, out.with_stem(f"{out.stem}-sphere"), title=title)


def _heat(axes: Any, unit: Array, what: str, most: int, limit: float | None) -> Array:
    """Draw the cosines of at most `most` rows, and return their order; limit of the colours: None: largest |cosine|."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    step = -(-min(len(unit), most) // PIXELS)
    count = min(len(unit), most) // step * step  # whole pixels
    some = unit[np.linspace(0, len(unit) - 1, count).astype(int)]
    cosines, order = np.clip(some @ some.T, -1, 1), np.arange(count)
    if count > 2:
        order = leaves_list(linkage(squareform(1 - cosines, checks=False), "average", optimal_ordering=count <= 400))
    scale = limit or float(np.abs(cosines[~np.eye(count, dtype=bool)]).max(initial=0)) or 1.0
    image = cosines[np.ix_(order, order)].reshape(count // step, step, count // step, step).mean((1, 3))
    shown = axes.imshow(image, cmap="RdBu_r", vmin=-scale, vmax=scale, extent=(-0.5, count - 0.5, count - 0.5, -0.5))
    label = "cosine" if step == 1 else f"cosine, mean of {step} x {step} pairs"
    axes.figure.colorbar(shown, ax=axes, shrink=0.8, label=label, extend="max" if scale < 1 else "neither")
    number = f"{len(unit):,}" if count == len(unit) else f"{count:,} of {len(unit):,}"
    where = {"xlabel": f"{number} {what}, similar ones side by side", "ylabel": f"{what}, in the same order"}
    axes.set(xticks=[], yticks=[], **where)  # positions in this order mean nothing
    return np.asarray(order)
