"""The losses of the prototype head by name: a power of 1 - cos, or cross-entropy over the prototypes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastproto.ops.ipm_loss import LossOptions, exponent_of, ipm_per_sample
from fastproto.ops.power_rule import power_for
from fastproto.ops.softmax_loss import check_scale, softmax_per_sample
from fastproto.support.loss_options import EQ6_POWER, LOSS_FACTORS, Loss, Scale

DEFAULT_SCALE = 16.0


class LossForm(NamedTuple):
    """factor · (1 - cos)^power / power, or with a scale the cross-entropy over the prototypes."""

    factor: float = 1.0
    power: float = EQ6_POWER
    scale: Scale | None = None

    def per_sample(
        self, features: Tensor, labels: Tensor, prototypes: Tensor, assignment: Tensor, options: LossOptions
    ) -> Tensor:
        """The loss of each sample [B] times factor and weight of ``options``."""
        if self.scale is not None:
            return softmax_per_sample(features, labels, prototypes, assignment, options, self.scale)
        return ipm_per_sample(features, labels, prototypes, assignment, options, self.power)


def loss_form(loss: Loss, power: object, scale: object, prototypes: Tensor | None = None) -> LossForm:
    """The form of a loss, with its checked parameter; ``loss`` is a known name.

    The power ``auto`` is that of :func:`power_for`; without prototypes it is only accepted.

    Raises:
        TypeError, ValueError: a power or a scale that is out of range, or with a loss that has none; no power for
            ``power``.
    """
    if loss == "power" and isinstance(power, str):
        if power != "auto":
            raise ValueError(f"power is {power!r}; expected a number such as 0.5, or 'auto'")
        power = EQ6_POWER if prototypes is None else power_for(prototypes)
    exponent = exponent_of(loss, power)
    if loss == "softmax":
        return LossForm(scale=check_scale(DEFAULT_SCALE if scale is None else scale))
    if scale is not None:
        raise ValueError(f"scale is {scale!r} with loss {loss!r}; expected none: pass loss='softmax' to use it")
    return LossForm(LOSS_FACTORS[loss], exponent)
