"""What is known of an assignment: its objective and the duality gap that proves how far from optimal it can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastproto.checks import TINY_NORM

INTERRUPTED = "interrupted: the best so far"
BLOCK_ELEMENTS = 1 << 22  # scores looked at together: 32 MiB of float64


@dataclass(frozen=True)
class Assignment:
    """A permutation with its certificate.

    ``gap`` is Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_{i,A(i)} >= 0 in the units of the scores: no permutation is
    better than ``objective + gap``. ``certified`` says that gap + rounding floor <= tolerance · C · std(s), or that
    the gap is within the rounding floor.
    """

    permutation: Tensor  # [C] int64: row i is matched with column permutation[i]
    prices: Tensor  # [C] float64: the price of each prototype (column)
    objective: float  # Σ_i s_{i,A(i)}; for solve, Σ_i cost_{i,A(i)}
    gap: float
    relative_gap: float  # gap / (C · std(s))
    rounding_floor: float  # what rounding alone can make of a zero gap
    certified: bool
    changed: int | None  # labels whose prototype differs from the previous assignment; None without a previous one
    method: str  # "previous", "column_generation", "lapx", "scipy"
    reason: str  # why this method ran
    seconds: float
    passes: (
        float  # sweeps over all C×C scores, of a part of the rows in proportion; those of a dense solver not counted
    )

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search: this is then the best so far."""
        return self.reason.endswith(INTERRUPTED)


@dataclass(frozen=True)
class Certificate:
    objective: float
    gap: float
    relative_gap: float
    rounding_floor: float
    certified: bool


ScoreRows = Callable[[int, int], Tensor]  # (start, stop) -> s[start:stop] [rows, C] float64


def certify(
    rows: ScoreRows, permutation: Tensor, prices: Tensor, *, spread: float, magnitude: float, tolerance: float
) -> Certificate:
    """One pass over the scores in float64, a block of rows at a time.

    ``spread`` is std(s); ``magnitude`` bounds every |s_ij| together with its rounding, so that the floor can be stated.
    """
    size = len(permutation)
    step = max(1, BLOCK_ELEMENTS // size)
    bound = prices.sum()
    objective = torch.zeros((), dtype=torch.float64, device=prices.device)
    for start in range(0, size, step):
        block = rows(start, min(size, start + step))
        objective += block.gather(1, permutation[start : start + step, None]).sum()
        bound += (block - prices).max(1).values.sum()
    return judge(
        float(objective),
        float(bound - objective),
        size=size,
        largest_price=float(prices.abs().max()),
        spread=spread,
        magnitude=magnitude,
        tolerance=tolerance,
    )


def judge(
    objective: float,
    gap: float,
    *,
    size: int,
    largest_price: float,
    spread: float,
    magnitude: float,
    tolerance: float,
) -> Certificate:
    """What a gap means: beside rounding, and beside the spread of the scores."""
    floor = 4 * torch.finfo(torch.float64).eps * size * (magnitude + largest_price)
    scale = size * spread
    return Certificate(
        objective=objective,
        gap=max(gap, 0.0),
        relative_gap=max(gap, 0.0) / scale if scale > 0 else (0.0 if gap <= floor else float("inf")),
        rounding_floor=floor,
        certified=gap + floor <= tolerance * scale or gap <= floor,
    )


def directions(class_means: Tensor) -> Tensor:
    """Normalised rows in float64; a class that was never seen, a zero row, stays zero."""
    q = class_means.detach().double()
    norm = torch.linalg.vector_norm(q, dim=1, keepdim=True)
    return torch.where(norm > TINY_NORM, q / norm.clamp_min(TINY_NORM), 0.0)


def score_spread(q: Tensor, w: Tensor) -> float:
    """std of all q_i·w_j from moments, in O(C·D²): no C×C matrix."""
    mean = float(q.mean(0) @ w.mean(0))
    second = float(((q.T @ q) * (w.T @ w)).sum()) / (len(q) * len(w))
    return float(max(second - mean * mean, 0.0) ** 0.5)
