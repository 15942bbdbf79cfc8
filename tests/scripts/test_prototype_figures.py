"""Table 7 and Figure 2, on sizes that take no time."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from fastproto.prototypes import estimate_prototypes
from lib import prototype_figures
from lib.repository import ROOT
from lib.reproduce.command import main

SIZES = {(6, 3): ("0", "not available")}


def test_table_7_has_a_row_for_each_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = prototype_figures.table7(None, SIZES)
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
    found, missing = prototype_figures.from_file(tmp_path, 6, 3)
    assert found is not None and missing == ""
    assert torch.allclose(found.vectors, saved.vectors, atol=1e-6)
    found, missing = prototype_figures.from_file(tmp_path, 7, 3)
    assert found is None and missing == "not measured: the folder of published files has no 7centers_3dim.pth"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table7", "--published", str(tmp_path / "nowhere")], "") == 2
    assert f"--published {tmp_path / 'nowhere'} is not a folder" in capsys.readouterr().err


def test_the_average_angle_does_not_tell_good_from_degenerate() -> None:
    sets = prototype_figures.random_and_degenerate()
    assert all(w.shape == (100, 3) for members in sets.values() for w in members)
    averages = {name: prototype_figures.averages(members[:5]) for name, members in sets.items()}
    angles = [found["mean_angle"] for found in averages.values()]
    assert max(angles) - min(angles) < 2
    assert averages["50 copies of u and 50 of -u"]["distance"] == pytest.approx(0, abs=1e-6)
    assert averages["random (mean of 100)"]["distance"] > 0


def test_figure_2_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"part": "sets", "what": "random", "mean_angle": 90.0, "distance": 0.0}]
    for count in (1, 2):
        for form in (None, "eq5"):
            found = prototype_figures.figures(prototype_figures.after(count, form).quality)
            assert all(map(math.isfinite, found.values()))
            rows.append({"part": "passes", "what": str(form), "passes": count, **found})
    prototype_figures.draw_figure2(rows, tmp_path / "figure2.png")
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")


ABOVE = re.compile(r"__file__\)(?:\.resolve\(\)|\.absolute\(\))*((?:\.parents\[\d+\]|\.parent\b)+)")


def levels(steps: str) -> int:
    """How many folders up ``.parent`` and ``.parents[n]`` lead."""
    return sum(int(number) + 1 if number else 1 for number in re.findall(r"\.parent(?:s\[(\d+)\])?", steps))


def leaves(text: str, depth: int) -> bool:
    """Whether a text, of a file so many folders below the root, names a path above the root."""
    if re.search(r"\bROOT\.parent|\broot\.parent", text):
        return True
    return any(levels(steps) > depth for steps in ABOVE.findall(text))


@pytest.mark.parametrize(
    ("text", "depth", "expected"),
    [
        ("Path(__file__).resolve().parents[2]", 3, False),
        ("Path(__file__).resolve().parents[3]", 3, True),
        ("Path(__file__).parents[1].parent", 2, True),
        ("Path(__file__).parent.parent", 2, False),
        ("ROOT.parent / 'published'", 3, True),
    ],
)
def test_paths_that_leave_the_repository_are_seen(text: str, depth: int, expected: bool) -> None:
    assert leaves(text, depth) == expected


def test_nothing_is_looked_for_beside_the_repository() -> None:
    """By Python files and launchers; ``parents[0]`` of a file in the root would be the root."""
    folders = [ROOT / name for name in ("scripts", "benchmarks", "tests")]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in ("", ".py") and file.is_file()]
    assert len(files) > 100 and ROOT / "scripts" / "kills" in files
    for file in files:
        if file != Path(__file__):
            depth = len(file.relative_to(ROOT).parts)
            text = file.read_text(encoding="utf-8")
            assert not leaves(text, depth), file
            if not file.is_relative_to(ROOT / "tests"):  # which have paths with dots as inputs
                assert '".."' not in text and (file.suffix == "" or "../" not in text), file
