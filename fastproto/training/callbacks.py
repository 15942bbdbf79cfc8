"""What happens between steps: metrics and checkpoints are written."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from fastproto.support.atomic_files import naming, write_whole
from fastproto.support.stopping import stopping
from fastproto.training.checkpoint_files import KEY
from fastproto.training.classifier import Classifier


class WriteCheckpoints(L.Callback):
    """After every epoch: ``last.ckpt``, and ``best.ckpt`` when the validation accuracy is the highest so far.

    Between equal accuracies the lower validation loss decides: small validation sets tie often. The epoch's training
    loss is logged before them: Lightning would log it afterwards, and a run killed in between would lack it for good.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best: tuple[float, float] = (-1.0, -math.inf)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        for logger in trainer.loggers:
            row = {"epoch": trainer.current_epoch, "train/loss": float(metrics["train/loss"])}
            logger.log_metrics(row, step=trainer.global_step - 1)
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


class EndOtherRanks(L.Callback):
    """An error of one rank ends all: the others would wait for it in their next collective."""

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        stopping.fail(exception)


class MetricsFile(Logger):
    """``metrics.csv``: one row for each logged event, with a column for each quantity.

    Lightning's own CSV logger starts an empty file when a run is resumed; this one keeps the rows up to the checkpoint,
    and ``seconds`` goes on from the last of them.

    Args:
        keep_before_step: steps that the checkpoint has done; None: a new run.
        source: the metrics of the resumed run, where it goes on in another folder.

    Raises:
        ValueError: the file to go on from is damaged.
    """

    def __init__(self, path: Path, keep_before_step: int | None = None, source: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []  # of the file as it stands
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
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        metrics = dict(metrics)
        epoch = metrics.pop("epoch", None)
        row: dict[str, Any] = {"epoch": "" if epoch is None else int(epoch), "step": step}
        row |= metrics | {"seconds": round(time.perf_counter() - self.started, 3)}
        self.rows.append(row)
        if self.columns and set(row) <= set(self.columns):
            self._append(row)
            return
        self.columns = list(dict.fromkeys(key for known in self.rows for key in known))
        write_whole(self.path, self._write)

    def _append(self, row: dict[str, Any]) -> None:
        whole = self.path.stat().st_size
        with naming(self.path):
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns, restval="").writerow(row)
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, whole)  # no room: not half a line either
                raise

    def _write(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _read_rows(path: Path, before_step: int) -> list[dict[str, Any]]:
    """A crash may have cut the last line short: only lines that end count."""
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
