"""When a callback renews: so many times in an epoch, or every so many steps."""

from __future__ import annotations

import math

from fastproto.support.checks import real, whole
from fastproto.training.renewal_schedule import Schedule


class RenewalRate:
    """``per_epoch`` renewals in an epoch, above 0, or one every ``every`` steps; ``name`` is that option's name.

    Raises:
        TypeError, ValueError: a rate that is not above 0, or ``every`` that is no integer above 0.
    """

    def __init__(self, per_epoch: float, name: str, every: int | None) -> None:
        rate = real("per_epoch", per_epoch)
        if not 0 < rate < math.inf:
            raise ValueError(f"per_epoch is {per_epoch}; expected a rate > 0: leave the callback out for no renewals")
        self.schedule, self.name = Schedule(rate), name
        self.every = None if every is None else whole(name, every)
        if self.every is not None and self.every < 1:
            raise ValueError(f"{name} is {every}; expected at least 1: leave the callback out for no renewals")

    def check_length(self, known: bool) -> None:
        """Raise ValueError for a training loader whose length is needed and not known."""
        if self.every is None and not known:
            raise ValueError(
                f"the training loader has no length; expected one, or {self.name}: pass "
                f"RenewAssignment({self.name}=1000)"
            )

    def due(self, step: int, steps_per_epoch: float) -> bool:
        """Whether to renew before this step, counted from 0 over all epochs; never before the first one."""
        if self.every is not None:
            return step > 0 and step % self.every == 0
        return self.schedule.due(step, steps_per_epoch)
