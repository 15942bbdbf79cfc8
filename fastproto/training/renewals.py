"""When the assignment is renewed during training."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import lightning as L

from fastproto.head import PrototypeHead
from fastproto.training.class_means_files import read_class_means, save_class_means
from fastproto.training.classifier import Batch, Classifier
from fastproto.training.metrics import Renewal, log_renewal
from fastproto.training.renewal_schedule import Schedule
from fastproto.training.settings_and_flags import HeadConfig

__all__ = ["RenewAssignment", "Schedule", "read_class_means"]


class RenewAssignment(L.Callback):
    """Renew the assignment every τ = (steps of an epoch) / (renewals per epoch) iterations (Algorithm 1).

    A renewal runs just before a step, and so after the validation and the checkpoint at the end of an epoch: the
    checkpoint holds the validated assignment, and training never ends with an assignment that was not trained on.

    With ``assign_async`` a thread solves the assignment while training continues. The result is adopted before the
    first step after it is ready, at the latest when the next renewal is due. A checkpoint records that a renewal is
    pending, and a resumed run starts it again. A renewal that is pending after the last step is awaited and discarded.
    """

    def __init__(self, config: HeadConfig, folder: Path, seed: int = 0) -> None:
        self.config, self.folder, self.seed = config, folder, seed
        self.schedule = Schedule.of(config)
        self.pending: Future[Renewal] | None = None
        self.began, self.aligned = 0, False  # of the pending renewal: its first step, and whether it is an alignment
        self.unfinished: bool | None = None  # whether the one pending in the checkpoint is an alignment; None: none is

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        assert isinstance(module, Classifier)
        head, step, steps = module.head, trainer.global_step, trainer.num_training_batches
        if not isinstance(head, PrototypeHead):
            return
        due = self.schedule.due(module.position, steps)
        if self.pending is not None:
            found = head.finish_renewal(self.pending, wait=due)
            if found is not None:
                self.pending = None
                self._log(trainer, head, found, delay=step - self.began)
        if due or self.unfinished is not None:
            aligned = (
                self.config.early_alignment and self.schedule.early(module.position, steps)
                if due
                else bool(self.unfinished)
            )
            self.unfinished = None
            self._renew(trainer, head, aligned)

    def _renew(self, trainer: L.Trainer, head: PrototypeHead, aligned: bool) -> None:
        step = trainer.global_step
        if self.config.save_class_means and trainer.is_global_zero:
            save_class_means(self.folder, step, head)
        if self.config.assign_async:
            self.pending, self.began = head.begin_renewal(aligned=aligned, seed=self.seed), step
            self.aligned = aligned
        else:
            self._log(trainer, head, head.align(seed=self.seed) if aligned else head.reassign())

    def _log(self, trainer: L.Trainer, head: PrototypeHead, found: Renewal, delay: int | None = None) -> None:
        if log_renewal(trainer, found, head.num_classes, delay=delay):
            raise KeyboardInterrupt  # the search caught Ctrl-C, which was meant for the run

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Classifier)
        if self.pending is not None and isinstance(module.head, PrototypeHead):
            module.head.finish_renewal(self.pending, adopt=False)
            self.pending = None

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.pending = None  # nobody waits for it: its thread ends with the process

    @property
    def state_key(self) -> str:
        return "RenewAssignment"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.pending is None else {"unfinished": self.aligned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.unfinished = state_dict["unfinished"]
