"""Normalises features to unit rows: the first step of the loss, the class means and the nearest prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.support.checks import TINY_NORM

# ½‖z - w‖² of a sample at its target: ‖z - w‖ is four epsilons, which the rounding of z alone can make
AT_TARGET = {dtype: 8 * torch.finfo(dtype).eps ** 2 for dtype in (torch.float32, torch.float64)}


def compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def not_finite(row: int) -> ValueError:
    return ValueError(
        f"features hold NaN or inf, or numbers too large to be squared (first in row {row}); expected finite numbers: "
        "lower the learning rate or look for the layer that overflows"
    )


def unit(features: Tensor) -> Tensor:
    """Unit rows in float32 or float64, differentiable; NaN where a row is not finite or too large to be squared."""
    x = features.to(compute_dtype(features))
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(torch.isfinite(norm), norm.clamp_min(TINY_NORM), torch.nan)


def normalise(features: Tensor, skip: bool = False) -> tuple[Tensor, Tensor]:
    """z [B, D] and 1/‖x‖ [B, 1] (zero for a row without direction), in float32 or float64.

    With ``skip`` a row that is not finite has z = 0 and 1/‖x‖ = NaN; otherwise it raises ValueError.
    """
    x = features.to(compute_dtype(features))
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    finite = torch.isfinite(norm)
    inverse = torch.where(norm > TINY_NORM, norm.reciprocal(), 0.0)
    if skip:
        return torch.where(finite, x, 0.0) * inverse, torch.where(finite, inverse, torch.nan)
    if not bool(finite.all()):
        raise not_finite(int((~finite).nonzero()[0, 0]))
    return x * inverse, inverse
