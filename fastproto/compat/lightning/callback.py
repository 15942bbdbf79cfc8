"""Renews the heads inside of any LightningModule."""

from __future__ import annotations

import math
from typing import Any

import lightning as L

from fastproto.assignment import Assignment
from fastproto.compat.renewal import heads_in, renew_assignments
from fastproto.head import exclude_from_broadcast
from fastproto.support.checks import real
from fastproto.training.renewal_schedule import Schedule


class RenewAssignment(L.Callback):
    """Renew the assignment of every :class:`fastproto.PrototypeHead` inside of the module, anywhere.

    A renewal runs just before a batch, and so after the validation and the checkpoint at the end of an epoch: a
    checkpoint holds the assignment that was validated. Batches are counted, not steps of an optimiser: manual
    optimisation, several optimisers and accumulated gradients change nothing. A resumed run renews before the same
    batches.

    Before DDP wraps the module its heads are left out of the broadcast of buffers; a head that is made in
    ``configure_model`` needs :func:`fastproto.exclude_from_broadcast` there. Rank 0 solves the assignment.

    Args:
        per_epoch: renewals per epoch, above 0; any fraction.
        every_n_batches: the batches between two renewals, in place of ``per_epoch``; needed where a loader has no
            length.
        log: whether to log ``renewal/changed`` (share of labels that moved), ``renewal/objective`` and ``renewal/gap``.

    The result of the last renewal is ``callback.last``, by the names of the heads.

    Raises:
        ValueError: rates that are not above 0; when training starts, a module without a head, or a loader without a
            length and no ``every_n_batches``.
    """

    def __init__(self, per_epoch: float = 1.0, *, every_n_batches: int | None = None, log: bool = False) -> None:
        rate = real("per_epoch", per_epoch)
        if not 0 < rate < math.inf or (every_n_batches is not None and every_n_batches < 1):
            raise ValueError(
                f"per_epoch is {per_epoch} and every_n_batches {every_n_batches}; expected a rate > 0 and at least 1 "
                "batch: leave the callback out where nothing is to be renewed"
            )
        self.every_n_batches = every_n_batches
        self.logged = log  # Lightning gives every callback a method log
        self.schedule = Schedule(rate)
        self.batches = 0  # begun so far, all epochs together
        self.last: dict[str, Assignment] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        exclude_from_broadcast(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        heads_in(pl_module)
        if self.every_n_batches is None and math.isinf(trainer.num_training_batches):
            raise ValueError(
                "the training loader has no length; expected one, or every_n_batches: pass "
                "RenewAssignment(every_n_batches=1000)"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._due(self.batches, trainer.num_training_batches):
            self.last = renew_assignments(pl_module)
            if self.logged:
                self._log(pl_module)
        self.batches += 1

    def _due(self, batch: int, batches_per_epoch: float) -> bool:
        if self.every_n_batches is not None:
            return batch > 0 and batch % self.every_n_batches == 0
        return self.schedule.due(batch, batches_per_epoch)

    def _log(self, module: L.LightningModule) -> None:
        for name, found in self.last.items():
            prefix = "renewal" if len(self.last) == 1 else f"renewal/{name}"
            module.log(f"{prefix}/changed", (found.changed or 0) / len(found.permutation))
            module.log(f"{prefix}/objective", found.objective)
            module.log(f"{prefix}/gap", found.gap)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]
