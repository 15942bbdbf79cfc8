"""What all pictures share: colours, figures that are written as files, names that can be drawn, unit rows."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastproto.support.atomic_files import write_memory

Array = NDArray[Any]
DPI, LABELLED, PIXELS = 150, 40, 1000  # dots an inch; most classes drawn with names; side of the largest heat map
BLUE, ORANGE, SKY, VERMILLION, GREY = "#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#777777"  # Okabe and Ito's
STYLES = [(hue, shape) for shape in "o^sDvPX" for hue in (VERMILLION, BLUE, ORANGE, "#009E73", "#CC79A7", SKY)]


@contextlib.contextmanager
def picture(out: Path, width: float, height: float, title: str = "") -> Iterator[Any]:
    """Yield an empty figure (size in inches), and write it to `out` if no error is raised while it is drawn."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib, which is not installed: pip install 'fastproto[train]'") from error
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(textwrap.fill(text(title, 400), int(9.5 * width)), parse_math=False)
    yield figure
    drawn = io.BytesIO()  # Pillow itself reports no errno on a full disk
    figure.savefig(drawn, format=out.suffix[1:] or "png", dpi=DPI)
    write_memory(out, drawn)


def text(name: str, most: int) -> str:
    """Return the name on one line, cut to `most`; a character without a glyph is dropped or shown as its U+XXXX."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font, name = get_font(findfont(FontProperties())), " ".join(str(name).split())
    spelt = "" if "U+" in name else " U+{:04X} "
    name = " ".join("".join(c if font.get_char_index(ord(c)) else spelt.format(ord(c)) for c in name).split())
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def unit_rows(given: ArrayLike, what: str, width: int = 0, names: Sequence[str] | None = None) -> tuple[Array, str]:
    """Return the rows divided by their norms, rows without a direction as zeros, and a remark that counts these."""
    rows = np.asarray(given, float)
    if rows.ndim != 2 or (width and rows.shape[1] != width) or (not len(rows) and what != "features"):
        raise ValueError(f"{what} of shape {rows.shape} were given: expected [rows, {width or 'D'}], at least one row")
    if names is not None and len(names) != len(rows):
        raise ValueError(f"{len(names)} names were given for {len(rows)} {what}: give one for each row")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    fine = np.isfinite(norms) & (norms > 1e-12)
    unit = (np.where(fine, rows, 0) / np.where(fine, norms, 1)).astype(np.float32)
    return unit, "" if fine.all() else f" ({np.sum(~fine):,} {what} without a direction)"
