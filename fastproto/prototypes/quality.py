"""How evenly unit vectors are spread: every figure in float64, over all pairs, in memory O(C·D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastproto.prototypes.bounds import max_cosine_bound, uniformity_bound
from fastproto.support.checks import TINY_NORM, check_finite, check_matrix, check_sharpness, default_cpu

BLOCK = 512  # 512² float64 are 2 MiB: they stay in the processor's cache for the sums and maxima
CUDA_BLOCK = 2048  # 32 MiB: enough work for each kernel launch


@dataclass(frozen=True)
class Quality:
    """How evenly prototypes are spread, in float64 and over all pairs i ≠ j; angles in degrees."""

    uniformity: float  # L_uni = log mean exp(-t‖w_i - w_j‖²): lower is better
    uniformity_bound: float  # no C unit vectors have less: the universal lower bound
    max_cosine: float  # of the closest pair (coherence): lower is better
    max_cosine_bound: float  # no C unit vectors have less: Rankin's or Levenshtein's bound, the larger
    mean_max_cosine: float  # mean over points of the cosine to their nearest neighbour
    min_cosine: float
    mean_angle: float  # average pairwise angular distance (APAD)
    t: float


def measure_prototypes(vectors: Tensor, t: float = 2.0) -> Quality:
    """Every figure of :class:`Quality` in float64, computing each pair once.

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
    t = check_sharpness(t)
    with default_cpu():
        return _measured(vectors, t)


def _measured(vectors: Tensor, t: float) -> Quality:
    w = unit_rows("vectors", vectors.detach().double())
    count, dim = w.shape
    nearest = torch.full((count,), -torch.inf, dtype=torch.float64, device=w.device)
    shares, found = [], []  # of each block: largest and smallest cosine, Σ exp(2t (cos - largest)), Σ of its angles
    side = CUDA_BLOCK if w.device.type == "cuda" else BLOCK
    for start in range(0, count, side):
        rows = slice(start, start + side)
        for column in range(start, count, side):
            columns = slice(column, column + side)
            cosines = (w[rows] @ w[columns].T).clamp_(-1, 1)
            if column == start:
                cosines.fill_diagonal_(1.0)
            least, angles = cosines.min(), cosines.acos().sum()
            if column == start:
                cosines.fill_diagonal_(-torch.inf)
            highest = cosines.max(1).values
            nearest[rows] = torch.maximum(nearest[rows], highest)
            nearest[columns] = torch.maximum(nearest[columns], cosines.max(0).values)
            # relative to the block's largest term, so that a sharp potential does not underflow
            peak = highest.max().clamp_min(-1)  # a block of one pair, a point and itself, has no cosine
            sums = cosines.sub_(peak).mul_(2 * t).exp_().sum()
            shares.append(1.0 if column == start else 2.0)
            found.append(torch.stack([peak, least, sums, angles]))
    peaks, lowest, totals, turned = torch.stack(found).cpu().T
    share = torch.tensor(shares, dtype=torch.float64)
    top, pairs = float(peaks.max()), count * (count - 1)
    total = float((share * totals * torch.exp(2 * t * (peaks - top))).sum())
    return Quality(
        uniformity=2 * t * (top - 1) + math.log(total / pairs),
        uniformity_bound=uniformity_bound(count, dim, t),
        max_cosine=top,
        max_cosine_bound=max_cosine_bound(count, dim),
        mean_max_cosine=float(nearest.mean()),
        min_cosine=float(lowest.min()),
        mean_angle=math.degrees(float((share * turned).sum()) / pairs),
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
