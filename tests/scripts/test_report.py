"""The tables and pictures of the pages: those of the results, and what a small file, or none, makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pages.pictures import Line, Panel, Points, digest, draw, drawn_from
from lib import initial_assignment as study
from lib.report import gpu
from lib.report.benchmarks import PAGES
from lib.report.command import REPORTS, all_pictures, main
from lib.report.pages import filled, marks
from lib.repository import RESULTS
from tests.benchmarks.results_file import contents, row, whole


def marked(name: str, body: str) -> str:
    return f"<!-- report {name} -->\n{body}<!-- /report {name} -->\n"


def test_pages_and_pictures_show_the_results(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def searched(**info: Any) -> Any:
    size = {"C": 100, "D": 10, "objective": "uniform"}
    quality = {"uniformity": -3.5, "uniformity_bound": -3.6, "max_cosine": 0.4, "max_cosine_bound": 0.3}
    known = {"passes": 7, "method": "lbfgs", "passes_to_one_percent": None}
    return row("estimate_prototypes", size, "fastproto, best", [2.0], **(quality | known | info))


def test_tables_stand_between_their_marks(tmp_path: Path) -> None:
    text = "before\n" + "".join(marked(name, "old\n") for name in REPORTS) + "after\n"
    (tmp_path / "small.json").write_text(json.dumps(contents([searched()])))
    lines = filled(text, REPORTS, tmp_path).splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines.count("old") == len(REPORTS) - 2, "a table without results stays"
    at = lines.index("<!-- report prototypes -->")
    cells = lines[at + 3].strip("| ").split(" | ")
    assert cells == ["(100, 10)", "-3.50000", "-3.600000", "0.4000", "2 s", *["not measured"] * 5]
    again = "\n".join(lines) + "\n"
    assert filled(again, REPORTS, tmp_path) == again and marks(again) == list(REPORTS)


def test_rows_that_the_short_run_lacks_are_those_of_the_full_one(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(json.dumps(contents([searched()])))
    (tmp_path / "full.json").write_text(
        json.dumps(contents([searched(uniformity=-9.0), *whole("smoke")["benchmarks"]]))
    )
    text = filled(marked("prototypes", ""), REPORTS, tmp_path)
    assert "-3.50000" in text and "-9.0" not in text and "(400, 64)" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- report prototypes -->\n", "expected <!-- /report NAME --> for each"),
        ("<!-- report prototypes -->\n" + marked("gpu_facts", ""), "expected <!-- /report NAME --> for each"),
        (marked("heads", ""), "no report is named heads"),
    ],
)
def test_a_mark_that_is_not_closed_or_not_known_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        filled(text, REPORTS, tmp_path)


def test_check_names_what_is_stale_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(marked("performance", ""))
    for name in PAGES:
        (tmp_path / name).write_text("old\n")
    tables = tmp_path / "docs" / "all.md"
    tables.write_text("".join(marked(name, "") for name in REPORTS if name != "performance"))
    results = tmp_path / "results"
    results.mkdir()
    assert main(["--check"], "", tmp_path, results) == 0, "what has no results stays"
    (results / "small.json").write_text(json.dumps(whole("small")))
    assert main(["--check"], "", tmp_path, results) == 1
    found = capsys.readouterr().err
    for shown in (
        "README.md",
        "docs/all.md",
        *map(str, PAGES),
        "docs/pictures/roofline.png",
        "docs/pictures/assignment.png",
    ):
        assert shown in found
    page, pictures = tmp_path / "docs" / "benchmarks.md", tmp_path / "docs" / "pictures"
    assert page.read_text() == "old\n" and not pictures.exists()
    pytest.importorskip("matplotlib")
    assert main([], "", tmp_path, results) == 0
    assert main(["--check"], "", tmp_path, results) == 0
    assert page.read_text().startswith("# Benchmarks\n")
    shutil.copy(RESULTS / "gpu.json", results)
    assert main(["--check"], "", tmp_path, results) == 1
    assert capsys.readouterr().err.startswith("docs/all.md, docs/pictures/gpu_passes.png: not made from")
    (tmp_path / "README.md").write_text("")
    assert main(["--check"], "", tmp_path, results) == 1
    assert "no page shows the table performance" in capsys.readouterr().err


def test_a_picture_carries_the_digest_of_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "new" / "picture.png"
    assert drawn_from(file) is None
    line, points = Line("a", [1.0, 10.0], [2.0, 3.0], [0.1, 0.2]), Points("b: C^2", [1.0], [2.0])
    panels = [Panel("left", "x", "y", [line], "xy", ticks=[1.0, 10.0]), Panel("right", "x", "y", [points], bottom=0.0)]
    draw(panels, file)
    assert drawn_from(file) == digest(panels) != digest(panels[:1])
    file.write_bytes(file.read_bytes()[:40])
    assert drawn_from(file) is None


def test_every_picture_that_can_be_drawn_is_on_a_page_and_has_lines(root: Path) -> None:
    text = "".join(page.read_text() for page in (root / "docs").glob("*.md"))
    found = all_pictures(RESULTS)
    assert len(found) >= 3
    for name, panels in found.items():
        assert f"(pictures/{name}.png)" in text
        for panel in panels:
            assert panel.lines and all(len(line.x) == len(line.y) > 0 for line in panel.lines), panel.title


def test_gpu_tables_name_what_scipy_did_not_finish(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "gpu.json").read_text())
    solved = found["steps"]["assignment"]["results"]
    name = next(name for name in solved if name.startswith("C="))
    found["steps"]["scipy"]["results"] = {name: "not done in 70 s"}
    text = gpu.solves(found)
    assert text.count("| not done in 70 s |") == 1
    assert text.count("| not measured |") == sum(name.startswith("C=") for name in solved) - 1


def test_gpu_tables_of_steps_without_results(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "gpu.json").read_text())
    tables = {
        "speed": gpu.passes,
        "peers": gpu.peers,
        "assignment": gpu.solves,
        "machine": gpu.facts,
        "head": gpu.facts,
    }
    for name, table in tables.items():
        empty = found | {"steps": found["steps"] | {name: found["steps"][name] | {"results": {}}}}
        assert table(empty).startswith("not measured") and not table(found).startswith("not measured"), name
    nothing = {"steps": dict.fromkeys(found["steps"])}
    assert all(table(nothing).startswith("not measured") for table in tables.values())


def test_an_unknown_argument_prints_the_usage(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--chekc"], capture_output=True, text=True)
    assert found.returncode == 2 and "usage: scripts/report" in found.stdout


def finished(study: str, head: str, seed: int, lr: float, validation: float) -> dict[str, Any]:
    known = {"study": study, "head": head, "seed": seed, "lr": lr, "changed": []}
    return known | {"validation": validation, "test": validation}


def test_seeds_are_trained_at_the_rate_found_on_the_first() -> None:
    name = next(iter(study.STUDIES))
    search = [run for run in study.missing_runs([]) if run[0] == name]
    assert len(search) == 2 * len(study.RATES) and {run[2] for run in search} == {0}
    assert {run[1] for run in search} == {"linear", "prototype"}
    best = {"linear": 0.005, "prototype": 0.02}
    rows = [finished(*run, 0.9 if run[3] == best[run[1]] else 0.8) for run in search]
    assert all(run[:2] != (name, "fixed") for run in study.missing_runs(rows[:-1])), "the search was not finished"
    seeds = [run for run in study.missing_runs(rows) if run[0] == name]
    assert len(seeds) == 5 * len(study.COMPARED) - 2, "two heads have their first seed from the search"
    assert {(run[1] == "linear", run[3]) for run in seeds} == {(True, 0.005), (False, 0.02)}


def test_differences_are_taken_at_equal_seeds() -> None:
    base = [finished("s", "prototype", seed, 0.01, value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    rows = [finished("s", "fixed", seed, 0.01, value) for seed, value in ((1, 0.6), (2, 0.98))]
    assert study.difference(rows, base) == "+9.0 ± 1.4"
    assert study.difference(rows[:1], base[2:]) == "not measured"
    assert study.accuracies(rows, 3) == "79.0 ± 26.9 / 79.0 ± 26.9 (2 of 3 seeds)"
    assert study.accuracies([], 3) == "not measured"
