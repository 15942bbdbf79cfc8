"""Draws docs/pictures. Each PNG carries a digest of what it shows, so that ``--check`` needs no drawing.

Every picture is a row of panels with lines; ``plots`` says which lines the results make.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7")  # Okabe and Ito's
MARKERS = "osD^v"
GREY = "#777777"
STYLE = 1  # a part of the digest: raise it when the same lines begin to be drawn otherwise
KEY = b"fastproto"  # of the text in the PNG that holds the digest
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Line:
    """Points that belong together; ``error`` is half of a bar's height."""

    name: str
    x: list[float]
    y: list[float]
    error: list[float] | None = None
    reference: bool = False  # a bound or a floor: dashed and grey


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: list[Line]
    log: str = ""  # axes with a logarithmic scale: "", "x", "y" or "xy"
    ticks: list[float] | None = None  # of x, written as they are
    bottom: float | None = None  # of y


def digest(panels: list[Panel]) -> str:
    content = _rounded([STYLE, *(asdict(panel) for panel in panels)])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _rounded(content: object) -> object:
    """Nine digits of each number: the last ones of a mean depend on the version of Python."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return float(f"{content:.9g}") if isinstance(content, float) else content


def drawn_from(file: Path) -> str | None:
    """The digest that a picture carries; None where there is no such picture."""
    if not file.is_file():
        return None
    for kind, content in _chunks(file.read_bytes()):
        key, _, text = content.partition(b"\0")
        if kind == b"tEXt" and key == KEY:
            return text.decode("latin-1")
    return None


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while png.startswith(SIGNATURE) and at + 12 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def draw(panels: list[Panel], file: Path) -> None:
    """Write the picture; matplotlib is needed for this alone."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines if not line.reference))
    shared = len(panels) > 1 and {line.name for line in panels[0].lines} == set(names)
    figure = Figure(figsize=(6.0 if len(panels) == 1 else 4.2 * len(panels), 3.9), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        _draw_panel(axes, panel, names)
        if not shared:
            axes.legend(frameon=False, fontsize=8)
    if shared:  # the first panel has every line
        figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={KEY.decode(): digest(panels), "Software": None})


def _draw_panel(axes: Any, panel: Panel, names: list[str]) -> None:
    """``names`` are those of the whole picture: a name has one colour in all panels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, **{f"{axis}scale": "log" for axis in panel.log})
    for line in panel.lines:
        if line.reference:
            axes.plot(line.x, line.y, "--", color=GREY, label=line.name)
            continue
        number = names.index(line.name)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        axes.errorbar(line.x, line.y, yerr=line.error, capsize=3, label=line.name, **style)
    for name in panel.log:
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_data_interval()
        if high < 100 * low:  # powers of ten alone would be one label
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_formatter(NullFormatter())
    if panel.ticks is not None:
        axes.set_xticks(panel.ticks, [f"{tick:,.10g}" for tick in panel.ticks])
        axes.tick_params(axis="x", which="minor", bottom=False)
    if panel.bottom is not None:
        axes.set_ylim(bottom=panel.bottom)
    axes.grid(alpha=0.3)
