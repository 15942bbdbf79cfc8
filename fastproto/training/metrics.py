"""The metrics of a run: in training, on held-out samples and at renewals; and the file ``metrics.csv``."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fastproto.assignment import Alignment, Assignment
from fastproto.support.atomic_files import naming, write_whole

Renewal = Assignment | Alignment
Row = dict[str, str | int | float]  # of metrics.csv; values read from the file are text


def log_training_step(module: L.LightningModule, loss: Tensor, features: Tensor, labels: Tensor) -> None:
    """Add a step to the means of its epoch, which :func:`log_training_epoch` writes.

    ``features`` [B, D] and ``labels`` [B] are at hand for further metrics.
    """
    module.log(
        "train/loss",
        loss.detach(),
        on_step=False,
        on_epoch=True,
        logger=False,
        prog_bar=True,
        batch_size=len(labels),
        sync_dist=True,
    )


def log_training_epoch(trainer: L.Trainer) -> None:
    """Write the row of an epoch's training metrics.

    Lightning would write it after the callbacks that save the checkpoint: a run killed in between would lose it.
    """
    means = {name: float(mean) for name, mean in trainer.callback_metrics.items() if name.startswith("train/")}
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **means}, step=trainer.global_step - 1)


class HeldOutMetrics:
    """Top-1 and top-5 accuracy and mean loss over held-out samples, each seen by exactly one rank."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []  # float64 [4] each: top-1 hits, top-k hits, summed loss, samples

    def add(self, hits: Tensor, loss: Tensor) -> None:
        """Add a batch.

        Args:
            hits: [B, k] bool: whether the label is the sample's first, second, ... prediction.
            loss: float64 scalar: the sum over the batch.
        """
        samples = torch.full_like(loss, len(hits))
        self.batches.append(torch.stack([hits[:, 0].sum().double(), hits.sum().double(), loss, samples]))

    def take(self, add_ranks: Callable[[Tensor], Tensor], prefix: str) -> dict[str, float]:
        """Metrics of all batches since the last call, by their columns in metrics.csv.

        Args:
            add_ranks: sums a tensor over the ranks.
            prefix: of the columns, such as ``val``.
        """
        total = torch.stack(self.batches).sum(0) if self.batches else torch.zeros(4, dtype=torch.float64)
        self.batches = []
        top1, top5, loss, samples = add_ranks(total).tolist()
        count = max(samples, 1)
        found = {"accuracy_top1": top1 / count, "accuracy_top5": top5 / count, "loss": loss / count}
        return {f"{prefix}/{name}": value for name, value in found.items()}


def log_renewal(
    trainer: L.Trainer, found: Renewal, num_classes: int, *, first: bool = False, delay: int | None = None
) -> bool:
    """Write the row of a renewal; return whether Ctrl-C ended the search, which then returned the best it had found.

    Args:
        first: whether it replaces a random assignment, for which the number of moved labels is meaningless.
        delay: optimiser steps from the start of the renewal to its adoption.
    """
    inner = found.assignment if isinstance(found, Alignment) else found
    row = {
        "epoch": trainer.current_epoch,
        "assignment/objective": inner.objective,
        "assignment/gap": inner.gap,
        "assignment/certified": float(inner.certified),
        "assignment/seconds": inner.seconds,
    }
    if not first:
        row["assignment/changed"] = (inner.changed or 0) / num_classes
    if isinstance(found, Alignment):
        row |= {"assignment/seconds": found.seconds, "assignment/turns": found.rounds}
    if delay is not None:
        row["assignment/delay_steps"] = delay
    for logger in trainer.loggers:
        logger.log_metrics(row, step=trainer.global_step)
    return inner.interrupted or (isinstance(found, Alignment) and found.stopped == "interrupted")


class MetricsFile(Logger):
    """``metrics.csv``: one row for each logged event, with a column for each quantity.

    Lightning's own CSV logger starts an empty file when a run is resumed; this one keeps the rows up to the checkpoint,
    and ``seconds`` continues from the last of them.

    Args:
        keep_before_step: optimiser steps at the checkpoint: later rows are dropped; None: a new run.
        source: the metrics file of the resumed run, if it continues in another folder.

    Raises:
        ValueError: the file to continue is damaged.
    """

    def __init__(self, path: Path, keep_before_step: int | None = None, source: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: list[Row] = []
        self.columns: list[str] = []  # of the file on disk
        self.started = time.perf_counter()
        source = path if path.is_file() else source
        if keep_before_step is not None and source is not None and source.is_file():
            self.rows = _read_rows(source, keep_before_step)
            self.started -= max((float(row.get("seconds", 0)) for row in self.rows), default=0.0)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Do nothing: config.yaml of the run folder holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        metrics = dict(metrics)
        epoch = metrics.pop("epoch", None)
        row: Row = {"epoch": "" if epoch is None else int(epoch), "step": "" if step is None else step}
        row |= metrics | {"seconds": round(time.perf_counter() - self.started, 3)}
        self.rows.append(row)
        if self.columns and set(row) <= set(self.columns):
            self._append(row)
            return
        self.columns = list(dict.fromkeys(key for known in self.rows for key in known))
        write_whole(self.path, self._write)

    def _append(self, row: Row) -> None:
        whole = self.path.stat().st_size
        with naming(self.path):
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns, restval="").writerow(row)
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, whole)  # remove a partly written line
                raise

    def _write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _read_rows(path: Path, before_step: int) -> list[Row]:
    """Read the rows before a step, without a last line that a crash has cut short (no line end)."""
    try:
        whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(whole)]
        kept = [row for row in rows if int(row["step"]) < before_step]
        if not all(math.isfinite(float(row.get("seconds", 0))) and None not in row for row in kept):
            raise ValueError("a row does not fit the columns")
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(
            f"{path} is not the metrics file of a run ({type(error).__name__}: {error}); "
            "restore it, or move it away to go on without its rows"
        ) from error
    return kept
