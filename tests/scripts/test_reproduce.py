"""Cells of scripts/reproduce: a tiny table on digits is trained in processes, stopped, killed, merged and shown."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.machine import processor
from lib.repository import ROOT
from lib.reproduce.cells import Cell, Place
from lib.reproduce.command import main
from lib.reproduce.records import TIMES, load_records, read_record
from lib.reproduce.tables import Table

SMALL = (("model.name", "mlp"),)
DYNAMIC, PSC, FROM_PSC, FAILING = (
    Cell("tiny", method, "digits", 3, "cnn", epochs, overrides=SMALL)
    for method, epochs in (("dynamic", 30), ("psc", 2), ("dynamic-from-psc", 2), ("etf", 1))  # etf needs D = 9
)
TABLES = {"tiny": Table("Digits", (DYNAMIC, PSC, FROM_PSC)), "failing": Table("Digits", (FAILING, PSC))}
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from lib.repository import use_repository
use_repository()
from lib.reproduce.cells import Cell
from lib.reproduce.command import main
from lib.reproduce.tables import Table
cell = Cell("tiny", "dynamic", "digits", 3, "cnn", 30, overrides={SMALL!r})
sys.exit(main(sys.argv[1:], "", {{"tiny": Table("Digits", (cell,))}}))
"""


def reproduce(*arguments: str | Path) -> int:
    """Two jobs always: results must not depend on it, but the number of threads of a run does."""
    return main([*map(str, arguments), "--jobs", "2", "--accelerator", "cpu"], "", TABLES)


