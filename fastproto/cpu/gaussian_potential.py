"""The Gaussian potential in PyTorch, for any device: chooses the pass and its precision."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.cpu.gaussian_blocks import Blocks, PotentialPass
from fastproto.cpu.gaussian_rounded import RoundedPass
from fastproto.cpu.gaussian_transposed import TransposedPass, has_product
from fastproto.cpu.hardware import Hardware, hardware_of

ROUNDED_MIN_DIM = 96  # below it the cosines of random rows are too large for "high", and the products too small to gain
ROUNDED_MAX = 8.0  # up to this 2t bfloat16 keeps the error bound: its error of a cosine, 2⁻⁹, is multiplied by 2t
HIGH_MAX = 0.2  # up to this (2t)²/D, to which the error of "high" is proportional: 8e-4 at t = 2 and D = 96


def may_round(precision: str, t: float, dtype: torch.dtype, dim: int) -> bool:
    """Whether the error bound of a precision allows rounded products, on hardware where bfloat16 is fast."""
    if precision == "highest" or dtype != torch.float32 or dim < ROUNDED_MIN_DIM or 2 * t > ROUNDED_MAX:
        return False
    return precision != "high" or (2 * t) ** 2 <= HIGH_MAX * dim


def gaussian_potential(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
    *,
    blocks: Blocks = Blocks(),  # noqa: B008  (immutable)
    hardware: Hardware | None = None,
) -> tuple[Tensor, Tensor]:
    """Potential [M] and pull [M, D] of points on others (None: of the points on each other, without self-pairs).

    ``hardware`` decides whether ``high`` and ``medium`` round; None asks the device of the points.
    """
    dtype, dim = torch.float64 if points.dtype == torch.float64 else torch.float32, points.shape[1]
    points, others = points.to(dtype), None if others is None else others.to(dtype)
    weights = None if weights is None else weights.to(dtype)
    quick, low = Hardware(False, False), may_round(precision, t, dtype, dim)
    if low:
        quick = hardware_of(points.device) if hardware is None else hardware
        low = quick.bfloat16

    def over(points: Tensor) -> PotentialPass:
        if low:
            dense = None if others is None else others.contiguous()
            return RoundedPass(
                points.contiguous(),
                dense,
                2 * t,
                weights,
                blocks,
                precision=precision,
                integers=quick.integers,
            )
        many = len(points) > blocks.transposed_from and dtype == torch.float32 and points.device.type == "cpu"
        kind = TransposedPass if many and has_product() else PotentialPass
        return kind(points, others, 2 * t, weights, blocks)

    if others is None:
        return over(points).symmetric()
    if self_index is None or bool((self_index >= 0).all()):
        return over(points).general(self_index)
    potential, pull = points.new_empty(len(points)), points.new_empty(points.shape)
    inside = self_index >= 0
    for some, own in ((inside, self_index[inside]), (~inside, None)):
        if bool(some.any()):
            potential[some], pull[some] = over(points[some]).general(own)
    return potential, pull
