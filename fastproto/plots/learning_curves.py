"""Pictures of the metrics of a run: learning curves, and how many labels each renewal moved."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import numpy as np

from fastproto.plots.figure import BLUE, ORANGE, VERMILLION, picture

Table = dict[str, dict[int, float]]  # column -> row of the file -> the finite number there


def draw_curves(metrics_csv: Path, out: Path) -> None:
    """Draw loss and accuracy by epoch, and the test accuracy as a horizontal line.

    Args:
        metrics_csv: metrics.csv of a run; the last row counts if an epoch was logged twice (a resumed run).
        out: the picture to write.

    Raises:
        ValueError: the file is not a table of metrics.
        OSError: the table cannot be read, or the picture not written.
        ImportError: matplotlib is not installed.
    """
    table = _read(metrics_csv)
    axis = next(name for name in ("epoch", "step", "row") if name in table)
    with picture(out, 11, 5) as figure:
        loss, accuracy = figure.subplots(1, 2)
        accuracy.set_ylim(-2, 102)
        for panel, column, name, colour, line in (
            (loss, "train/loss", "training", ORANGE, "-s"),
            (loss, "val/loss", "validation", BLUE, "-o"),
            (accuracy, "val/accuracy_top1", "validation top-1", BLUE, "-o"),
            (accuracy, "val/accuracy_top5", "validation top-5", BLUE, "--o"),
        ):
            at, values = _series(table, axis, column, 1 if panel is loss else 100)
            if at:
                panel.plot(at, values, line if len(at) <= 40 else line[:-1], color=colour, markersize=4, label=name)
                if panel is loss and max(values) > 20 * min(values) > 0:
                    loss.set_yscale("log")
        for k, dashes in ((1, "-."), (5, ":")):
            for value in _series(table, "row", f"test/accuracy_top{k}", 100)[1][-1:]:
                accuracy.axhline(value, color=VERMILLION, linestyle=dashes, label=f"test top-{k}: {value:.1f} %")
        for panel, what, unit in ((loss, "Loss", f"{loss.get_yscale()} scale"), (accuracy, "Accuracy", "% of samples")):
            panel.set(xlabel=axis, ylabel=f"{what} ({unit})", title=f"{what} by {axis}" + ": none" * (not panel.lines))
            panel.locator_params(axis="x", integer=True, min_n_ticks=1)
            panel.grid(alpha=0.3)
            panel.legend(handles=panel.lines, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


def draw_changed(metrics_csv: Path, out: Path) -> bool:
    """Draw the share of labels that moved at each renewal (the paper's Figure 4b).

    A first renewal that moves more than twice as many labels as each other one is a number at the upper edge.

    Args:
        metrics_csv: metrics.csv of a run.
        out: the picture to write.

    Returns:
        False, and no picture, if there was no renewal.

    Raises:
        ValueError: the file is not a table of metrics.
        OSError: the table cannot be read, or the picture not written.
        ImportError: matplotlib is not installed.
    """
    table, column = _read(metrics_csv), "assignment/changed"
    if column not in table:
        return False
    unit, scale = ("% of labels", 100) if max(table[column].values()) <= 1 else ("number of labels", 1)
    whole = (axis for axis in ("epoch", "step", "row") if len(_series(table, axis, column)[0]) == len(table[column]))
    at, changed = _series(table, axis := next(whole), column, scale)  # by step if an epoch has several
    beyond = len(changed) > 1 and changed[0] > max(10, 2 * max(changed[1:]))
    top = max(10, *changed[beyond:]) if scale == 100 else max(1, *changed[beyond:])
    with picture(out, 8, 4.5) as figure:
        axes = figure.add_subplot(xlabel=f"{axis} of the renewal", ylabel=f"moved ({unit})", ylim=(0, 1.1 * top))
        line = "-o" if len(at) <= 40 else "-"
        axes.plot(at[beyond:], changed[beyond:], line, color=BLUE, markersize=5, clip_on=False)
        if beyond:
            first = f"first renewal: {changed[0]:.0f}" + " %, beyond this axis" * (scale == 100)
            axes.plot(at[0], 1.1 * top, "^", color=VERMILLION, markersize=9, clip_on=False)
            axes.annotate(first, (at[0], 1.1 * top), (12, -14), textcoords="offset points", color=VERMILLION)
        axes.set_title("Labels that moved to another prototype, at each renewal of the assignment")
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    return True


def _read(path: Path) -> Table:
    table: Table = {"row": {}}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row, cells in enumerate(csv.DictReader(file)):
                table["row"][row] = row
                for column, cell in cells.items():
                    with contextlib.suppress(TypeError, ValueError):  # empty, or a row that is being written
                        if np.isfinite(float(cell)):
                            table.setdefault(column, {})[row] = float(cell)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of metrics ({error}); expected the metrics.csv of a run") from error
    return table


def _series(table: Table, axis: str, column: str, scale: float = 1) -> tuple[list[float], list[float]]:
    """Return places along `axis` and the values logged there, in order; the last value of each place."""
    places, values = table.get(axis, {}), table.get(column, {})
    last = {places[row]: scale * value for row, value in values.items() if row in places}
    return sorted(last), [last[place] for place in sorted(last)]