def threads() -> int:
    """Of a run beside another: those that the shell has set, else an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS")
    return int(given) if given else max(len(os.sched_getaffinity(0)) // 2, 1)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tiny table and a cell that fails, and what was printed."""
    out, printed = tmp_path_factory.mktemp("trained"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert reproduce("tiny", "--out", out) == 0
        assert reproduce("failing", "--out", out) == 1
    return out, printed.getvalue()


def test_each_cell_is_one_record(trained: tuple[Path, str]) -> None:
    out, printed = trained
    records = load_records([out])
    assert set(records) == {DYNAMIC, PSC, FROM_PSC}
    for cell, record in records.items():
        assert record["settings"]["head.dim"] == 3 and record["settings"]["model.name"] == "mlp"
        assert 0 < record["validation"] <= 1 and 0 < record["test"] <= record["test_top5"] <= 1
        assert [entry["epoch"] for entry in record["curve"]] == list(range(cell.epochs))
        assert all((entry["moved"] is None) == (cell == PSC) for entry in record["curve"][1:])
        assert record["train_images"] == 1187 and record["shots"]["many"]["classes"] == 10
        assert record["machine"] == {"cpu": processor(), "threads": threads(), "jobs": 2}
        assert record["versions"]["torch"] and record["device"] == "cpu" and record["commit"]
        assert f"done: tiny {cell.name}: validation {100 * record['validation']:.2f} %, test" in printed
    assert str(out) not in json.dumps([*records.values()])  # nothing of this machine's folders


def test_what_begins_from_another_run_comes_after_it(trained: tuple[Path, str]) -> None:
    out, printed = trained
    assert printed.index(f"done: tiny {PSC.name}") < printed.index(f"done: tiny {FROM_PSC.name}")
    assert load_records([out])[FROM_PSC]["settings"]["head.trained"] == PSC.name


def test_a_cell_that_fails_is_named_and_stops_no_other(trained: tuple[Path, str]) -> None:
    (failed,) = (line for line in trained[1].splitlines() if line.startswith("failed"))
    assert failed.startswith(f"failed: tiny {FAILING.name}: ") and "dim" in failed


def test_the_table_says_what_ours_was_made_with(trained: tuple[Path, str]) -> None:
    row = next(line for line in trained[1].splitlines() if line.startswith("digits  3  psc, name mlp "))
    reached = [f"{100 * load_records([trained[0]])[PSC][key]:.2f}" for key in ("test", "test_top5", "validation")]
    assert row.split()[7:10] == reached
    machine = f"cpu ({processor()}, threads: {threads()}, jobs: 2)"
    assert f"Ours: mlp, adamw 0.01, 2 epochs, on {machine}, commit" in trained[1]


def test_bfloat16_has_records_of_its_own_and_begins_from_its_own_runs(tmp_path: Path) -> None:
    asked = ("--cell", "method=dynamic-from-psc", "--precision", "bf16-mixed", "--epochs", "1")
    assert reproduce("tiny", *asked, "--out", tmp_path) == 0
    record = load_records([tmp_path])[replace(FROM_PSC, epochs=1, precision="bf16-mixed")]
    assert record["settings"]["precision"] == "bf16-mixed"
    assert record["settings"]["head.trained"] == "digits-d3-psc-name=mlp-cnn-bf16-mixed-e1-seed0"


def test_cells_that_are_done_are_not_trained_again(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = trained[0]
    before = load_records([out])
    assert reproduce("tiny", "--out", out) == 0
    assert "done:" not in capsys.readouterr().out and load_records([out]) == before


def test_a_lost_record_is_written_from_the_run_folder(trained: tuple[Path, str]) -> None:
    place = Place(trained[0])
    before = read_record(place.record(PSC))
    place.record(PSC).unlink()
    assert reproduce("tiny", "--cell", "method=psc", "--out", trained[0]) == 0
    assert without_times(read_record(place.record(PSC))) == without_times(before)


def test_the_list_has_the_state_and_the_command_of_each_cell(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce("tiny", "--list", "--seeds", "0,7", "--cell", "digits,method=psc", "--out", trained[0]) == 0
    state, _, other, command = capsys.readouterr().out.splitlines()
    test = load_records([trained[0]])[PSC]["test"]
    assert state == f"tiny {PSC.name}: done, test {100 * test:.2f} %"
    assert other == f"tiny {replace(PSC, seed=7).name}: not run"
    assert command.startswith("    fastproto-train --data.name digits") and "--seed 7" in command


def test_cells_of_the_paper_run_on_a_folder_of_pictures(tmp_path: Path) -> None:
    """Two steps each, on the CPU: the command for a GPU but for its accelerator."""
    root, out = tmp_path / "cifar100", tmp_path / "out"
    write_pictures(root, classes=100)
    methods = ("psc", "dynamic", "dynamic-power-auto")
    asked = [word for method in methods for word in ("--cell", f"cifar100,d=50,method={method}")]
    budget = ["--recipe", "paper", "--epochs", "1", "--accelerator", "cpu", "--jobs", "2"]
    assert main(["table1", *asked, *budget, "--root", f"cifar100={root}", "--out", str(out)], "", committed=out) == 0
    records = load_records([out])
    assert {cell.method for cell in records} == set(methods)
    for cell, record in records.items():
        assert (cell.recipe, record["settings"]["model.name"]) == ("resnet32", "resnet32-hpn")
        assert record["train_images"] == 200 and record["shots"]["few"]["classes"] == 100
        assert record["settings"]["head.power"] == (2.0 if cell.method == "dynamic-power-auto" else None)


def write_pictures(root: Path, classes: int) -> None:
    """Three training pictures and a test picture of each class, in one colour."""
    for label in range(classes):
        for part, count in (("train", 3), ("test", 1)):
            folder = root / part / f"class{label:03}"
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (32, 32), (label, 255 - label, 60 * index)).save(folder / f"{index}.png")


# --- stopped and killed ----------------------------------------------------------------------------------------------


def begin(out: Path) -> subprocess.Popen[str]:
    """The cell ``DYNAMIC`` as a command of its own, at its next checkpoint."""
    last = Place(out).run(DYNAMIC) / "checkpoints" / "last.ckpt"
    before = last.stat().st_ino if last.exists() else None
    command = [sys.executable, "-c", PROGRAM, "tiny", "--jobs", "2", "--accelerator", "cpu", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and (not last.exists() or last.stat().st_ino == before):
        time.sleep(0.002)
    return process


def wait_until_ended(run: Path) -> None:
    """Until no process holds the lock of the run folder."""
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_cell_that_is_terminated_and_then_killed_goes_on(trained: tuple[Path, str], tmp_path: Path) -> None:
    place = Place(tmp_path)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = begin(tmp_path)
        process.send_signal(number)
        printed, _ = process.communicate()
        assert process.returncode == code and not place.record(DYNAMIC).exists(), printed
        assert ("stopped with cells to go: 1" in printed) == (number == signal.SIGTERM)
        wait_until_ended(place.run(DYNAMIC))  # what the command has started ends with it
    assert reproduce("tiny", "--cell", "method=dynamic", "--out", tmp_path) == 0
    assert json.loads((place.run(DYNAMIC) / "versions.json").read_text())["resumed"] is not None
    undisturbed = read_record(Place(trained[0]).record(DYNAMIC))
    assert without_times(read_record(place.record(DYNAMIC))) == without_times(undisturbed)


def test_a_budget_of_time_stops_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = ("tiny", "--cell", "method=psc", "--epochs", "1000000", "--minutes", "0.01")
    assert reproduce(*longer, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "not run" in printed and "stopped with cells to go: 1; the same command goes on" in printed
