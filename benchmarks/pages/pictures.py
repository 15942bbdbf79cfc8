"""Draws pictures. Each PNG holds a digest of its content, so that ``--check`` draws nothing.

A picture is a row of panels with lines.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")  # palette of Okabe and Ito
MARKERS = "osD^vPX"
GREY = "#777777"
DASHES = ("--", "-.", ":")  # of reference lines
STYLE = 1  # part of the digest: raise it when the drawing of the same lines changes
KEY = b"fastproto"  # key of the PNG text chunk that holds the digest
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Line:
    """One line of a panel; ``error`` is half the height of an error bar."""

    name: str
    x: list[float]
    y: list[float]
    error: list[float] | None = None
    reference: bool = False  # a bound or a floor: dashed and grey


@dataclass(frozen=True)
class Points(Line):
    """Points without a line between them."""


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: list[Line]
    log: str = ""  # axes with a logarithmic scale: "", "x", "y" or "xy"
    ticks: list[float] | None = None  # ticks of the x axis
    bottom: float | None = None  # lower limit of the y axis


@dataclass(frozen=True)
class Tall(Panel):
    """A panel with its legend below, which may have more lines than there are colours."""


def digest(panels: list[Panel]) -> str:
    content = _rounded([STYLE, *(asdict(panel) for panel in panels)])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _rounded(content: object) -> object:
    """Numbers to nine digits: the last digits of a mean depend on the Python version."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return float(f"{content:.9g}") if isinstance(content, float) else content


def drawn_from(file: Path) -> str | None:
    """The digest in a picture; None if there is no picture or no digest."""
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
    """Writes the picture; only this function needs matplotlib."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(_base(line) for panel in panels for line in panel.lines if not line.reference))
    tall = len(names) > len(COLOURS) or any(isinstance(panel, Tall) for panel in panels)
    numbers = _numbers(panels, names) if tall else {name: number for number, name in enumerate(names)}
    complete = [i for i, panel in enumerate(panels) if {line.name for line in panel.lines} == set(names)]
    shared = len(panels) > 1 and bool(complete)
    below = max(len(panel.lines) for panel in panels) if tall else 0  # lines of legends below
    figure = Figure(figsize=(6.0 if len(panels) == 1 else 4.2 * len(panels), 3.9 + 0.19 * below), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        _draw_panel(axes, panel, numbers)
        if below:
            axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        elif not shared:
            axes.legend(frameon=False, fontsize=8)
    if shared and not below:  # a panel has all lines
        handles = row[complete[0]].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={KEY.decode(): digest(panels), "Software": None})


def _base(line: Line) -> str:
    """The name without what follows a colon, such as a fitted exponent, which differs from panel to panel."""
    return line.name.partition(":")[0]


def _numbers(panels: list[Panel], names: list[str]) -> dict[str, int]:
    """The number of each line: the same in all panels, and the lowest that no other line of its panels has."""
    shown = [{_base(line) for line in panel.lines} for panel in panels]
    found: dict[str, int] = {}
    for name in names:
        beside = {found.get(other) for panel in shown if name in panel for other in panel}
        found[name] = next(number for number in range(len(names)) if number not in beside)
    return found


def _tick(value: float, _: object = None) -> str:
    return f"{value / 1e6:,.10g}M" if value >= 1e6 else f"{value:,.10g}"


def _draw_panel(axes: Any, panel: Panel, numbers: dict[str, int]) -> None:
    """``numbers``: of the lines of the whole picture, so that a line has the same colour in all panels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, **{f"{axis}scale": "log" for axis in panel.log})
    dashes = itertools.cycle(DASHES if isinstance(panel, Tall) else DASHES[:1])
    for line in panel.lines:
        if line.reference:
            axes.plot(line.x, line.y, next(dashes), color=GREY, label=line.name)
            continue
        number = numbers[_base(line)]
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
        style |= {"linestyle": "none" if isinstance(line, Points) else "-" if number < len(COLOURS) else ":"}
        style["fillstyle"] = "full" if number < len(COLOURS) else "none"
        axes.errorbar(line.x, line.y, yerr=line.error, capsize=3, label=line.name, **style)
    for name in panel.log:
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_data_interval()
        if high < 100 * low:  # powers of ten alone would give a single label
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(_tick)
        axis.set_minor_formatter(NullFormatter())
    if panel.ticks is not None:
        axes.set_xticks(panel.ticks, [_tick(tick) for tick in panel.ticks])
        axes.tick_params(axis="x", which="minor", bottom=False)
    if panel.bottom is not None:
        axes.set_ylim(bottom=panel.bottom)
    axes.grid(alpha=0.3)
