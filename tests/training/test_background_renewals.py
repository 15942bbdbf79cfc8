"""Renewals that are solved in a thread while steps go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import fastproto.head_state as head_module
from fastproto.assignment import Assignment, assign
from fastproto.training import fit, run
from fastproto.training.checkpoint_files import read_checkpoint
from fastproto.training.renewals import RenewAssignment

from .helpers import Stop, column, quick, rows, state

pytestmark = pytest.mark.usefixtures("no_pictures")

ASYNC: dict[str, Any] = {"head__assign_async": True, "head__renewals_per_epoch": 2.0, "head__dim": 3}


class Gate:
    """Solves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        monkeypatch.setattr(head_module, "assign", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Assignment:
        assert threading.current_thread() is not threading.main_thread()
        self.begun.set()
        self.open.wait()
        return assign(*args, **kwargs)


def hook(monkeypatch: pytest.MonkeyPatch, at: int, action: Any, **more: Any) -> None:
    """Do something before a step, with the callback that renews; ``more`` names further steps (step_5=...)."""
    actions = {at: action} | {int(name.removeprefix("step_")): later for name, later in more.items()}

    class Hooked(RenewAssignment):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step in actions:
                actions[trainer.global_step](self, module.head)
            super().on_train_batch_start(trainer, module, batch, batch_idx)

    monkeypatch.setattr(run, "RenewAssignment", Hooked)


def test_steps_go_on_while_a_renewal_is_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = Gate(monkeypatch), {}

    def look(callback: RenewAssignment, head: Any) -> None:  # five steps after the renewal before step 10 began
        assert gate.begun.wait(60) and callback.pending is not None and not callback.pending.done()
        seen["before"] = head.assignment.clone()
        gate.open.set()
        callback.pending.result()  # now done, and adopted before this very step

    def shuffle(callback: RenewAssignment, head: Any) -> None:
        head.class_means.copy_(head.class_means.roll(1, 0))  # so that the renewal has something to change

    hook(monkeypatch, 15, look, step_10=shuffle)
    fit(quick(tmp_path, **ASYNC, optim__epochs=1))
    (row,) = (row for row in rows(tmp_path) if "assignment/changed" in row)
    assert (row["step"], row["assignment/delay_steps"]) == ("15", "5")
    assert float(row["assignment/changed"]) > 0
    assert not torch.equal(state(tmp_path)["head.assignment"], seen["before"])


def test_a_renewal_is_waited_for_where_the_next_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    hook(monkeypatch, 19, lambda callback, head: gate.open.set())
    fit(quick(tmp_path, **ASYNC))
    assert next(row["step"] for row in rows(tmp_path) if "assignment/changed" in row) == "19"
    delays = column(tmp_path, "assignment/delay_steps")
    assert len(delays) >= 2 and delays[0] == 9


def test_an_unfinished_renewal_is_started_again_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    def die(callback: RenewAssignment, head: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        hook(patch, 19, die)  # the first step of the second epoch, before which a renewal is due
        with pytest.raises(Stop):
            fit(quick(tmp_path, **ASYNC))
    gate.open.set()
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert saved["callbacks"]["RenewAssignment"] == {"unfinished": False}
    fit(quick(tmp_path, **ASYNC, resume=str(tmp_path)))
    assert column(tmp_path, "assignment/delay_steps")


def test_an_error_of_the_thread_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(callback: RenewAssignment, head: Any) -> None:
        head.class_means.fill_(float("nan"))

    hook(monkeypatch, 10, spoil)
    with pytest.raises(ValueError, match="class_means holds NaN"):
        fit(quick(tmp_path, **ASYNC, optim__epochs=1))


def test_an_interruption_does_not_wait_for_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    def interrupt(callback: RenewAssignment, head: Any) -> None:
        raise KeyboardInterrupt

    hook(monkeypatch, 12, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(quick(tmp_path, **ASYNC))
    assert not gate.open.is_set()
    gate.open.set()
