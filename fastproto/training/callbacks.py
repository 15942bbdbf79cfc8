"""What happens between steps: the assignment is renewed, metrics and checkpoints are written."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from fastproto.files import write_whole
from fastproto.head import PrototypeHead
from fastproto.training.checkpoints import KEY, describe
from fastproto.training.module import Classifier


class RenewAssignment(L.Callback):
    """Renew the assignment every τ = (steps of an epoch) / (renewals per epoch) iterations (Algorithm 1).

    The renewal comes before the step that follows, thus after the validation and the checkpoint at the end of an epoch:
    the assignment that was validated is the one that is saved, and training never ends on an assignment nobody trained.
    Whether a step begins with a renewal depends on its number alone, so a resumed run renews where it would have.
    """

    def __init__(self, renewals_per_epoch: float) -> None:
        self.renewals_per_epoch = renewals_per_epoch

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Classifier)
        head, step = module.head, trainer.global_step
        if not isinstance(head, PrototypeHead) or not self._due(step, trainer.num_training_batches):
            return
        found = head.reassign()
        trainer.logger.log_metrics(  # type: ignore[union-attr]
            {
                "epoch": trainer.current_epoch,
                "assignment/changed": (found.changed or 0) / head.num_classes,
                "assignment/objective": found.objective,
                "assignment/gap": found.gap,
                "assignment/certified": float(found.certified),
                "assignment/seconds": found.seconds,
            },
            step=step,
        )

    def _due(self, step: int, steps_per_epoch: int | float) -> bool:
        rate = self.renewals_per_epoch / steps_per_epoch
        # Rounded, so that 3 renewals over 7 steps do not slip by a step for the sake of the last bit of a product.
        return step > 0 and math.floor(round(step * rate, 9)) > math.floor(round((step - 1) * rate, 9))


class WriteCheckpoints(L.Callback):
    """After every epoch: ``last.ckpt``, and ``best.ckpt`` when the validation accuracy is the highest so far.

    Between equal accuracies the lower validation loss decides: small validation sets tie often.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best: tuple[float, float] = (-1.0, -math.inf)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        score = (float(metrics["val/accuracy_top1"]), -float(metrics["val/loss"]))
        improved = score > self.best
        if improved:
            self.best = score
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(module, Classifier)
        checkpoint[KEY] = describe(module)

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (self.folder / "best.ckpt").exists():
            self.best = tuple(state_dict["best"])


class MetricsFile(Logger):
    """``metrics.csv``: one row for each logged event, with a column for each quantity.

    Lightning's own CSV logger starts an empty file when a run is resumed; this one keeps the rows up to the checkpoint.
    """

    def __init__(self, path: Path, keep_before_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []  # of the file as it stands
        self.started = time.perf_counter()
        if keep_before_step is not None and path.is_file():
            # A crash may have cut the last line short: only lines that end count.
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(whole)]
            self.rows = [row for row in rows if int(row["step"]) < keep_before_step]

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
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
            return
        self.columns = list(dict.fromkeys(key for known in self.rows for key in known))
        write_whole(self.path, self._write)

    def _write(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
