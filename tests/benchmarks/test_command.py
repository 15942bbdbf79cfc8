"""fastproto-bench as a user types it, and the rows that pytest-benchmark reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.command import bench, parse_bench

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "large"], "--scale"),
        (["--threads", "0"], "--threads is 0; expected 1 or more"),
        (["--cifar100", "/none"], "--cifar100 is /none, which is no folder"),
        (["--outt", "x"], "did you mean --out?"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("fastproto-bench").exists()


def test_a_folder_with_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert bench(["--out", str(tmp_path)]) == 2
    assert "is not empty; expected a new folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_scale_and_folder_have_defaults() -> None:
    options = parse_bench([])
    assert (str(options.out), options.scale, options.threads) == ("fastproto-bench", "small", None)


def test_a_report_is_written_into_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("markdown")
    code = "import sys; from benchmarks.command import bench; sys.exit(bench(sys.argv[1:]))"
    arguments = ["--scale", "smoke", "--threads", "1", "-k", "update_class_means", "--out", "report"]
    root = Path(__file__).parents[2]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}", *arguments],
        cwd=tmp_path,
        env=own,  # it is no worker of this test run, where pytest-benchmark measures nothing
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["report"]
    assert done.stdout == "written to report: report.html, report.md, results.json\n" and "Wrote" not in done.stderr
    report = tmp_path / "report"
    assert {"results.json", "report.md", "report.html", "log.txt"} <= {file.name for file in report.iterdir()}
    rows = json.loads((report / "results.json").read_text())["benchmarks"]
    assert [each["extra_info"]["provider"] for each in rows] == ["fastproto", "naive torch", "authors' formula"]
    assert {each["group"] for each in rows} == {"update_class_means C=1000 D=64 B=256"}
    wanted = {
        "share_of_product",
        "share_of_copy",
        "extra_mib",
        "flops",
        "bytes",
        "versions",
        "commit",
        "threads",
        "machine",
    }
    assert all(wanted <= each["extra_info"].keys() and each["stats"]["rounds"] >= 3 for each in rows)
    assert len({each["stats"]["rounds"] for each in rows}) == 1, "rounds are taken in turn"
    assert "## Every row" in (report / "report.md").read_text()
