"""Where the assignment starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from fastproto.training import fit, run
from fastproto.training.initial_assignment import initial_assignment, sample_of_each_class
from fastproto.training.renewals import RenewAssignment
from fastproto.training.settings_and_flags import HeadConfig

from .helpers import column, quick, rows, state

pytestmark = pytest.mark.usefixtures("no_pictures")


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
    kinds = [initial_assignment(HeadConfig(name), c) for name in ("prototype", "fixed") for c in (99, 100)]
    assert kinds == ["random", "aligned", "random", "random"]
    assert initial_assignment(HeadConfig("fixed", initial_assignment="features"), 1000) == "features"
    assert initial_assignment(HeadConfig(loss="official"), 1000) == "random"


def test_fixed_heads_keep_the_initial_assignment(tmp_path: Path) -> None:
    fit(quick(tmp_path / "a", head__name="fixed", head__initial_assignment="aligned", optim__epochs=1))
    assert len(column(tmp_path / "a", "assignment/objective")) == 1
    fit(quick(tmp_path / "b", head__name="softmax", head__initial_assignment="aligned", optim__epochs=1))
    assert column(tmp_path / "b", "assignment/objective") == []
