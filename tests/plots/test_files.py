"""Files of pictures: whole or as they were; what is missing or misshapen is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastproto import plots

from .metrics import run_rows, write_metrics


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    out, points = tmp_path / "x.png", np.ones((4, 3))
    calls: dict[str, Callable[[], object]] = {
        "2 names were given for 4": lambda: plots.draw_cosines(points, ["a", "b"], out, title=""),
        r"\(0, 3\)": lambda: plots.draw_cosines(np.empty((0, 3)), [], out, title=""),
        r"\(4, 2\)": lambda: plots.draw_sphere(points[:, :2], None, None, None, out, title=""),
        r"labels have shape \(4,\)": lambda: plots.draw_sphere(points, None, points, [0, 1, 2, 4], out, title=""),
        r"labels have shape \(1,\)": lambda: plots.draw_sphere(points, None, points, [0], out, title=""),
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
    root = str(Path(plots.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PATH": "", "PYTHONPATH": root})
