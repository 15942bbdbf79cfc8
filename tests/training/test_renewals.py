"""Where the assignment starts and when it is renewed: initial assignments, schedules, the background, saved means."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

import fastproto.head_state as head_module
from fastproto.assignment import Assignment, assign
from fastproto.training import fit, renewals, run
from fastproto.training.checkpoint_files import read_checkpoint
from fastproto.training.config import HeadConfig
from fastproto.training.renewals import RenewAssignment, Schedule, read_class_means, sample_of_each_class

from .test_fit import Stop, column, quick, rows


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the time of a short run, and none is looked at here."""
    monkeypatch.setattr(run, "_draw", lambda *args: None)


def state(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return found


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [7, 10])
def test_early_renewals_come_more_often(steps: int) -> None:
    schedule = Schedule(per_epoch=1.0, early_epochs=2.0, early_per_epoch=3.0)
    due = [step for step in range(6 * steps + 1) if schedule.due(step, steps)]
    early = [step for step in due if schedule.early(step, steps)]
    assert len(early) == 6 and early[-1] == 2 * steps
    assert due[6:] == [3 * steps, 4 * steps, 5 * steps, 6 * steps]
    gaps = [b - a for a, b in itertools.pairwise([0, *early])]
    assert max(gaps) - min(gaps) <= 1


def test_without_early_epochs_the_early_rate_means_nothing() -> None:
    plain, odd = Schedule(1.7), Schedule(1.7, 0.0, 50.0)
    assert [plain.due(step, 13) for step in range(200)] == [odd.due(step, 13) for step in range(200)]
    assert not any(odd.early(step, 13) for step in range(1, 200))


# --- where it starts -------------------------------------------------------------------------------------------------


def test_a_sample_of_each_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [3] * 20)[torch.randperm(73)]
    chosen = sample_of_each_class(labels, 5, seed=0)
    assert torch.bincount(labels[chosen], minlength=4).tolist() == [5, 3, 0, 5]
    assert len(chosen.unique()) == len(chosen)
    assert torch.equal(chosen, sample_of_each_class(labels, 5, seed=0))
    assert not torch.equal(chosen, sample_of_each_class(labels, 5, seed=1))


class Watch(RenewAssignment):
    """The head as the first step finds it."""

    heads: list[dict[str, torch.Tensor]]
    statistics: torch.Tensor

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 0:
            Watch.heads.append({k: v.clone() for k, v in module.head.state_dict().items()})
            assert module.backbone.training
            norms = [m for m in module.backbone.modules() if isinstance(m, torch.nn.BatchNorm1d)]
            assert all(not m.running_mean.any() for m in norms), "the look at the backbone must leave no trace"  # type: ignore[union-attr]
        super().on_train_batch_start(trainer, module, batch, batch_idx)


def test_initial_assignments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Watch.heads = []
    monkeypatch.setattr(run, "RenewAssignment", Watch)
    kinds = ("random", "features", "aligned")
    for kind in kinds:
        fit(quick(tmp_path / kind, head__initial_assignment=kind, head__dim=3, optim__epochs=1))
    random, features, aligned = Watch.heads
    assert all(not found["class_means"].any() and not found["updates"] for found in Watch.heads)
    assert torch.equal(features["prototypes"], random["prototypes"])
    assert not torch.equal(features["assignment"], random["assignment"])
    assert not torch.allclose(aligned["prototypes"], random["prototypes"], atol=0.01)
    grams = [found["prototypes"] @ found["prototypes"].T for found in (random, aligned)]
    torch.testing.assert_close(grams[0], grams[1], rtol=0, atol=1e-5)
    first = {kind: next(row for row in rows(tmp_path / kind) if "assignment/objective" in row) for kind in kinds[1:]}
    assert all(row["step"] == "0" and row["assignment/certified"] == "1.0" for row in first.values())
    assert all("assignment/changed" not in row for row in first.values()), "a random start has no labels to move"
    gained = [float(first[kind]["assignment/objective"]) for kind in kinds[1:]]
    assert gained[1] >= gained[0] > 0
    assert torch.equal(state(tmp_path / "aligned")["head.prototypes"], aligned["prototypes"])


