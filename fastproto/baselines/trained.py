"""Ours*: the learned rows of a softmax classifier as the prototypes of our method."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.head import PrototypeHead
from fastproto.support.checks import check_classes, check_finite, check_matrix, default_device
from fastproto.support.loss_options import Loss, Means, Power, Reduction, Scale


class TrainedPrototypesHead(PrototypeHead):
    """``PrototypeHead(num_classes, dim, prototypes=F.normalize(weights, dim=1))``, row y initially assigned to label y.

    The rows were trained for their labels, hence the initial assignment; it is renewed as in any prototype head.

    Args:
        num_classes, dim, momentum, loss, power, scale, means, reduction, sync_class_means, seed: as of
            :class:`fastproto.PrototypeHead`.
        weights: [C, D] of a trained last layer, row y for label y: ``weight_by_label()`` of a trained head. None only
            on the meta device, for a checkpoint to fill.

    Raises:
        TypeError, ValueError: as :class:`fastproto.PrototypeHead`; no weights, NaN or zero rows.

    Source: the "Ours*" of Saadabadi et al., CVPR 2024; the initial assignment is our choice.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        weights: Tensor | None,
        momentum: float = 0.9,
        loss: Loss = "eq6",
        power: Power | None = None,
        scale: Scale | None = None,
        means: Means = "ema",
        reduction: Reduction = "mean",
        sync_class_means: bool = True,
        seed: int = 0,
    ) -> None:
        if weights is None and default_device().type != "meta":
            raise ValueError("weights is None; expected [C, D]: pass weight_by_label() of a trained softmax classifier")
        num_classes, dim = check_classes(num_classes, dim)
        super().__init__(
            num_classes,
            dim,
            prototypes=None if weights is None else _directions(weights),
            momentum=momentum,
            loss=loss,
            power=power,
            scale=scale,
            means=means,
            reduction=reduction,
            sync_class_means=sync_class_means,
            seed=seed,
        )
        if weights is not None:
            self.assignment.copy_(torch.arange(num_classes))
            self._keep()


def _directions(weights: Tensor) -> Tensor:
    check_matrix("weights", weights, min_rows=2)
    check_finite("weights", weights)
    norm = torch.linalg.vector_norm(weights.detach().double(), dim=1, keepdim=True)
    if bool((norm == 0).any()):
        raise ValueError(f"weights row {int(norm.argmin())} is zero; expected a direction for every label")
    directions: Tensor = weights.detach().double() / norm
    return directions.float()
