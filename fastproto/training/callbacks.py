"""Callbacks of every run: write the checkpoints, and end all ranks when one of them fails."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from fastproto.support.atomic_files import write_whole
from fastproto.support.stopping import stopping
from fastproto.training.checkpoint_files import KEY
from fastproto.training.classifier import Classifier
from fastproto.training.config_files import config_text
from fastproto.training.metrics import log_training_epoch
from fastproto.training.settings_and_flags import TrainConfig


class WriteCheckpoints(L.Callback):
    """After every epoch: ``last.ckpt``, and ``best.ckpt`` when the validation accuracy is the highest so far.

    The lower validation loss breaks ties in accuracy, which are frequent on small validation sets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best: tuple[float, float] = (-1.0, -math.inf)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        log_training_epoch(trainer)
        metrics = trainer.callback_metrics
        score = (float(metrics["val/accuracy_top1"]), -float(metrics["val/loss"]))
        improved = score > self.best
        if improved:
            self.best = score
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(module, Classifier)
        checkpoint[KEY] = module.description.to_dict()

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (self.folder / "best.ckpt").exists():
            self.best = tuple(state_dict["best"])


class WriteConfig(L.Callback):
    """Writes config.yaml again when the head is made: it then has the number of the power auto."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Classifier)
        write_config(self.folder, module.config)


class EndOtherRanks(L.Callback):
    """End all ranks when one raises an error: the others would wait for it in their next collective."""

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        stopping.fail(exception)


@rank_zero_only
def write_config(folder: Path, config: TrainConfig) -> None:
    text = config_text(config)
    write_whole(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
