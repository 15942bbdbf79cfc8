"""Pictures of prototypes and class means: cosines, the sphere, every pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastproto import plots
from fastproto.plots.figure import DPI

from .pictures import assert_picture

ODD_NAMES = ["$a_1", "$\\frac$", "А U+0410", "一 U+4E00", "金魚", "", "_x", "a\nb", "\ud800", "x" * 99, "%s {0}"]


@pytest.mark.parametrize(("count", "named"), [(1, True), (80, True), (81, False), (1003, False)])
def test_cosines(tmp_path: Path, count: int, named: bool, figures: list[Any]) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 16))
    plots.draw_cosines(vectors, [f"class {i}" for i in range(count)], tmp_path / "cosines.png", title="cosines")
    assert_picture(tmp_path / "cosines.png")
    axes = figures[0].axes[0]
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == (count if named else 0)


def test_cosines_put_similar_classes_together(tmp_path: Path, unrendered: list[Any]) -> None:
    vectors = np.eye(2)[[0, 1, 0, 1, 0]] + 0.01 * np.random.default_rng(0).normal(size=(5, 2))
    plots.draw_cosines(vectors, list("abcde"), tmp_path / "cosines.png", title="cosines")
    order = "".join(label.get_text() for label in unrendered[0].axes[0].get_yticklabels())
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset("ace"), frozenset("bd")} or {
        frozenset(order[:2]), frozenset(order[2:])} == {frozenset("ace"), frozenset("bd")}  # fmt: skip
    image = unrendered[0].axes[0].images[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = ["abcde".index(letter) for letter in order]
    np.testing.assert_allclose(image.get_array(), (unit @ unit.T)[np.ix_(rows, rows)], atol=1e-6)
    assert image.get_clim() == (-1, 1)
    assert unrendered[0].axes[0].get_title() == "" and unrendered[0].get_suptitle() == "cosines"  # one title
    assert unrendered[0].axes[0].get_xlabel() == "5 classes, similar ones side by side"


def test_rows_without_a_direction(tmp_path: Path, figures: list[Any]) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    vectors[[0, 1, 4]] = [[0.0], [np.nan], [np.inf]]
    plots.draw_sphere(vectors, None, vectors, np.arange(6), tmp_path / "sphere.png", title="sphere")
    assert "3 prototypes without a direction" in figures[0].get_suptitle()
    assert "3 features without a direction" in figures[0].get_suptitle()
    plots.draw_cosines(np.zeros((6, 4)), list("abcdef"), tmp_path / "cosines.png", title="means")
    plots.draw_prototypes(np.c_[vectors, np.ones(6)], tmp_path / "prototypes.png", title="some", bound=None)
    assert sum(bar.get_height() for bar in figures[2].axes[0].patches) == 15
    for name in ("cosines", "sphere", "prototypes"):
        assert_picture(tmp_path / f"{name}.png")


def test_odd_names(tmp_path: Path, figures: list[Any]) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(ODD_NAMES), 3))
    plots.draw_cosines(vectors, ODD_NAMES, tmp_path / "cosines.png", title="of $x_1 and 漢 " + 30 * "long ")
    plots.draw_sphere(vectors, ODD_NAMES, None, None, tmp_path / "sphere.png", title="漢 $\\frac$")
    assert_picture(tmp_path / "cosines.png")
    assert_picture(tmp_path / "sphere.png")
    shown = {label.get_text() for label in figures[0].axes[0].get_xticklabels()}
    assert {"$a_1", "А U+0410", "U+4E00", "U+91D1 U+9B5A", "a b", "U+D800", "x" * 23 + "…"} <= shown


@pytest.mark.parametrize(("count", "labelled"), [(1, True), (40, True), (60, False)])
def test_sphere(tmp_path: Path, count: int, labelled: bool, figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    prototypes, labels = rng.normal(size=(count, 3)), rng.integers(count, size=300)
    features = 5 * prototypes[labels] + rng.normal(size=(300, 3))
    plots.draw_sphere(prototypes, None, features, labels if labelled else None, tmp_path / "sphere.png", title="sphere")
    assert_picture(tmp_path / "sphere.png")
    texts = [text.get_text() for panel in figures[0].axes for text in panel.texts]
    assert sorted(texts) == (sorted(str(i) for i in range(count)) if count <= 40 else [])
    dots = [spots for panel in figures[0].axes for spots in panel.collections if spots.get_zorder() == 3]
    assert sum(len(spots.get_offsets()) for spots in dots) == 300  # each in front in one view, none in both
    assert ("small ones samples" in figures[0].get_supxlabel()) is labelled


@pytest.mark.parametrize("dpi", [DPI], ids=["as drawn"])  # no smaller
def test_labels_of_the_sphere_do_not_overlap(tmp_path: Path, figures: list[Any]) -> None:
    prototypes = np.random.default_rng(0).normal(size=(40, 3)) * 0.3 + [0.76, 0.53, 0.37]  # nearly all on one side
    plots.draw_sphere(prototypes, [f"a long name {i}" for i in range(40)], None, None, tmp_path / "s.png", title="s")
    boxes = [text.get_window_extent() for panel in figures[0].axes for text in panel.texts]
    assert len(boxes) == 40
    assert [(i, j) for i in range(40) for j in range(i) if boxes[i].overlaps(boxes[j])] == []
    assert all(box.x0 >= 0 and box.x1 <= figures[0].bbox.x1 for box in boxes)
    assert all(abs(text.get_position()[1]) < 1.2 for panel in figures[0].axes for text in panel.texts)


@pytest.mark.parametrize(("count", "dim"), [(1, 8), (1100, 4), (12, 3)])
def test_prototypes_count_every_pair(tmp_path: Path, count: int, dim: int, figures: list[Any]) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, dim))
    plots.draw_prototypes(vectors, tmp_path / "prototypes.png", title="prototypes", bound=-0.2)
    assert_picture(tmp_path / "prototypes.png")
    assert (tmp_path / "prototypes-sphere.png").exists() is (dim == 3)
    left, right = figures[0].axes[:2]
    assert sum(bar.get_height() for bar in left.patches) == count * (count - 1) // 2
    assert ("1,000 of 1,100" in right.get_xlabel()) is (count == 1100)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if count > 1:
        largest = (unit @ unit.T)[np.triu_indices(count, 1)].max()
        assert left.lines[0].get_label() == f"largest cosine: {largest:.4f}"
        assert left.lines[0].get_xdata()[0] == pytest.approx(largest, abs=1e-6)


def test_prototypes_that_are_all_alike(tmp_path: Path) -> None:
    plots.draw_prototypes(np.eye(10) - 0.1, tmp_path / "simplex.png", title="simplex", bound=-1 / 9)
    assert_picture(tmp_path / "simplex.png")
