"""Curves of a run: what was logged is drawn, whatever a run left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastproto import plots

from .metrics import COLUMNS, run_rows, write_metrics
from .pictures import assert_picture


def test_curves_show_what_was_logged(tmp_path: Path, figures: list[Any]) -> None:
    plots.draw_curves(write_metrics(tmp_path / "metrics.csv", run_rows()), tmp_path / "new" / "curves.png")
    assert_picture(tmp_path / "new" / "curves.png")
    loss, accuracy = figures[0].axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    drawn = {line.get_label(): line for line in accuracy.lines}
    assert list(drawn) == [
        "validation top-1",
        "validation top-5",
        "test top-1: 75.0 %",
        "test top-5: 90.0 %",
    ]
    assert list(drawn["validation top-1"].get_xdata()) == [0, 1, 2, 3, 4]
    assert list(drawn["validation top-1"].get_ydata()) == [50] * 5
    assert list(drawn["test top-1: 75.0 %"].get_ydata()) == [75, 75]


@pytest.mark.parametrize("left_out", [COLUMNS[:1], COLUMNS[:2], COLUMNS[3:4] + COLUMNS[6:]])
def test_curves_without_some_columns(tmp_path: Path, left_out: list[str], figures: list[Any]) -> None:
    columns = [name for name in COLUMNS if name not in left_out]
    plots.draw_curves(write_metrics(tmp_path / "metrics.csv", run_rows(), columns), tmp_path / "curves.png")
    assert_picture(tmp_path / "curves.png")
    logged = [name for name in columns if name.startswith(("train", "val", "test"))]
    assert sum(len(panel.lines) for panel in figures[0].axes) == len(logged)


@pytest.mark.parametrize(
    ("text", "points"), [("", []), ("epoch,val/loss\n0,0.4\n1,0.3,7,8\n2\n3,nan\n4,0.2e", [0.4, 0.3])]
)
def test_curves_of_an_empty_or_broken_file(tmp_path: Path, text: str, points: list[float], figures: list[Any]) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    plots.draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert_picture(tmp_path / "curves.png")
    assert [value for line in figures[0].axes[0].lines for value in line.get_ydata()] == points


def test_an_epoch_logged_twice_shows_its_last_value(tmp_path: Path, unrendered: list[Any]) -> None:
    rows = [{"epoch": 0, "val/loss": 3.0}, {"epoch": 1, "val/loss": 2.0}, {"epoch": 1, "val/loss": 1.0}]
    plots.draw_curves(write_metrics(tmp_path / "metrics.csv", rows), tmp_path / "curves.png")
    assert list(unrendered[0].axes[0].lines[0].get_ydata()) == [3, 1]


@pytest.mark.parametrize(("renewals", "axis", "points"), [(1, "epoch", 5), (3, "step", 15)])
def test_changed(tmp_path: Path, renewals: int, axis: str, points: int, figures: list[Any]) -> None:
    table = write_metrics(tmp_path / "metrics.csv", run_rows(renewals=renewals))
    assert plots.draw_changed(table, tmp_path / "changed.png") is True
    assert_picture(tmp_path / "changed.png")
    axes = figures[0].axes[0]
    assert axes.get_xlabel() == f"{axis} of the renewal"
    assert len(axes.lines[0].get_xdata()) == points
    assert axes.lines[0].get_ydata()[0] == 100


def test_changed_by_row_and_as_numbers(tmp_path: Path, unrendered: list[Any]) -> None:
    (tmp_path / "metrics.csv").write_text("assignment/changed\n70\n0\n")
    assert plots.draw_changed(tmp_path / "metrics.csv", tmp_path / "changed.png")
    assert (unrendered[0].axes[0].get_xlabel(), unrendered[0].axes[0].get_ylabel()) == (
        "row of the renewal",
        "moved (number of labels)",
    )
    later, first = unrendered[0].axes[0].lines
    assert list(later.get_ydata()) == [0] and list(first.get_xdata()) == [0]
    assert [text.get_text() for text in unrendered[0].axes[0].texts] == ["first renewal: 70"]


@pytest.mark.parametrize(
    ("shares", "top", "note"),
    [
        ([0.9, 0.2, 0.1], 22, ["first renewal: 90 %, beyond this axis"]),
        ([0.9, 0.0, 0.0], 11, ["first renewal: 90 %, beyond this axis"]),
        ([0.9, 0.5, 0.1], 99, []),
        ([0.0, 0.0, 0.3], 33, []),
        ([0.9], 99, []),
    ],
)
def test_a_first_renewal_beyond_the_others_is_a_note(
    tmp_path: Path, shares: list[float], top: float, note: list[str], unrendered: list[Any]
) -> None:
    rows = [{"epoch": epoch + 1, "assignment/changed": share} for epoch, share in enumerate(shares)]
    assert plots.draw_changed(write_metrics(tmp_path / "metrics.csv", rows), tmp_path / "changed.png")
    axes = unrendered[0].axes[0]
    assert axes.get_ylim() == (0, pytest.approx(top)) and [text.get_text() for text in axes.texts] == note
    drawn = axes.lines[0]
    np.testing.assert_allclose(drawn.get_ydata(), 100 * np.array(shares[bool(note) :]))
    assert list(drawn.get_xdata()) == list(range(1 + bool(note), len(shares) + 1))
    if note:  # the mark is at the first renewal, on the upper edge
        assert (axes.lines[1].get_xdata()[0], axes.lines[1].get_ydata()[0]) == (1, pytest.approx(top))


def test_no_renewal_writes_nothing(tmp_path: Path) -> None:
    table = write_metrics(tmp_path / "metrics.csv", run_rows(renewals=0))
    assert plots.draw_changed(table, tmp_path / "changed.png") is False
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]
