"""Renews the heads inside of the model of a ``transformers.Trainer``."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fastproto.assignment import Assignment
from fastproto.compat.renewal import renew_assignments
from fastproto.support.checks import real
from fastproto.training.renewal_schedule import Schedule


class RenewAssignment(TrainerCallback):
    """Renew the assignment of every :class:`fastproto.PrototypeHead` inside of the model, anywhere.

    A renewal runs just before a step, and so after the evaluation and the checkpoint at the end of an epoch. It depends
    on ``state.global_step`` alone: a resumed run renews at the same steps.

    Args:
        per_epoch: renewals per epoch, above 0; any fraction.
        head: a module with the heads, where they are not inside of the model.

    The result of the last renewal is ``callback.last``, by the names of the heads.

    Raises:
        ValueError: a rate that is not above 0; before the first renewal, a model without a head.
    """

    def __init__(self, per_epoch: float = 1.0, head: nn.Module | None = None) -> None:
        rate = real("per_epoch", per_epoch)
        if not 0 < rate < math.inf:
            raise ValueError(f"per_epoch is {per_epoch}; expected a rate > 0: leave the callback out for no renewals")
        self.schedule, self.head = Schedule(rate), head
        self.last: dict[str, Assignment] = {}

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.schedule.due(state.global_step, state.max_steps / state.num_train_epochs):
            self.last = renew_assignments(kwargs["model"] if self.head is None else self.head)
