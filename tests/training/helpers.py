"""What several tests of the trainer need: short runs on the handwritten digits, and what they leave behind."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from fastproto.training import TrainConfig, fit, run
from fastproto.training.checkpoint_files import read_checkpoint
from fastproto.training.classifier import Batch
from fastproto.training.renewals import RenewAssignment

PLAIN = ("classes.csv", "config.yaml", "curves.png", "cosines.png", "metrics.csv", "versions.json")


def quick(out: Path, **changes: Any) -> TrainConfig:
    """Two epochs of an MLP: a second or less."""
    config = TrainConfig(out=str(out), progress=False, accelerator="cpu")
    config.model.name, config.optim.epochs = "mlp", 2
    for key, value in changes.items():
        *groups, last = key.split("__")
        target: Any = config
        for group in groups:
            target = getattr(target, group)
        setattr(target, last, value)
    return config


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, but what was empty and what time it took."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v != "" and "seconds" not in k} for row in csv.DictReader(file)]


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if name in row]


def state(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return found


class Stop(Exception):
    """The machine goes down."""


class Dies(RenewAssignment):
    """The machine goes down before step 25, in the middle of the second epoch."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step == 25:
            raise Stop
        super().on_train_batch_start(trainer, module, batch, batch_idx)


def trained_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    """The folder of a run, after a check that one which is stopped and goes on has the same rows and weights."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    fit(quick(whole, **changes))
    with monkeypatch.context() as patch:
        patch.setattr(run, "RenewAssignment", Dies)
        with pytest.raises(Stop):
            fit(quick(halves, **changes))
    fit(quick(halves, **changes, resume=str(halves)))
    assert rows(halves) == rows(whole)
    before, after = state(whole), state(halves)
    assert all(torch.equal(before[name], after[name]) for name in before)
    return whole
