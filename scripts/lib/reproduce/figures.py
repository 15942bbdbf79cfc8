"""The pictures of tables and figures that are made of training runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages.pictures import draw
from lib.report.paper_plots import PLOTS
from lib.repository import Record

DRAWN = {
    "figure4a": ("figure4a",),
    "figure4b": ("figure4b",),
    "table1": ("curves_d10_d25", "curves_d50_d100", "curves_longer"),
    "table2": ("curves_d10_d25", "curves_d50_d100", "curves_longer"),
}
"""The pictures that show the runs of a table or figure."""


def draw_figures(name: str, records: list[Record], out: Path) -> None:
    """Draw the pictures of a table or figure into ``out``, as far as there are records of them."""
    for picture in DRAWN.get(name, ()):
        panels = PLOTS[picture][1](records)
        if panels:
            draw(panels, out / f"{picture}.png")
            print(f"written to {out / picture}.png")
