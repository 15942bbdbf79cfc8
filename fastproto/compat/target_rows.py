"""The loss of a sample whose prototype is given as a row of its own, as callables of others take it."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.functional import ipm_loss
from fastproto.support.checks import TINY_NORM
from fastproto.support.loss_options import IpmLoss, Reduction


def pull_to_rows(
    features: Tensor, rows: Tensor, *, weight: Tensor | None = None, loss: IpmLoss, reduction: Reduction
) -> Tensor:
    """:func:`fastproto.ipm_loss` with ``rows`` [B, D], unit, as the prototypes of ``features`` [B, D]; 0 for B = 0."""
    own = torch.arange(len(features), device=features.device)
    if len(own) == 0 and features.shape == rows.shape:
        return features.sum()
    return ipm_loss(features, own, rows.detach(), own, weight=weight, loss=loss, reduction=reduction)


def dot_regression(features: Tensor, rows: Tensor) -> Tensor:
    """The mean over the batch of ``(x·m - ‖x‖·‖m‖)² / (2‖x‖)`` for features x and rows m [B, D] of any length.

    ‖x‖ and ‖m‖ count as constants, so that the gradient turns x and does not lengthen it.

    Source: Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022.
    """
    with torch.no_grad():
        length = torch.linalg.vector_norm(rows, dim=1)
        unit = rows / length.clamp_min(TINY_NORM)[:, None]
        weight = torch.linalg.vector_norm(features, dim=1) * length.square()
    return pull_to_rows(features, unit, weight=weight, loss="eq6", reduction="mean")
