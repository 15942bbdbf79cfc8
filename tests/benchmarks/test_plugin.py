"""The options of pytest-benchmark on the benchmarks: save, compare and fail, histogram, disable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")


SLOW_AT_FIRST = """
from benchmarks import groups

measure, visits = groups.measure, []

def disturbed(*given):
    group = measure(*given)
    visits.append(group)
    for row in group.rows.values() if len(visits) == 1 else ():
        row.seconds[:] = [1000 * seconds for seconds in row.seconds]
    return group

groups.measure = disturbed
"""


def run_benchmarks(root: Path, storage: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One row, that of our class means."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    row = "benchmarks/bench_update_class_means.py::test_update_class_means[C=1000,D=64,B=256-fastproto-1]"
    command = [sys.executable, "-m", "pytest", row, "--threads", "1", "-q"]
    command += ["-p", "no:cacheprovider", f"--benchmark-storage=file://{storage}", *options]
    return subprocess.run(command, cwd=root, env=own, capture_output=True, text=True)


def faster(storage: Path, times: float) -> None:
    """Make the saved run so many times as fast."""
    (file,) = storage.rglob("*_first.json")
    saved = json.loads(file.read_text())
    saved["benchmarks"][0]["stats"]["min"] /= times
    file.write_text(json.dumps(saved))


# pygal is not imported here: its import hook breaks later imports of the process
@pytest.mark.skipif(find_spec("pygal") is None, reason="pygal is not installed")
def test_a_slower_row_fails_the_comparison(root: Path, tmp_path: Path) -> None:
    compared = ("--benchmark-compare=0001", "--benchmark-compare-fail=min:30%")
    first = run_benchmarks(root, tmp_path, "--benchmark-save=first")
    assert first.returncode == 0 and "1 passed" in first.stdout, first.stdout
    faster(tmp_path, 1000.0)
    slower = run_benchmarks(root, tmp_path, *compared)
    assert slower.returncode == 1 and "Performance has regressed" in slower.stdout + slower.stderr, slower.stdout
    faster(tmp_path, 1e-6)
    drawn = run_benchmarks(root, tmp_path, *compared, f"--benchmark-histogram={tmp_path / 'drawn'}")
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert [file.suffix for file in tmp_path.glob("drawn*")] == [".svg"]


def test_a_row_that_was_slow_for_a_moment_passes_the_comparison(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_benchmarks(root, tmp_path, "--benchmark-save=first").returncode == 0
    faster(tmp_path, 0.1)  # the machine of the second run may be ten times as slow
    (tmp_path / "slow_at_first.py").write_text(SLOW_AT_FIRST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "second.json"
    options = ("-p", "slow_at_first", f"--benchmark-json={file}")
    compared = ("--benchmark-compare=0001", "--benchmark-compare-fail=min:30%")
    second = run_benchmarks(root, tmp_path, *options, *compared)
    assert second.returncode == 0, second.stdout + second.stderr
    (row,) = json.loads(file.read_text())["benchmarks"]
    assert row["stats"]["max"] > 300 * row["stats"]["min"], "the rounds of both moments are kept"
    first, second = row["extra_info"]["visits"]
    assert row["stats"]["rounds"] == len(row["stats"]["data"]) == first + second


def test_disabled_benchmarks_call_each_row_once(root: Path, tmp_path: Path) -> None:
    done = run_benchmarks(root, tmp_path, "--benchmark-disable", "--benchmark-json", str(tmp_path / "none.json"))
    assert done.returncode == 0 and "1 passed" in done.stdout
    assert not list(tmp_path.glob("*.json")), "nothing is measured"
