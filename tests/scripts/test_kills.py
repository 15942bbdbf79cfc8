"""How scripts/kills judges and counts; the kills themselves are in tests/slow/test_moments.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.kills.leftovers import differences, messages, same
from lib.kills.runs import BEGIN, RESUME, Mark, next_arguments, session, wait_for_mark
from lib.kills.sets import rank_faults, signal_faults
from lib.kills.tally import Tally

ENDED = "terminated: go on with --resume run"


def leave(folder: Path) -> Path:
    """What a finished run leaves, as far as it is compared."""
    for name in ("checkpoints", "class_means"):
        (folder / name).mkdir(parents=True)
    for name in ("last", "best"):
        state = {"epoch": 3, "state_dict": {"w": torch.arange(4.0)}, "callbacks": [("a", 1.0)]}
        torch.save(state, folder / "checkpoints" / f"{name}.ckpt")
    np.savez(folder / "class_means" / "0.npz", class_means=np.ones(3))
    (folder / "metrics.csv").write_text("epoch,val/loss,seconds\n0,0.5,1.25\n")
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "classes.csv").write_text("label,accuracy_top1\n0,0.5\n")
    for name in ("curves.png", "cosines.png"):
        (folder / name).write_bytes(b"picture")
    return folder


def test_seconds_and_their_curve_may_differ_and_nothing_else(tmp_path: Path) -> None:
    whole, run = leave(tmp_path / "whole"), leave(tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,val/loss,seconds\n0,0.5,9.75\n")
    (run / "curves.png").write_bytes(b"other")
    assert differences(run, whole) == []
    torch.save({"epoch": 3, "state_dict": {"w": torch.ones(4)}, "callbacks": []}, run / "checkpoints" / "last.ckpt")
    np.savez(run / "class_means" / "0.npz", class_means=np.zeros(3))
    (run / "metrics.csv").write_text("epoch,val/loss,seconds\n0,0.25,9.75\n")
    (run / "config.yaml").write_text("seed: 1\n")
    (run / "classes.csv").write_text("label,accuracy_top1\n0,0.25\n")
    (run / "cosines.png").write_bytes(b"other")
    (run / ".best.part.ckpt").touch()
    found = differences(run, whole)
    assert ".best.part.ckpt" in found.pop(0)
    assert found == [
        "last.ckpt differs in state_dict",
        "last.ckpt differs in callbacks",
        "metrics.csv differs",
        "config.yaml differs",
        "classes.csv differs",
        "0.npz differs",
        "cosines.png differs",
    ]


def test_contents_are_equal_to_the_bit() -> None:
    one = torch.ones(2)
    assert same({"a": [one, (1, "x")]}, {"a": [one.clone(), (1, "x")]})
    assert not same(one, one.double()) and not same(one, [1.0, 1.0]) and not same([1], [1, 2])
    assert not same({"a": 1}, {"b": 1}) and not same([one], [one + torch.finfo().eps])


def test_the_next_command_is_what_a_user_would_type(tmp_path: Path) -> None:
    assert next_arguments(tmp_path) == BEGIN
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    assert next_arguments(tmp_path) == RESUME


def test_waiting_ends_with_the_mark_or_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("0.npz", "1.npz"):
        (tmp_path / "run" / name).touch()
    wait_for_mark(tmp_path, Mark("*.npz", 2), lambda: False)
    answers = iter([False, False, True])
    wait_for_mark(tmp_path, Mark("*.npz", 3), lambda: next(answers))
    assert list(answers) == []


def test_notes_are_no_messages(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_text("note: a hint\n\nterminated: bye\n")
    assert messages(tmp_path) == "terminated: bye"


@pytest.mark.parametrize(
    ("code", "text", "resumable", "late", "fault"),
    [
        (143, ENDED, True, False, None),
        (0, "", True, False, None),
        (1, "", True, True, None),
        (1, "broken", True, False, "exit code 1: broken"),
        (143, ENDED, False, False, "where a checkpoint is missing"),
        (143, "terminated: bye", True, False, "where a checkpoint is there"),
        (143, ENDED + "\nmore", True, False, "more than a sentence"),
        (143, "Traceback --resume", True, False, "said 'Traceback"),
    ],
)
def test_the_end_after_a_signal(code: int, text: str, resumable: bool, late: bool, fault: str | None) -> None:
    found = signal_faults(signal.SIGTERM, code, text, resumable, late)
    assert found == [] if fault is None else len(found) == 1 and fault in found[0]


def test_the_end_after_a_lost_rank() -> None:
    for code in (0, 143):
        assert rank_faults(signal.SIGTERM, 1, code, "" if code == 0 else ENDED) == []
    assert rank_faults(signal.SIGKILL, 0, -9, "rank 1 ended") == []
    assert rank_faults(signal.SIGKILL, 1, 137, "rank 1 ended") == []
    assert rank_faults(signal.SIGKILL, 1, -9, "rank 1 ended") == ["exit code -9: rank 1 ended"]
    (fault,) = rank_faults(signal.SIGTERM, 0, 143, "Traceback\nof something")
    assert fault.startswith("not one sentence")


def test_a_tally_counts_and_keeps_the_slowest(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally("signals")
    tally.add("SIGTERM", [], 0.5)
    tally.add("SIGINT", ["it went on", "exit code 1"], 2.0)
    tally.add("SIGTERM", [])
    assert tally.report() == "signals: 3 (1 SIGINT, 2 SIGTERM), 2 failed; the slowest end took 2.0 s"
    assert tally.failures == ["SIGINT: it went on", "SIGINT: exit code 1"]
    assert capsys.readouterr().out.count("FAILED signals, SIGINT: ") == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_the_processes_of_a_session() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert session(child.pid) == [child.pid] and os.getpid() not in session(child.pid)
    child.communicate(b"\n")
    assert session(child.pid) == []
