"""The tables and pictures of the pages: those of the results, and what a small file, or none, makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib import initial_assignment as study
from lib import tables
from lib.report import assignment, gaussian_potential, gpu, head, performance, prototypes
from lib.report.command import PLOTS, REPORTS, main
from lib.report.pages import contents, filled, marks
from lib.report.pictures import Line, Panel, digest, draw, drawn_from
from lib.repository import RESULTS

MACHINE = {"processor": "P", "capability": "AVX2", "threads": 1, "torch": "2.9"}


def marked(name: str, body: str) -> str:
    return f"<!-- report {name} -->\n{body}<!-- /report {name} -->\n"


def test_pages_and_pictures_show_the_results(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_tables_stand_between_their_marks(tmp_path: Path) -> None:
    text = "before\n" + "".join(marked(name, "old\n") for name in REPORTS) + "after\n"
    rows = [{"what": "L_uni", "classes": 100, "dim": 10, "reached": -3.5, "seconds": 2.0}]
    rows[0]["note"] = "bound -3.6, max cosine 0.4"
    (tmp_path / "prototypes.json").write_text(json.dumps({"rows": rows}))
    lines = filled(text, REPORTS, tmp_path).splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert lines.count("not measured") == len(REPORTS) - 1
    at = lines.index("<!-- report prototypes -->")
    cells = lines[at + 3].strip("| ").split(" | ")
    assert cells == ["(100, 10)", "-3.50000", "-3.6", "0.4", "2 s", *["not measured"] * 5]
    assert lines[at + 4] == "<!-- /report prototypes -->"
    again = "\n".join(lines) + "\n"
    assert filled(again, REPORTS, tmp_path) == again and marks(again) == list(REPORTS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- report head -->\n", "expected <!-- /report NAME --> for each"),
        ("<!-- report head -->\n" + marked("gpu_facts", ""), "expected <!-- /report NAME --> for each"),
        (marked("heads", ""), "no report is named heads"),
    ],
)
def test_a_mark_that_is_not_closed_or_not_known_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        filled(text, REPORTS, tmp_path)


def test_check_names_what_is_stale_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(marked("performance", ""))
    page = tmp_path / "docs" / "all.md"
    page.write_text("".join(marked(name, "") for name in REPORTS if name != "performance"))
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(RESULTS / "assignment.json", results)
    assert main(["--check"], "", tmp_path, results) == 1
    assert "README.md, docs/all.md, docs/pictures/assignment.png: not made from" in capsys.readouterr().err
    assert page.read_text().count("\n") == 2 * (len(REPORTS) - 1) and not (tmp_path / "docs" / "pictures").exists()
    pytest.importorskip("matplotlib")
    assert main([], "", tmp_path, results) == 0
    assert main(["--check"], "", tmp_path, results) == 0
    changed = json.loads((results / "assignment.json").read_text())
    changed["exponents"]["ours"]["seconds"][0] *= 2
    (results / "assignment.json").write_text(json.dumps(changed))
    assert main(["--check"], "", tmp_path, results) == 1
    assert capsys.readouterr().err.startswith("docs/pictures/assignment.png: not made from")
    (tmp_path / "README.md").write_text("")
    assert main(["--check"], "", tmp_path, results) == 1
    assert "no page shows the table performance" in capsys.readouterr().err


def test_a_picture_carries_the_digest_of_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "new" / "picture.png"
    assert drawn_from(file) is None
    line = Line("a", [1.0, 10.0], [2.0, 3.0], [0.1, 0.2])
    panels = [Panel("left", "x", "y", [line], "xy", ticks=[1.0, 10.0]), Panel("right", "x", "y", [line], bottom=0.0)]
    draw(panels, file)
    assert drawn_from(file) == digest(panels) != digest(panels[:1])
    file.write_bytes(file.read_bytes()[:40])
    assert drawn_from(file) is None


def test_every_picture_that_can_be_drawn_is_on_a_page_and_has_lines(root: Path) -> None:
    text = "".join(page.read_text() for page in (root / "docs").glob("*.md"))
    for name, (source, plot) in PLOTS.items():
        measured = contents(RESULTS, source)
        panels = [] if measured is None else plot(measured)
        assert (f"(pictures/{name}.png)" in text) == bool(panels), name
        for panel in panels:
            assert panel.lines and all(len(line.x) == len(line.y) > 1 for line in panel.lines), panel.title


def test_figures_are_written_alike() -> None:
    assert [tables.ratio(x) for x in (None, 1.234, 9.996, 12.4)] == ["not measured", "1.23×", "10.00×", "12×"]
    times = [tables.duration(x) for x in (None, 0.00123, 0.9994, 0.9996, 12.34)]
    assert times == ["not measured", "1.23 ms", "999 ms", "1 s", "12.3 s"]


def test_what_a_benchmark_did_not_measure_is_said() -> None:
    size = {"C": 1000, "D": 64, "float32_floor_s": 0.5, "gradient_error": {"highest": 1e-7}}
    size["providers"] = {"highest": {"median_s": 0.25, "baseline_over_this": 4.0}}
    lines = gaussian_potential.table(
        {"machine": MACHINE, "sizes": [size], "extra_peak_mib_10000_128": {"ours": 1.0, "naive": 2.0}}
    ).splitlines()
    assert lines[0] == "| full pass: potential and pull | C = 1,000, D = 64 | against the loop |"
    assert "| `highest` | 250 ms | 4.00×, error 1e-07 |" in lines
    assert "| `high` | not measured | not measured |" in lines
    assert "- P, AVX2, one thread, torch 2.9." in lines
    ours = {"C": 1000, "D": 64, "B": 8, "providers": {"ours": {"median_s": 0.002}}}
    top = {"k": 5, "C": 10, "B": 4, "D": 2, "speedup": 2.0, "share_of_memory": 0.5}
    facts = {"step_100k_over_1k": 2.0, "gather_s": {"1000": 1e-3, "100000": 2e-3}}
    text = head.table({"machine": MACHINE, "cells": [ours], "prediction": top, **facts})
    assert "| 1,000 | 2 ms | not measured | not measured |" in text and "(not measured in two threads)" in text
    assert prototypes.table({"rows": []}).count("\n") == 1
    solved = {"kind": "clustered", "C": 1000, "D": 16, "providers": {"ours": {"median_s": 0.25}}}
    top["providers"] = {"ours": {"median_s": 1.0}, "matmul_topk": {"median_s": 2.0}}
    text = performance.table(
        {"machine": MACHINE, "cells": [ours], "prediction": top}, {"cells": [solved], "large": []}, {"rows": []}
    )
    assert "C = 1,000, D = 16 | 250 ms | not measured | not measured |" in text
    assert "| 1 s | 2 s, matmul and topk | 2.00× |" in text


def test_an_assignment_that_is_not_certified_is_said() -> None:
    cell = {"kind": "easy", "C": 200, "D": 16, "method": "column_generation", "certified": False}
    cell["providers"] = {"ours": {"median_s": 0.01}, "scipy": {"median_s": 0.05, "over_ours": 5.0}}
    run = {"C": 50, "D": 4, "seconds": 2.0, "passes": 4.26, "relative_gap": 1e-3, "certified": False}
    found = {"machine": MACHINE, "cells": [cell], "sequences": [], "large": [run], "extra_peak_mib_20000_128": 3.0}
    text = assignment.table(found)
    assert (
        "| easy, 200 | column generation | 10 ms | not measured | not measured | not measured | 50 ms (5.00×) |" in text
    )
    assert "- Certified: 0 of 1 answers of fastproto." in text
    assert "| 50 | 4 | 2 s | 4.3 | 1e-03, not certified |" in assignment.large(found)
    gone = {"name": "glyphs", "C": 9, "renewals": 3, "unchanged": 0, "speedup": 2.0, "unchanged_speedup": None}
    line = "| glyphs, C = 9 | 3 | 0 | 2.00× | not measured | not measured |"
    assert line in assignment.renewals(found | {"sequences": [gone]})
    assert "Fitted cost on the clustered means: not measured." in text


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
