"""The README's tables: those of the results, and what a small file, or none, makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lib import initial_assignment as study
from lib import tables
from lib.report import assignment, gaussian_potential, gpu, head, prototypes
from lib.report.command import TABLES, filled

MACHINE = {"processor": "P", "capability": "AVX2", "threads": 1, "torch": "2.9"}


def test_readme_shows_the_results(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, "README.md differs from benchmarks/results: run scripts/report"


def test_tables_stand_between_their_marks(tmp_path: Path) -> None:
    text = "before\n" + "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in TABLES) + "after\n"
    rows = [{"what": "L_uni", "classes": 100, "dim": 10, "reached": -3.5, "note": "bound -3.6, max cosine 0.4"}]
    (tmp_path / "prototypes.json").write_text(json.dumps({"rows": rows}))
    lines = filled(text, tmp_path).splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert lines.count("not measured") == len(TABLES) - 1
    at = lines.index("<!-- prototypes -->")
    cells = "| (100, 10) | -3.50000 | -3.6 | not measured | not measured | not measured |"
    assert lines[at + 3 : at + 5] == [cells, "<!-- /prototypes -->"]
    assert filled("\n".join(lines), tmp_path) == "\n".join(lines)


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
    assert lines[-1].startswith("P, AVX2, one thread, torch 2.9. The products alone")
    ours = {"C": 1000, "D": 64, "B": 8, "providers": {"ours": {"median_s": 0.002}}}
    top = {"k": 5, "C": 10, "B": 4, "D": 2, "speedup": 2.0, "share_of_memory": 0.5}
    facts = {"step_100k_over_1k": 2.0, "gather_s": {"1000": 1e-3, "100000": 2e-3}}
    text = head.table({"machine": MACHINE, "cells": [ours], "prediction": top, **facts})
    assert "| 1,000 | 2 ms | not measured | not measured |" in text and "(not measured in two threads)" in text
    assert prototypes.table({"rows": []}).count("\n") == 1


def test_an_assignment_that_is_not_certified_is_said() -> None:
    cell = {"kind": "easy", "C": 200, "D": 16, "method": "column_generation"}
    cell["providers"] = {"ours": {"median_s": 0.01}, "scipy": {"median_s": 0.05, "over_ours": 5.0}}
    run = {"C": 50, "D": 4, "seconds": 2.0, "relative_gap": 1e-3, "certified": False}
    found = {"machine": MACHINE, "cells": [cell], "sequences": [], "large": [run], "extra_peak_mib_20000_128": 3.0}
    text = assignment.table(found)
    assert (
        "| easy, 200 | column generation | 10 ms | not measured | not measured | not measured | 50 ms (5.00×) |" in text
    )
    assert "C = 50, D = 4: 2 s, not certified, 1e-03." in text
    assert "Fitted cost on the clustered means: not measured." in text


def test_gpu_tables_name_what_scipy_did_not_finish(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "gpu.json").read_text())
    solved = found["steps"]["assignment"]["results"]
    name = next(name for name in solved if name.startswith("C="))
    found["steps"]["scipy"]["results"] = {name: "not done in 70 s"}
    text = gpu.table(found)
    assert text.count("| not done in 70 s |") == 1
    assert text.count("| not measured |") == sum(name.startswith("C=") for name in solved) - 1


def test_gpu_tables_of_steps_without_results(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "gpu.json").read_text())
    whole = gpu.table(found)
    for name in ("speed", "peers", "assignment", "scipy", "sanitizer", "machine"):
        empty = found | {"steps": found["steps"] | {name: found["steps"][name] | {"results": {}}}}
        table = gpu.table(empty)
        said = [part for part in table.split("\n\n") if part.startswith("not measured")]
        assert table != whole and (said or table.count("| not measured |") == 3), name
    nothing = gpu.table({"steps": dict.fromkeys(found["steps"])})
    assert nothing.count("not measured") == 4


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
