"""The steps of scripts/gpu_check, run dry: tiny shapes under Triton's interpreter."""

from __future__ import annotations

import inspect
import json
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux")

from lib.gpu_check import command, processes, tests_and_sanitizer  # noqa: E402
from lib.gpu_check.steps import HIDDEN, STEPS, load  # noqa: E402


def test_every_step_is_where_the_list_says() -> None:
    for name, step in (STEPS | HIDDEN).items():
        function = load(name)
        assert inspect.isgeneratorfunction(function) and list(inspect.signature(function).parameters) == ["dry"], name
        assert 0 < step.limit <= command.BUDGET + command.TUNING
    timed = [name for name in STEPS if not STEPS[name].side_by_side]
    assert list(STEPS)[-len(timed) :] == timed, "what has no times in it runs first"


def test_the_tests_that_need_a_gpu_are_there(root: Path) -> None:
    found = set(tests_and_sanitizer.tests_of_kernels())
    assert {file.relative_to(root).as_posix() for file in root.glob("tests/*/test_*_on_kernels.py")} <= found
    assert {"tests/assignment/test_scores_gpu.py", "tests/ops/test_promised_precision.py"} <= found
    for file in root.glob("tests/kernels/test_*.py"):
        assert file.relative_to(root).as_posix() in found, file.name
    helpers = {file.stem for file in root.glob("tests/*.py") if "from .kernel_device import" in file.read_text()}
    assert helpers | {"kernel_device"} == set(tests_and_sanitizer.HELPERS)


def test_an_unfinished_test_run_is_reported_before_it_is_an_error() -> None:
    steps = tests_and_sanitizer.outcome(2, "FAILED a\n1 failed in 3 s\n")
    found = [next(steps) for _ in range(3)]
    assert found == [("exit", 2), ("summary", "1 failed in 3 s"), ("failed", ["FAILED a"])]
    with pytest.raises(RuntimeError, match="exit code 2"):
        next(steps)
    assert dict(tests_and_sanitizer.outcome(0, "2 passed"))["summary"] == "2 passed"


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in exp2:RuntimeWarning"
)  # NumPy, of lanes past the last column
@pytest.mark.parametrize("name", ["machine", "sanitizer", "large", "network", "peers", "million", "prototypes"])
def test_a_step_yields_what_json_can_hold(name: str) -> None:
    found = dict(load(name)(True))
    assert found and json.loads(json.dumps(found)) == found


def test_results_are_on_disk_after_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    processes.run_step("machine", tmp_path, dry=True)
    found = json.loads((tmp_path / "machine.json").read_text())
    assert {"python", "torch", "triton", "commit"} == found.keys()
    assert capsys.readouterr().out.count("machine: ") == 4
    assert [file.name for file in tmp_path.iterdir()] == ["machine.json"]


def test_steps_in_one_process_keep_their_results(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text('{"an earlier": "run"}')
    limits = {"machine": 200.0, "network": 200.0}
    found = processes.run_process(["machine", "network"], tmp_path, True, limits, time.monotonic() + 400)
    assert {name: outcome.status for name, outcome in found.items()} == {"machine": "done", "network": "done"}
    assert "torch" in found["machine"].results and found["network"].results == {"ResNet-50": "not measured: a dry run"}
    assert "network: ResNet-50" in (tmp_path / "network.log").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["machine.log", "network.log"]


def test_a_step_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    limits = {"machine": 200.0, "tune": 0.0, "network": 200.0}
    found = processes.run_process(["machine", "tune", "network"], tmp_path, True, limits, time.monotonic() + 400)
    assert found["machine"].status == "done" and "network" not in found, "another process runs it"
    assert found["tune"].status.startswith("stopped after") and (tmp_path / "tune.log").exists()


def test_a_process_that_cannot_begin_is_reported(tmp_path: Path) -> None:
    found = processes.run_process(["machine"], tmp_path, True, {"machine": 200.0}, time.monotonic())
    assert found["machine"].status == "stopped after 0 s" and found["machine"].results == {}


def test_a_step_that_fails_loses_no_other(tmp_path: Path) -> None:
    progress = processes.Progress(tmp_path / "events")
    progress.events.write_text("began a\nfailed a\nbegan b\ndone b\nbegan c\n")
    progress.read()
    assert {name: each.status for name, each in progress.ended.items()} == {"a": "failed (see a.log)", "b": "done"}
    assert progress.running == ["c"]


def test_the_interpreter_is_for_dry_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "TRITON_INTERPRET" not in processes.environment(dry=False)
    dry = processes.environment(dry=True)
    assert dry["TRITON_INTERPRET"] == "1" and dry["CUDA_VISIBLE_DEVICES"] == ""


def test_findings_of_the_sanitizer() -> None:
    text = 'D=10: "ran"\n========= Invalid __global__ read\n========= ERROR SUMMARY: 1 error\nD=300: "ran"\n'
    assert tests_and_sanitizer.findings(text) == {
        "summary": ["ERROR SUMMARY: 1 error"],
        "shapes": 2,
        "problems": ["Invalid __global__ read"],
    }