def test_the_default_start() -> None:
    kinds = [renewals.initial_assignment(HeadConfig(name), c) for name in ("prototype", "fixed") for c in (99, 100)]
    assert kinds == ["random", "aligned", "random", "random"]
    assert renewals.initial_assignment(HeadConfig("fixed", initial_assignment="features"), 1000) == "features"
    assert renewals.initial_assignment(HeadConfig(loss="official"), 1000) == "random"


def test_fixed_heads_keep_the_initial_assignment(tmp_path: Path) -> None:
    fit(quick(tmp_path / "a", head__name="fixed", head__initial_assignment="aligned", optim__epochs=1))
    assert len(column(tmp_path / "a", "assignment/objective")) == 1
    fit(quick(tmp_path / "b", head__name="softmax", head__initial_assignment="aligned", optim__epochs=1))
    assert column(tmp_path / "b", "assignment/objective") == []


def test_early_alignments_turn_prototypes_and_a_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {
        "optim__epochs": 3,
        "head__dim": 3,
        "head__initial_assignment": "aligned",
        "head__early_epochs": 2.0,
        "head__early_renewals_per_epoch": 2.0,
        "head__early_alignment": True,
    }
    fit(quick(tmp_path / "whole", **changes))
    turned = [row["step"] for row in rows(tmp_path / "whole") if "assignment/turns" in row]
    assert turned[0] == "0" and len(turned) == 5  # the first, and two in each of two epochs
    renewed = [row["step"] for row in rows(tmp_path / "whole") if "assignment/changed" in row]
    assert renewed == turned[1:]  # the renewal at the end of the third epoch has no step to come before

    class Dies(RenewAssignment):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 25:  # in the middle of the second epoch
                raise Stop
            super().on_train_batch_start(trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(run, "RenewAssignment", Dies)
        with pytest.raises(Stop):
            fit(quick(tmp_path / "halves", **changes))
    fit(quick(tmp_path / "halves", **changes, resume=str(tmp_path / "halves")))
    assert rows(tmp_path / "halves") == rows(tmp_path / "whole")
    whole, halves = state(tmp_path / "whole"), state(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head__initial_assignment": "best"}, "one of auto, random, features, aligned"),
        ({"head__initial_samples": 0}, "head.initial_samples is 0; expected at least 1"),
        ({"head__early_epochs": -1.0}, "head.early_epochs is -1.0; expected at least 0"),
        ({"head__early_renewals_per_epoch": float("nan")}, "head.early_renewals_per_epoch"),
    ],
)
def test_settings_that_no_run_can_use(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fit(quick(tmp_path, **changes))


# --- in the background -----------------------------------------------------------------------------------------------

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


# --- saved class means -----------------------------------------------------------------------------------------------


def test_class_means_are_saved_as_a_renewal_finds_them(tmp_path: Path) -> None:
    changes = {"head__save_class_means": True, "head__renewals_per_epoch": 2.0, "head__dim": 3}
    fit(quick(tmp_path, **changes))
    saved = read_class_means(tmp_path)
    steps = [int(row["step"]) for row in rows(tmp_path) if "assignment/changed" in row]
    assert saved["step"].tolist() == steps and len(steps) == 3
    assert saved["class_means"].shape == saved["prototypes"].shape == (3, 10, 3)
    changed = column(tmp_path, "assignment/changed")
    after = [*saved["assignment"][1:], state(tmp_path)["head.assignment"].numpy()]
    for before, found, means, w, share in zip(
        saved["assignment"], after, saved["class_means"], saved["prototypes"], changed, strict=True
    ):
        assert share == pytest.approx(np.mean(before != found))
        best = assign(torch.from_numpy(means), torch.from_numpy(w)).objective
        q = means / np.linalg.norm(means, axis=1, keepdims=True)
        assert float((q * w[found]).sum()) == pytest.approx(best, abs=1e-4)


def test_a_run_without_saved_class_means(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="save_class_means true"):
        read_class_means(tmp_path)
