"""Test accuracy of each class beside its number of training samples: the file ``classes.csv`` of a run folder."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fastproto.data import DataSplits
from fastproto.support.atomic_files import write_whole
from fastproto.training.classifier import Batch
from fastproto.training.run_folder import CLASSES

COLUMNS = ("label", "class", "train", "test", "accuracy_top1")


class WriteClasses(L.Callback):
    """Counts the top-1 hits of the test by class, and writes ``classes.csv`` before the test's row of metrics.csv."""

    def __init__(self, folder: Path, data: DataSplits) -> None:
        self.folder, self.names = folder, data.class_names
        self.train = torch.bincount(data.train.labels, minlength=len(data.class_names))

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.counts = torch.zeros(2, len(self.names), device=module.device, dtype=torch.int64)  # samples, hits

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """``outputs``: bool [B] of the test step, whether the first prediction is the label."""
        assert isinstance(outputs, Tensor)
        labels = batch[1]
        self.counts[0].scatter_add_(0, labels, torch.ones_like(labels))
        self.counts[1].scatter_add_(0, labels, outputs.long())

    def on_test_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        samples, hits = trainer.strategy.reduce(self.counts, reduce_op="sum").tolist()
        self._write(samples, hits)

    @rank_zero_only
    def _write(self, samples: list[int], hits: list[int]) -> None:
        rows = [
            (label, name, train, count, found / count if count else "")
            for label, (name, train, count, found) in enumerate(
                zip(self.names, self.train.tolist(), samples, hits, strict=True)
            )
        ]

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([COLUMNS, *rows])

        write_whole(self.folder / CLASSES, write)
