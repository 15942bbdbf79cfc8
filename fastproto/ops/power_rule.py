"""The exponent of the loss that suits a set of prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.ops.nearest_prototypes import nearest_prototypes
from fastproto.support.checks import check_prototypes
from fastproto.support.loss_options import EQ6_POWER

SAMPLE = 512  # rows whose nearest neighbour is looked up
ROOM = 0.1  # mean cosine of nearest neighbours up to which Eq. 6 is used
CLOSE = 0.3  # the same, from which p = ½ is used


@torch.no_grad()
def power_for(prototypes: Tensor) -> float:
    """The exponent p of the loss (1 - cos)^p / p for these prototypes: 2, 1.5 or ½, lower the closer they are.

    It depends on the mean cosine of a prototype to its nearest neighbour: below 0.1 p is 2, which is Eq. 6, from 0.3 on
    it is ½, in between 1.5. The mean is over 512 rows, evenly spaced in their order.

    Args:
        prototypes: unit rows [C, D].

    Returns:
        2.0, 1.5 or 0.5.

    Raises:
        TypeError, ValueError: a shape or dtype that is not one of prototypes, rows that are not unit, the meta device.

    Source: ours; docs/loss-study.md has the study that the limits come from.
    """
    if prototypes.device.type == "meta":
        raise ValueError("prototypes are on the meta device, where they have no values; expected a number for power")
    check_prototypes(prototypes)
    last, count = len(prototypes) - 1, min(SAMPLE, len(prototypes))
    rows = torch.arange(count, device=prototypes.device) * last // max(count - 1, 1)
    cosine = float(nearest_prototypes(prototypes[rows], prototypes, k=2)[0][:, 1].mean())
    if cosine < ROOM:
        return EQ6_POWER
    return 1.5 if cosine < CLOSE else 0.5
