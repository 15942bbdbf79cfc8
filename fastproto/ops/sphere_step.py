"""One momentum step of unit rows on the sphere, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.backend import kernel, resolve


def tangent(points: Tensor, vectors: Tensor) -> Tensor:
    """The part of each row that is orthogonal to its point."""
    return torch.addcmul(vectors, (vectors * points).sum(-1, keepdim=True), points, value=-1)


def sphere_step_(
    points: Tensor, velocity: Tensor, pull: Tensor, total: Tensor, factor: float, rate: float, momentum: float
) -> None:
    """One momentum step of unit rows along a pull, in place; the velocity stays tangent.

    ``v = momentum * v + factor / total * tangent(w, pull); w = F.normalize(w - rate * v); v = tangent(w, v)``

    Args:
        points, velocity: [M, D] float32 or float64, contiguous; both change.
        pull: [M, D], Σ_j g_ij w_j, of the same dtype.
        total: [1], the normaliser of the gradient, of the same dtype.
        factor, rate, momentum: numbers; factor 4t and the summed potential as total give the gradient of L_uni.
    """
    if resolve("sphere_step_", points, velocity, pull, total).backend == "triton":
        kernel("sphere_step_")(points, velocity, pull, total, factor=factor, rate=rate, momentum=momentum)
        return
    velocity.mul_(momentum).add_(tangent(points, pull).mul_(factor / total))
    points.copy_(torch.nn.functional.normalize(points - rate * velocity, dim=1))
    velocity.copy_(tangent(points, velocity))
