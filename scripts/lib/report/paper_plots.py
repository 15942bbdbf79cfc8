"""The panels of the paper's figures that are made of training runs: accuracy over D, labels that move, learning curves.

Each picture shows the budget that most of its cells were run with, at seed 0. Without runs it has no panels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from benchmarks.pages.pictures import Line, Panel
from lib.report.paper import at_seed_0, by_cell, by_dim, drawn_budget, made_with
from lib.repository import Record
from lib.reproduce.cells import Budget, Cell
from lib.reproduce.tables import CIFAR_TABLE1, TABLE2, TABLES

NAMES = {
    "dynamic": "dynamic",
    "dynamic-power-auto": "dynamic, power auto",
    "fixed": "fixed",
    "psc": "psc (learned unit rows)",
    "linear": "linear",
    "hpn": "hpn",
    "etf": "etf",
}
COMPARED = tuple(dict.fromkeys((*CIFAR_TABLE1, *TABLE2)))


def figure4a(records: list[Record]) -> list[Panel]:
    """Test accuracy over D with renewals and without."""
    cells = [cell for cell in COMPARED if cell.method in ("dynamic", "dynamic-power-auto", "fixed")]
    budget, found = _chosen(cells, records)
    lines = [_over_dims(method, found) for method in ("dynamic", "dynamic-power-auto", "fixed")]
    lines = [line for line in lines if len(line.x) > 1]
    ticks = sorted({x for line in lines for x in line.x})
    return [Panel(_title(budget), "dimension D", "test accuracy, %", lines, "x", ticks=ticks)] if lines else []


def _over_dims(method: str, found: dict[Cell, Record]) -> Line:
    points = sorted((cell.dim, 100 * record["test"]) for cell, record in found.items() if cell.method == method)
    return Line(NAMES[method], [float(dim) for dim, _ in points], [share for _, share in points])


def figure4b(records: list[Record]) -> list[Panel]:
    """Share of labels that the renewals of an epoch move."""
    budget, found = _chosen(TABLES["figure4b"].cells, records)
    lines = [_curve(f"D = {cell.dim}", record, "moved") for cell, record in by_dim(found)]
    lines = [line for line in lines if len(line.x) > 1]
    return [_by_epoch(_title(budget), "labels moved, %", lines)] if lines else []


def curves(dims: tuple[int, ...], records: list[Record]) -> list[Panel]:
    """Validation accuracy by epoch, a panel for each D."""
    cells = [cell for cell in COMPARED if cell.method in NAMES]
    budget, found = _chosen(cells, records)
    if budget is None:
        return []
    return [panel for dim in dims for panel in _curves_of(budget, dim, found)]


def longer(dims: tuple[int, ...], records: list[Record]) -> list[Panel]:
    """The same of each D with the most epochs that it was run for, where these are more than those of the others."""
    cells = [cell for cell in COMPARED if cell.method in NAMES]
    usual, _ = _chosen(cells, records)
    found, kinds = by_cell(records), {cell.kind for cell in cells}
    if usual is None:
        return []
    recipe, epochs, precision = usual
    panels = []
    for dim in dims:
        own = [cell for cell in found if cell.kind in kinds and cell.dim == dim and cell.seed == 0]
        most = max((cell.epochs for cell in own if (cell.recipe, cell.precision) == (recipe, precision)), default=0)
        budget = recipe, most, precision
        panels += _curves_of(budget, dim, at_seed_0(cells, found, budget)) if most > epochs else []
    return panels


def _curves_of(budget: Budget, dim: int, found: dict[Cell, Record]) -> list[Panel]:
    runs = {cell.method: record for cell, record in found.items() if cell.dim == dim}
    lines = [_curve(name, runs[method], "validation") for method, name in NAMES.items() if method in runs]
    lines = [line for line in lines if len(line.x) > 1]
    return [_by_epoch(f"{made_with(budget)}, D = {dim}", "validation accuracy, %", lines)] if lines else []


def _by_epoch(title: str, y: str, lines: list[Line]) -> Panel:
    """Six ticks at most, on whole epochs."""
    last = int(max(x for line in lines for x in line.x))
    step = next(size * 10**power for power in itertools.count() for size in (1, 2, 5) if last <= 6 * size * 10**power)
    return Panel(title, "epoch", y, lines, ticks=[float(x) for x in range(step, last + 1, step)], bottom=0.0)


def _chosen(cells: Iterable[Cell], records: list[Record]) -> tuple[Budget | None, dict[Cell, Record]]:
    cells, found = list(cells), by_cell(records)
    budget = drawn_budget(cells, found)
    return budget, {} if budget is None else at_seed_0(cells, found, budget)


def _curve(name: str, record: Record, key: str) -> Line:
    points = [(float(entry["epoch"] + 1), 100 * entry[key]) for entry in record["curve"] if entry[key] is not None]
    return Line(name, [epoch for epoch, _ in points], [value for _, value in points])


def _title(budget: Budget | None) -> str:
    return f"CIFAR-100, {made_with(budget)}" if budget else "CIFAR-100"


PLOTS: dict[str, tuple[str, Callable[[Any], list[Panel]]]] = {  # picture: (its results, what makes its panels)
    "figure4a": ("records", figure4a),
    "figure4b": ("records", figure4b),
    "curves_d10_d25": ("records", partial(curves, (10, 25))),
    "curves_d50_d100": ("records", partial(curves, (50, 100))),
    "curves_longer": ("records", partial(longer, (10, 25, 50, 100))),
}
CAPTIONS = {
    "figure4a": "CIFAR-100: test accuracy over D with renewals of the assignment and without",
    "figure4b": "CIFAR-100: share of labels that a renewal moves, by epoch",
    "curves_d10_d25": "CIFAR-100: validation accuracy by epoch, D = 10 and 25",
    "curves_d50_d100": "CIFAR-100: validation accuracy by epoch, D = 50 and 100",
    "curves_longer": "CIFAR-100: validation accuracy by epoch, longer trainings",
}


OPTIONAL = ("curves_longer",)
"""Pictures that a page does not miss."""


def pictures(names: tuple[str, ...], records: list[Record]) -> str:
    """Links to the pictures that these records draw; "not run" for one that they do not, or nothing if optional."""
    drawn = {name: bool(PLOTS[name][1](records)) for name in names}
    return "\n\n".join(_linked(name, drawn[name]) for name in names if drawn[name] or name not in OPTIONAL)


def _linked(name: str, drawn: bool) -> str:
    return f"![{CAPTIONS[name]}](pictures/{name}.png)" if drawn else f"{CAPTIONS[name]}: not run."
