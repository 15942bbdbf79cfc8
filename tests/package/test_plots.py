"""Pictures: whole PNG files with something in them, no warnings, whatever a run left out."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastproto import plots

pytest.importorskip("matplotlib")

COLUMNS = [
    *("epoch", "step", "train/loss", "train/accuracy_top1", "val/loss", "val/accuracy_top1", "val/accuracy_top5"),
    *("test/accuracy_top1", "test/accuracy_top5", "assignment/changed", "lr"),
]
ODD_NAMES = ["$a_1", "$\\frac$", "А U+0410", "一 U+4E00", "金魚", "", "_x", "a\nb", "\ud800", "x" * 99, "%s {0}"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "DPI", 60)  # quicker, and the same picture otherwise


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, in order."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig

    def spy(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be saved; their files are empty, which is quicker."""
    from matplotlib.figure import Figure

    kept: list[Any] = []

    def keep(figure: Figure, file: Any, **_: object) -> None:
        kept.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def write_metrics(path: Path, rows: list[dict[str, float]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def run_rows(epochs: int = 5, renewals: int = 1) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        at = {"epoch": epoch, "step": 100 * epoch + 99}
        rows.append({**at, "train/loss": 0.5 / (epoch + 1), "train/accuracy_top1": 1 - 1 / (epoch + 2), "lr": 0.1})
        rows.append({**at, "val/loss": 0.6 / (epoch + 1), "val/accuracy_top1": 0.5, "val/accuracy_top5": 0.8})
        rows += [
            {"epoch": epoch, "step": 100 * epoch + 9 * k, "assignment/changed": 0.9**epoch} for k in range(renewals)
        ]
    return [*rows, {"epoch": epochs, "step": 100 * epochs, "test/accuracy_top1": 0.75, "test/accuracy_top5": 0.9}]


def assert_picture(path: Path) -> None:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 200
    assert np.ptp(pixels[..., :3]) > 0.5, f"{path.name} is blank"
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_curves_show_what_was_logged(tmp_path: Path, figures: list[Any]) -> None:
    plots.draw_curves(write_metrics(tmp_path / "metrics.csv", run_rows()), tmp_path / "new" / "curves.png")
    assert_picture(tmp_path / "new" / "curves.png")
    loss, accuracy = figures[0].axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    drawn = {line.get_label(): line for line in accuracy.lines}
    assert list(drawn) == [
        "training top-1",
        "validation top-1",
        "validation top-5",
        "test top-1: 75.0 %",
        "test top-5: 90.0 %",
    ]
    assert list(drawn["validation top-1"].get_xdata()) == [0, 1, 2, 3, 4]
    assert list(drawn["validation top-1"].get_ydata()) == [50] * 5
    assert list(drawn["test top-1: 75.0 %"].get_ydata()) == [75, 75]


@pytest.mark.parametrize("left_out", [COLUMNS[:1], COLUMNS[:2], COLUMNS[3:5] + COLUMNS[7:]])
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
    assert axes.get_xlabel() == axis
    assert len(axes.lines[0].get_xdata()) == points
    assert axes.lines[0].get_ydata()[0] == 100


def test_changed_by_row_and_as_numbers(tmp_path: Path, unrendered: list[Any]) -> None:
    (tmp_path / "metrics.csv").write_text("assignment/changed\n70\n0\n")
    assert plots.draw_changed(tmp_path / "metrics.csv", tmp_path / "changed.png")
    assert (unrendered[0].axes[0].get_xlabel(), unrendered[0].axes[0].get_ylabel()) == (
        "row",
        "changed (number of labels)",
    )
    assert list(unrendered[0].axes[0].lines[0].get_ydata()) == [70, 0]


def test_no_renewal_writes_nothing(tmp_path: Path) -> None:
    table = write_metrics(tmp_path / "metrics.csv", run_rows(renewals=0))
    assert plots.draw_changed(table, tmp_path / "changed.png") is False
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("count", [1, 40, 1003])
def test_cosines(tmp_path: Path, count: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 16))
    plots.draw_cosines(vectors, [f"class {i}" for i in range(count)], tmp_path / "cosines.png", title="cosines")
    assert_picture(tmp_path / "cosines.png")


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


def test_labels_of_the_sphere_do_not_overlap(
    tmp_path: Path, figures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "DPI", 150)
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
    assert ("1,000 of 1,100" in right.get_title()) is (count == 1100)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if count > 1:
        largest = (unit @ unit.T)[np.triu_indices(count, 1)].max()
        assert left.lines[0].get_label() == f"largest cosine: {largest:.4f}"
        assert left.lines[0].get_xdata()[0] == pytest.approx(largest, abs=1e-6)


def test_prototypes_that_are_all_alike(tmp_path: Path) -> None:
    plots.draw_prototypes(np.eye(10) - 0.1, tmp_path / "simplex.png", title="simplex", bound=-1 / 9)
    assert_picture(tmp_path / "simplex.png")


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    out, points = tmp_path / "x.png", np.ones((4, 3))
    calls: dict[str, Callable[[], object]] = {
        "2 names were given for 4": lambda: plots.draw_cosines(points, ["a", "b"], out, title=""),
        r"\(0, 3\)": lambda: plots.draw_cosines(np.empty((0, 3)), [], out, title=""),
        r"\(4, 2\)": lambda: plots.draw_sphere(points[:, :2], None, None, None, out, title=""),
        r"labels \(4,\)": lambda: plots.draw_sphere(points, None, points, [0, 1, 2, 4], out, title=""),
        r"labels \(1,\)": lambda: plots.draw_sphere(points, None, points, [0], out, title=""),
        r"\(3,\)": lambda: plots.draw_prototypes(points[0], out, title="", bound=None),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["render", "rename"])
def test_a_failing_draw_leaves_the_old_file(tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def half(figure: Figure, file: Any, **_: object) -> None:
        file.write(b"half a picture")
        raise OSError("disk full")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    out = tmp_path / "cosines.png"
    out.write_bytes(b"the old picture")
    if stage == "render":
        monkeypatch.setattr(Figure, "savefig", half)
    else:
        monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        plots.draw_cosines(np.eye(3), list("abc"), out, title="cosines")
    assert [file.name for file in tmp_path.iterdir()] == ["cosines.png"]
    assert out.read_bytes() == b"the old picture"


def test_the_suffix_is_the_format(tmp_path: Path) -> None:
    plots.draw_cosines(np.eye(3), list("abc"), tmp_path / "cosines.pdf", title="cosines")
    assert (tmp_path / "cosines.pdf").read_bytes().startswith(b"%PDF")


def test_a_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    table = write_metrics(tmp_path / "metrics.csv", run_rows())
    sentence = r"^pictures need matplotlib, which is not installed: pip install 'fastproto\[train\]'$"
    calls: list[Callable[[], object]] = [
        lambda: plots.draw_curves(table, tmp_path / "x.png"),
        lambda: plots.draw_changed(table, tmp_path / "x.png"),
        lambda: plots.draw_cosines(np.eye(3), list("abc"), tmp_path / "x.png", title=""),
        lambda: plots.draw_sphere(np.eye(3), None, None, None, tmp_path / "x.png", title=""),
        lambda: plots.draw_prototypes(np.eye(3), tmp_path / "x.png", title="", bound=None),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=sentence):
            call()
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_importing_is_light_and_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy; from fastproto import plots\n"
        "assert not {'matplotlib', 'scipy', 'torch'} & set(sys.modules)\n"
        "plots.draw_cosines(numpy.eye(3), list('abc'), pathlib.Path('x.png'), title='cosines')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    root = str(Path(plots.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PATH": "", "PYTHONPATH": root})
