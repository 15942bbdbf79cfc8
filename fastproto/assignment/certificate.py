"""The certificate of an assignment: its objective, its duality gap, and the tolerance that the gap must meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fastproto.support.checks import TINY_NORM

TOLERANCE = 1e-6  # of a gap, relative to C · scale and to max(1, |objective|), unless the caller names another
ROUNDING = 8 * torch.finfo(torch.float64).eps  # of a gap of zero, relative to the sum of the numbers that it is made of
WRONG = 1e-6  # relative to max(1, |objective|): a larger rounding floor certifies nothing
BLOCK_ELEMENTS = 1 << 22  # float64 scores at once: 32 MiB

Ending: TypeAlias = Literal["converged", "time limit", "interrupted"]  # how a search ended; interrupted is Ctrl-C
ScoreRows: TypeAlias = Callable[[int, int], Tensor]  # (start, stop) -> s[start:stop] [rows, m] float64


@dataclass(frozen=True)
class Assignment:
    """A permutation with its certificate.

    ``gap`` is Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_{i,A(i)} >= 0 in the units of the scores: no permutation is
    better than ``objective + gap``. With fewer rows than columns p >= 0, and what the unused columns cost is part of
    the gap; with more rows than columns the maximum includes 0, the value of a row that is left out.

    ``certified`` says that gap + rounding floor <= tolerance · min(C · scale, max(1, |objective|)), or that
    gap <= rounding floor <= 1e-6 · max(1, |objective|). ``scale`` is a standard deviation of the scores that
    outliers cannot raise: see :func:`fastproto.assignment.assign` and :func:`fastproto.assignment.solve`.
    """

    permutation: Tensor  # [n] int64: row i is matched with column permutation[i]; -1: left out (more rows than columns)
    prices: Tensor  # [m] float64: the price of each prototype (column)
    objective: float  # Σ_i s_{i,A(i)}; for solve, Σ_i cost_{i,A(i)}
    gap: float
    relative_gap: float  # gap / (C · scale), C = min(n, m)
    rounding_floor: float  # what rounding alone can make of a zero gap: 8 eps Σ_i(|s_{i,A(i)}| + |p_{A(i)}|)
    certified: bool
    changed: int | None  # labels whose prototype differs from the previous assignment; None without a previous one
    method: str  # "previous", "column_generation", "lapx", "scipy", "dense" (nothing to choose)
    reason: str  # why this method ran
    seconds: float
    passes: float  # over all scores, a part of the rows in proportion; those inside of a dense solver are not counted
    interrupted: bool = False  # Ctrl-C ended the search: this is the best so far


@dataclass(frozen=True)
class Certificate:
    """The fields of :class:`Assignment` with the same names."""

    objective: float
    gap: float
    relative_gap: float
    rounding_floor: float
    certified: bool


@dataclass(frozen=True)
class Yardstick:
    """What a gap is compared with."""

    pairs: int  # C, or the shorter side of a rectangle
    scale: float
    tolerance: float

    def judge(self, objective: float, gap: float, magnitude: float) -> Certificate:
        """``magnitude`` is Σ_i(|s_{i,A(i)}| + |p_{A(i)}|), or bounds of these scores in place of |s_{i,A(i)}|."""
        floor, gap = ROUNDING * magnitude, max(gap, 0.0)
        span, least = self.pairs * self.scale, max(1.0, abs(objective))
        small = gap + floor <= self.tolerance * min(span, least) or gap <= floor <= WRONG * least
        return Certificate(
            objective=objective,
            gap=gap,
            relative_gap=gap / span if span > 0 else (0.0 if gap <= floor else math.inf),
            rounding_floor=floor,
            certified=small and math.isfinite(gap) and math.isfinite(objective),
        )


def certify(
    rows: ScoreRows, permutation: Tensor, prices: Tensor, yardstick: Yardstick, sizes: Tensor | None = None
) -> Certificate:
    """The certificate of a permutation and its prices, in one pass over the scores in float64, block by block.

    The gap is a sum of one difference >= 0 per row: large prices and scores do not add their rounding to it. With
    fewer rows than columns the lowest price must be 0. ``sizes`` [m] bounds |s_ij| of a column where a score is itself
    a rounded sum.
    """
    count, columns = len(permutation), len(prices)
    step = max(1, BLOCK_ELEMENTS // columns)
    gap, objective, magnitude = torch.zeros(3, dtype=torch.float64, device=prices.device).unbind()
    used = permutation >= 0
    for start in range(0, count, step):
        part = slice(start, min(count, start + step))
        block, kept, mine = rows(part.start, part.stop), used[part], permutation[part].clamp_min(0)
        score = block.gather(1, mine[:, None]).squeeze(1)
        best = (block - prices).max(1).values
        if count > columns:
            best = best.clamp_min(0.0)
        gap = gap + (best - torch.where(kept, score - prices[mine], 0.0)).sum()
        objective = objective + score[kept].sum()
        magnitude = magnitude + (score if sizes is None else sizes[mine])[kept].abs().sum()
    if count < columns:
        gap = gap + prices.index_fill(0, permutation, 0.0).sum()
    return yardstick.judge(float(objective), float(gap), float(magnitude + prices.abs().sum()))


def directions(class_means: Tensor) -> Tensor:
    """Normalised rows in float64; the zero row of a class that was never seen stays zero."""
    q = class_means.detach().double()
    norm = torch.linalg.vector_norm(q, dim=1, keepdim=True)
    return torch.where(norm > TINY_NORM, q / norm.clamp_min(TINY_NORM), 0.0)


def score_spread(q: Tensor, w: Tensor) -> float:
    """std of (q_i - mean) · (w_j - mean), of no more than C·D or D² products at once, and without cancellation."""
    q, w = q - q.mean(0), w - w.mean(0)
    size, dim = q.shape
    square = (q @ w.T).square().sum() if size < dim else ((q.T @ q) * (w.T @ w)).sum()
    return float(max(float(square) / (size * len(w)), 0.0) ** 0.5)
