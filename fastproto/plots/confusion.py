"""The picture of a classifier's confusions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fastproto.plots.figure import LABELLED, PIXELS, picture, text

if TYPE_CHECKING:
    from scipy.sparse import sparray


def draw_confusion(counts: ArrayLike | sparray, names: Sequence[str], out: Path, *, title: str) -> None:
    """Draw which classes are predicted for each class, as shares of its samples: a heat map from 0 to 1.

    A class without samples is a row of zeros. Above 1000 classes a pixel is the mean of a square of pairs.

    Args:
        counts: [C, C], samples by class (row) and predicted class (column), or a sparse array of SciPy: with these no
            array of that size is made.
        names: one per class; drawn for at most 40 classes, with the shares in per cent for at most 12.
        out: the picture to write.
        title: of the picture.

    Raises:
        ValueError: ``counts`` is not a square matrix, or ``names`` has another length.
        OSError: the picture cannot be written.
        ImportError: matplotlib is not installed.
    """
    from scipy.sparse import coo_array, sparray

    table = counts if isinstance(counts, sparray) else np.asarray(counts)
    if table.shape != (len(names), len(names)) or not len(names):
        raise ValueError(f"counts of shape {table.shape} and {len(names)} names were given: expected [C, C] and C")
    found, count, step = coo_array(table, dtype=float), len(names), -(-len(names) // PIXELS)
    share = found.data / np.maximum(found.sum(1), 1)[found.row]
    squares, side = (found.row // step, found.col // step), -(-count // step)
    image = coo_array((share / step**2, squares), shape=(side, side)).toarray()  # adds up the pairs of a square
    size = 4.5 + 0.15 * count if count <= LABELLED else 7.5
    with picture(out, size + 1, size + 0.1, title) as figure:
        axes = figure.add_subplot(xlabel="predicted class", ylabel="class")
        shown = axes.imshow(image, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, count - 0.5, count - 0.5, -0.5))
        label = "share of the class" if step == 1 else f"share of the class, mean of {step} x {step} pairs"
        figure.colorbar(shown, ax=axes, shrink=0.8, label=label)
        if count <= LABELLED:
            labels = [text(name, 24) for name in names]
            axes.set_xticks(range(count), labels, rotation=90, fontsize=9, parse_math=False)
            axes.set_yticks(range(count), labels, fontsize=9, parse_math=False)
        for row, column in np.argwhere(image > 0) if count <= 12 else ():  # a square is one pair here
            colour = "white" if image[row, column] > 0.5 else "black"
            part = f"{100 * image[row, column]:.0f}"
            axes.text(column, row, part, ha="center", va="center", color=colour, fontsize=9)
