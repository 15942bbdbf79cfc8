"""When the assignment is renewed: a function of the step alone. Imports neither torch nor Lightning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastproto.training.settings_and_flags import HeadConfig


@dataclass(frozen=True)
class Schedule:
    """When renewals are due: a function of the step alone, so that a resumed run renews at the same steps."""

    per_epoch: float = 1.0
    early_epochs: float = 0.0
    early_per_epoch: float = 0.0

    @classmethod
    def of(cls, config: HeadConfig) -> Schedule:
        return cls(config.renewals_per_epoch, config.early_epochs, config.early_renewals_per_epoch)

    def early(self, step: int, steps_per_epoch: float) -> bool:
        return step <= self.early_epochs * steps_per_epoch

    def due(self, step: int, steps_per_epoch: float) -> bool:
        """Whether the assignment is renewed before this step; never before the first one."""
        return step > 0 and self._count(step, steps_per_epoch) > self._count(step - 1, steps_per_epoch)

    def _count(self, step: int, steps_per_epoch: float) -> int:
        epochs = step / steps_per_epoch
        early = min(epochs, self.early_epochs)
        # Rounded: the last bit of a product must not delay a renewal by a step, as it would for 3 renewals in 7 steps.
        return math.floor(round(early * self.early_per_epoch + (epochs - early) * self.per_epoch, 9))
