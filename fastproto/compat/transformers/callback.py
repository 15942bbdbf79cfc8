"""Renews the heads inside of the model of a ``transformers.Trainer``."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from fastproto.assignment import Assignment
from fastproto.compat.renewal import renew_assignments
from fastproto.compat.renewal_rate import RenewalRate


class RenewAssignment(TrainerCallback):
    """Renew the assignment of every :class:`fastproto.PrototypeHead` inside of the model, anywhere.

    A renewal runs just before a step of the optimiser, and so after the evaluation and the checkpoint at the end of an
    epoch. It depends on ``state.global_step`` alone: a resumed run renews at the same steps.

    Args:
        per_epoch: renewals per epoch, above 0; any fraction.
        head: a module with the heads to renew; None: all of the model, also one that is frozen.
        every_n_steps: the steps between two renewals, in place of ``per_epoch``; needed where a loader has no length.

    The result of the last renewal is ``callback.last``, by the names of the heads.

    Raises:
        TypeError, ValueError: rates that are not above 0; when training starts, a loader without a length and no
            ``every_n_steps``; before the first renewal, a model without a head.
    """

    def __init__(
        self, per_epoch: float = 1.0, head: nn.Module | None = None, *, every_n_steps: int | None = None
    ) -> None:
        self.rate, self.head = RenewalRate(per_epoch, "every_n_steps", every_n_steps), head
        self.last: dict[str, Assignment] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.rate.check_length(has_length(kwargs["train_dataloader"]))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loader = kwargs["train_dataloader"]
        steps = math.ceil(len(loader) / args.gradient_accumulation_steps) if has_length(loader) else math.inf
        if self.rate.due(state.global_step, steps):
            self.last = renew_assignments(kwargs["model"] if self.head is None else self.head)
