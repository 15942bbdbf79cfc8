"""Renews the heads inside of any LightningModule."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from torch import nn

from fastproto.assignment import Assignment
from fastproto.compat.renewal import heads_in, renew_assignments
from fastproto.compat.renewal_rate import RenewalRate
from fastproto.head import exclude_from_broadcast


class RenewAssignment(L.Callback):
    """Renew the assignment of every :class:`fastproto.PrototypeHead` inside of the module, anywhere.

    A renewal runs just before a batch, and so after the validation and the checkpoint at the end of an epoch: a
    checkpoint holds the assignment that was validated. Batches are counted, not steps of an optimiser: manual
    optimisation, several optimisers and accumulated gradients change nothing. The count is the trainer's own: a resumed
    run renews before the same batches.

    Before DDP wraps the module its heads are left out of the broadcast of buffers; a head that is made in
    ``configure_model`` needs :func:`fastproto.exclude_from_broadcast` there. Rank 0 solves the assignment.

    Args:
        per_epoch: renewals per epoch, above 0; any fraction.
        every_n_batches: the batches between two renewals, in place of ``per_epoch``; needed where a loader has no
            length.
        head: a module with the heads to renew; None: all of the module, also one that is frozen.
        log: whether to log ``renewal/changed`` (share of labels that moved), ``renewal/objective`` and ``renewal/gap``.

    The result of the last renewal is ``callback.last``, by the names of the heads.

    Raises:
        TypeError, ValueError: rates that are not above 0; when training starts, a module without a head, or a loader
            without a length and no ``every_n_batches``.
    """

    def __init__(
        self,
        per_epoch: float = 1.0,
        *,
        every_n_batches: int | None = None,
        head: nn.Module | None = None,
        log: bool = False,
    ) -> None:
        self.rate, self.head = RenewalRate(per_epoch, "every_n_batches", every_n_batches), head
        self.logged = log  # Lightning gives every callback a method log
        self.last: dict[str, Assignment] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        exclude_from_broadcast(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        heads_in(self._renewed(pl_module))
        self.rate.check_length(not math.isinf(trainer.num_training_batches))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.rate.due(trainer.fit_loop.epoch_loop.total_batch_idx, trainer.num_training_batches):
            self.last = renew_assignments(self._renewed(pl_module))
            if self.logged:
                self._log(pl_module)

    def _renewed(self, module: L.LightningModule) -> nn.Module:
        return module if self.head is None else self.head

    def _log(self, module: L.LightningModule) -> None:
        for name, found in self.last.items():
            prefix = "renewal" if len(self.last) == 1 else f"renewal/{name}"
            module.log(f"{prefix}/changed", (found.changed or 0) / len(found.permutation))
            module.log(f"{prefix}/objective", found.objective)
            module.log(f"{prefix}/gap", found.gap)
