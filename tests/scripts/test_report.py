"""The README's tables are those of the results."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def test_readme_shows_the_results(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, "README.md differs from benchmarks/results: run scripts/report"


@pytest.fixture
def study(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("initial_assignment", root / "scripts" / "initial_assignment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(study: str, head: str, seed: int, lr: float, validation: float) -> dict[str, Any]:
    known = {"study": study, "head": head, "seed": seed, "lr": lr, "changed": []}
    return known | {"validation": validation, "test": validation}


def test_seeds_are_trained_at_the_rate_found_on_the_first(study: ModuleType) -> None:
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


def test_differences_are_taken_at_equal_seeds(study: ModuleType) -> None:
    base = [finished("s", "prototype", seed, 0.01, value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    rows = [finished("s", "fixed", seed, 0.01, value) for seed, value in ((1, 0.6), (2, 0.98))]
    assert study.difference(rows, base) == "+9.0 ± 1.4"
    assert study.difference(rows[:1], base[2:]) == "not measured"
    assert study.accuracies(rows, 3) == "79.0 ± 26.9 / 79.0 ± 26.9 (2 of 3 seeds)"
    assert study.accuracies([], 3) == "not measured"
