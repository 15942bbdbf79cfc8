"""The objective of a descent: L_uni of points on the sphere, and its tangent gradient times C.

With the unscaled gradient a step of the paper's size 0.1 would move a point by O(1/C).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fastproto.backend import resolve
from fastproto.ops.gaussian_potential import largest_cosine, potential_and_pull
from fastproto.ops.nearest_prototypes import BLOCK
from fastproto.ops.sphere_step import tangent
from fastproto.support.options import PassPrecision

Energy: TypeAlias = Callable[[Tensor], tuple[float, Tensor]]  # unit rows [C, D] -> L_uni, C times its tangent gradient

# The largest t at which exp(-4t) is surely a normal number; a sharper potential is summed relative to its largest term.
PLAIN_SHARPNESS = {torch.float32: 16.0, torch.float64: 128.0}


def energy(t: float, precision: PassPrecision = "highest") -> Energy:
    """L_uni at sharpness t and C times its tangent gradient, one pass.

    ``precision`` as in :func:`fastproto.ops.gaussian_potential.potential_and_pull`; the points are not checked.
    """

    def evaluate(points: Tensor) -> tuple[float, Tensor]:
        count = len(points)
        if t <= PLAIN_SHARPNESS[points.dtype]:
            potential, pull = potential_and_pull(points, None, t, precision=precision)
            total, top = float(potential.double().sum()), 1.0
        else:
            sums, pull = _sharp_potential(points, t)
            total, top = sums.tolist()  # for the line search: one device-to-host copy
        value = 2 * t * (top - 1) + math.log(total / (count * (count - 1)))
        return value, tangent(points, pull).mul_(4 * t * count / total)

    return evaluate


def _sharp_potential(points: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Σ exp(2t(s - top)) over i ≠ j and top, the largest cosine s, [2]; the same weights times w_j [C, D]."""
    if resolve("gaussian_potential", points).backend == "triton":
        centre = largest_cosine(points)
        potential, pull = potential_and_pull(points, None, t, centre=centre)
        return torch.stack([potential.double().sum(), centre.double().squeeze()]), pull
    total, pull = points.new_zeros((), dtype=torch.float64), torch.zeros_like(points)
    top = torch.full_like(total, -torch.inf)
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        for column in range(0, len(points), BLOCK):
            others = points[column : column + BLOCK]
            cosines = points[rows] @ others.T
            if column == start:
                cosines.fill_diagonal_(-torch.inf)
            peak = torch.maximum(top, cosines.max().double())
            fade = torch.exp(2 * t * (top - peak))
            top, total, pull = peak, total * fade, pull.mul_(fade)
            weights = cosines.sub_(top).mul_(2 * t).exp_()
            total += weights.sum(dtype=torch.float64)
            pull[rows] += weights @ others
    return torch.stack([total, top]), pull
