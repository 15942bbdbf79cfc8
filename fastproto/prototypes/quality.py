"""How well unit vectors are spread: every figure in float64, over all pairs, in memory O(C·D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastproto.checks import TINY_NORM, check_finite, check_matrix
from fastproto.potential import check_sharpness
from fastproto.prototypes.bounds import max_cosine_bound, uniformity_bound

BLOCK = 512  # 512² float64 are 2 MiB: they stay in the processor's cache through the sums and maxima


@dataclass(frozen=True)
class Quality:
    """How well prototypes are spread, in float64 and over all pairs i ≠ j; angles in degrees."""

    uniformity: float  # L_uni = log mean exp(-t‖w_i - w_j‖²): lower is better
    uniformity_bound: float  # no C unit vectors have less: the universal lower bound
    max_cosine: float  # of the closest pair (coherence): lower is better
    max_cosine_bound: float  # no C unit vectors have less: Rankin's or Levenshtein's bound, the larger
    mean_max_cosine: float  # mean over points of the cosine to their nearest neighbour
    min_cosine: float
    mean_angle: float  # average pairwise angular distance (APAD)
    t: float


def measure_prototypes(vectors: Tensor, t: float = 2.0) -> Quality:
    """Every figure of :class:`Quality` in float64, each pair looked at once.

    ``w = F.normalize(vectors.double()); s = (w @ w.T)[~torch.eye(len(w), dtype=bool)]``; then
    ``(2 * t * (s - 1)).exp().mean().log()``, ``s.max()``, ``s.min()``, ``s.acos().rad2deg().mean()``.

    Args:
        vectors: [C, D] rows of any non-zero norm; their directions are measured.
        t: sharpness, > 0.

    Raises:
        TypeError, ValueError: C < 2, D < 2, zero rows, NaN or inf, t <= 0.

    Source: Eq. 3-4 of Saadabadi et al., CVPR 2024; the bounds' sources are in ``bounds.py``.
    """
    check_matrix("vectors", vectors, min_rows=2)
    check_sharpness(t)
    w = unit_rows("vectors", vectors.detach().double())
    count, dim = w.shape
    nearest = torch.full((count,), -torch.inf, dtype=torch.float64, device=w.device)
    top, total, lowest, angles = -math.inf, 0.0, math.inf, 0.0
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        for column in range(start, count, BLOCK):
            columns = slice(column, column + BLOCK)
            cosines = (w[rows] @ w[columns].T).clamp_(-1, 1)
            if column == start:
                cosines.fill_diagonal_(1.0)
            share = 1.0 if column == start else 2.0
            lowest = min(lowest, float(cosines.min()))
            angles += share * float(cosines.acos().sum())
            if column == start:
                cosines.fill_diagonal_(-torch.inf)
            nearest[rows] = torch.maximum(nearest[rows], cosines.max(1).values)
            nearest[columns] = torch.maximum(nearest[columns], cosines.max(0).values)
            # Relative to the largest cosine so far, so that a sharp potential does not vanish altogether.
            peak = max(top, float(nearest[rows].max()), float(nearest[columns].max()))
            total *= math.exp(2 * t * (top - peak))
            total += share * float(cosines.sub_(peak).mul_(2 * t).exp_().sum())
            top = peak
    pairs = count * (count - 1)
    return Quality(
        uniformity=2 * t * (top - 1) + math.log(total / pairs),
        uniformity_bound=uniformity_bound(count, dim, t),
        max_cosine=top,
        max_cosine_bound=max_cosine_bound(count, dim),
        mean_max_cosine=float(nearest.mean()),
        min_cosine=lowest,
        mean_angle=math.degrees(angles / pairs),
        t=t,
    )


def unit_rows(name: str, vectors: Tensor) -> Tensor:
    """The rows divided by their norms.

    Raises:
        ValueError: NaN, inf or zero rows.
    """
    check_finite(name, vectors)
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    if bool((norm <= TINY_NORM).any()):
        raise ValueError(f"{name} row {int(norm.argmin())} is zero; expected rows with a direction: replace the row")
    unit: Tensor = vectors / norm
    return unit
