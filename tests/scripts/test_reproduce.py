"""The paper's tables and figures, on sizes that take no time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from fastproto.prototypes import estimate_prototypes
from lib import reproduce
from lib.repository import ROOT

SIZES = {(6, 3): ("0", "not available")}


def test_table_7_has_a_row_for_each_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = reproduce.table7(None, SIZES)
    paper, published, *ours = rows
    assert (paper["max_cosine"], paper["min_cosine"]) == SIZES[6, 3]
    assert published["missing"] == "not measured: --published was not given"
    assert [row["what"] for row in ours] == [
        "SGD, lr 0.1, 1000 steps, within_batch",
        "SGD, lr 0.1, 1000 steps, eq5",
        "fastproto, uniform",
        "fastproto, max_cosine",
    ]
    for row in ours:  # six points in three dimensions: the octahedron
        assert abs(row["max_cosine"]) < 1e-3 and row["min_cosine"] == pytest.approx(-1, abs=1e-3)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + len(rows) + 2 and "--published was not given" in printed[2]
    assert json.loads(json.dumps(rows)) == rows


def test_published_files_are_read_from_the_folder_that_is_named(tmp_path: Path) -> None:
    saved = estimate_prototypes(6, 3)
    saved.save(tmp_path / "6centers_3dim.pth")
    found, missing = reproduce.from_file(tmp_path, 6, 3)
    assert found is not None and missing == ""
    assert torch.allclose(found.vectors, saved.vectors, atol=1e-6)
    found, missing = reproduce.from_file(tmp_path, 7, 3)
    assert found is None and missing == f"not measured: there is no {tmp_path / '7centers_3dim.pth'}"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["table7", "--published", str(tmp_path / "nowhere")], "")
    assert ended.value.code == 2
    assert f"--published {tmp_path / 'nowhere'} is not a folder" in capsys.readouterr().err


def test_the_average_angle_does_not_tell_good_from_degenerate() -> None:
    sets = reproduce.random_and_degenerate()
    assert all(w.shape == (100, 3) for members in sets.values() for w in members)
    averages = {name: reproduce.averages(members[:5]) for name, members in sets.items()}
    angles = [found["mean_angle"] for found in averages.values()]
    assert max(angles) - min(angles) < 2
    assert averages["50 copies of u and 50 of -u"]["distance"] == pytest.approx(0, abs=1e-6)
    assert averages["random (mean of 100)"]["distance"] > 0


def test_figure_2_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"part": "sets", "what": "random", "mean_angle": 90.0, "distance": 0.0}]
    for count in (1, 2):
        for form in (None, "eq5"):
            found = reproduce.figures(reproduce.after(count, form).quality)
            assert all(map(math.isfinite, found.values()))
            rows.append({"part": "passes", "what": str(form), "passes": count, **found})
    reproduce.draw_figure2(rows, tmp_path / "figure2.png")
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_looked_for_beside_the_repository() -> None:
    """A path of the scripts and benchmarks that leaves the repository would be a ``parent`` of its root."""
    files = [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "ROOT.parent" not in text and '".."' not in text and "../" not in text, file
