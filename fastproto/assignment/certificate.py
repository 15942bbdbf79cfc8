"""The certificate of an assignment: its objective, its duality gap, and the tolerance that the gap must meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fastproto.support.checks import TINY_NORM

TOLERANCE = 1e-6  # default for the gap, relative to C · scale and to max(1, |objective|)
ROUNDING = 8 * torch.finfo(torch.float64).eps  # error of a computed gap, relative to the summed absolute terms
MAX_FLOOR = 1e-6  # relative to max(1, |objective|): a larger rounding floor certifies nothing
BLOCK_ELEMENTS = 1 << 22  # float64 scores per block: 32 MiB

Ending: TypeAlias = Literal["converged", "time limit", "interrupted"]  # how a search ended; interrupted is Ctrl-C
ScoreRows: TypeAlias = Callable[[int, int], Tensor]  # (start, stop) -> s[start:stop] [rows, m] float64


@dataclass(frozen=True)
class Assignment:
    """A permutation with its certificate.

    ``gap`` is Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_{i,A(i)} >= 0 in the units of the scores: no permutation is
    better than ``objective + gap``. With fewer rows than columns p >= 0, and the prices of the unmatched columns are
    part of the gap; with more rows than columns the maximum includes 0, the value of an unmatched row.

    ``certified`` means that gap + rounding floor <= tolerance · min(C · scale, max(1, |objective|)), or that
    gap <= rounding floor <= 1e-6 · max(1, |objective|). ``scale`` is a standard deviation of the scores that
    outliers cannot raise: see :func:`fastproto.assignment.assign` and :func:`fastproto.assignment.solve`.
    """

    permutation: (
        Tensor  # [n] int64: row i is matched with column permutation[i]; -1: unmatched (more rows than columns)
    )
    prices: Tensor  # [m] float64: the dual price of each prototype (column)
    objective: float  # Σ_i s_{i,A(i)}; for solve, Σ_i cost_{i,A(i)}
    gap: float
    relative_gap: float  # gap / (C · scale), C = min(n, m)
    rounding_floor: float  # bound on the rounding error of the gap: 8 eps Σ_i(|s_{i,A(i)}| + |p_{A(i)}|)
    certified: bool
    changed: int | None  # labels whose prototype differs from the previous assignment; None without a previous one
    method: str  # "previous", "column_generation", "lapjv", "dense"
    reason: str  # why this method ran
    seconds: float  # wall-clock time of the call
    passes: float  # over the scores; a pass over some rows counts in proportion, the dense solver's own passes do not
    interrupted: bool = False  # Ctrl-C ended the search: the best permutation so far


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
    """The scale and the tolerance that a gap is compared with."""

    pairs: int  # C, or the shorter side of a rectangle
    scale: float
    tolerance: float

    def judge(self, objective: float, gap: float, magnitude: float) -> Certificate:
        """``magnitude`` is Σ_i(|s_{i,A(i)}| + |p_{A(i)}|), or an upper bound of it."""
        floor, gap = ROUNDING * magnitude, max(gap, 0.0)
        span, least = self.pairs * self.scale, max(1.0, abs(objective))
        small = gap + floor <= self.tolerance * min(span, least) or gap <= floor <= MAX_FLOOR * least
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

    The gap is summed from one difference >= 0 per row, so that large prices and scores do not cancel in it. With fewer
    rows than columns the lowest price must be 0. ``sizes`` [m] bounds |s_ij| in each column, where the scores are
    themselves rounded sums.
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
    """Normalised rows in float64; the row of an unseen class is zero."""
    q = class_means.detach().double()
    norm = torch.linalg.vector_norm(q, dim=1, keepdim=True)
    return torch.where(norm > TINY_NORM, q / norm.clamp_min(TINY_NORM), 0.0)


def score_spread(q: Tensor, w: Tensor) -> float:
    """std of (q_i - mean) · (w_j - mean) in float64, without cancellation; takes O(C·min(C, D) + D²) memory."""
    q, w = q - q.mean(0), w - w.mean(0)
    size, dim = q.shape
    square = (q @ w.T).square().sum() if size < dim else ((q.T @ q) * (w.T @ w)).sum()
    return float(max(float(square) / (size * len(w)), 0.0) ** 0.5)
