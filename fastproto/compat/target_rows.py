"""The losses of samples whose prototypes are given as rows of their own, as callables of others take them."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.functional import ipm_loss
from fastproto.support.checks import TINY_NORM, shape_of


def squared_cosine_sum(features: Tensor, rows: Tensor) -> Tensor:
    """The sum over the batch of (1 - cos)² for features [B, D] and unit rows [B, D]; 0 for B = 0.

    Raises:
        TypeError, ValueError: as :func:`fastproto.ipm_loss`; features and rows of different shapes.
    """
    _check_shapes(features, rows)
    own = torch.arange(len(features), device=features.device)
    if len(own) == 0:
        return features.sum()
    return ipm_loss(features, own, rows.detach(), own, loss="official", reduction="sum")


def dot_products(features: Tensor, rows: Tensor) -> Tensor:
    """x·m [B] for features x and rows m [B, D], at least float32.

    Raises:
        ValueError: features and rows of different shapes.
    """
    _check_shapes(features, rows)
    return (features.to(torch.promote_types(features.dtype, torch.float32)) * rows).sum(1)


def dot_regression(
    features: Tensor,
    rows: Tensor,
    *,
    length: Tensor | None = None,
    row_length: Tensor | None = None,
    reg_lam: float = 0,
) -> Tensor:
    """The mean over the batch of ``(x·m - ‖x‖·‖m‖)² / (2‖x‖)`` for features x and rows m [B, D] of any length.

    ‖x‖ and ‖m‖ count as constants: the gradient of x is ``(x·m - ‖x‖·‖m‖) / ‖x‖ · m / B``.

    Args:
        features, rows: [B, D].
        length, row_length: [B], in place of ‖x‖ and ‖m‖.
        reg_lam: adds ``reg_lam`` times the mean ‖x‖, which is then no constant.

    Raises:
        ValueError: features and rows of different shapes.

    Source: Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022.
    """
    dots = dot_products(features, rows)
    length = features.detach().to(dots.dtype).norm(dim=1) if length is None else length
    row_length = rows.detach().to(dots.dtype).norm(dim=1) if row_length is None else row_length
    loss = batch_mean((dots - length * row_length).square() / (2 * length.clamp_min(TINY_NORM)))
    return loss + reg_lam * batch_mean(features.to(dots.dtype).norm(dim=1)) if reg_lam > 0 else loss


def batch_mean(losses: Tensor) -> Tensor:
    """The mean of [B]; 0 for B = 0."""
    return losses.sum() / max(len(losses), 1)


def _check_shapes(features: Tensor, rows: Tensor) -> None:
    if features.ndim != 2 or features.shape != rows.shape:
        raise ValueError(
            f"features are {shape_of(features)} and their prototypes {shape_of(rows)}; expected the same shape [B, D]: "
            "pass one prototype for each sample"
        )
