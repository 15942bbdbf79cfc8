"""Sweeps over all scores in blocks, for column generation on the processor; only those of small problems are stored.

A sweep works on rounded scores, bfloat16 where the processor is quick at it, and knows how wrong these can be; whatever
is decided or reported is then computed again in float64 for the few pairs that the error leaves in question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastproto.cpu.hardware import quick_bfloat16
from fastproto.support.cancellation import check_stop

Array = np.ndarray[Any, Any]
OfRows = Array | None  # a number of each row, or no such limit
Rows = Array | slice
BLOCK_BYTES = 1 << 22  # a block stays in the last cache between the product and the scan
KEPT_BYTES = 1 << 25  # of a product that is made once and kept: it costs most of a sweep (4,096 classes, bfloat16)
ROUNDED_MIN_DIM = 32  # below it the scan costs more than the product, and the error leaves too many pairs in question
LOG2E = 1.4426950408889634
EVERY = slice(None)
# Of a sum of squares of scores, relative to the most it could be, below which std(s) is made of float64 products: the
# rounding of bfloat16 ones changes the sum by up to 2^-8 of the most, a larger sum by less than a tenth
LEAST_OVERLAP = 0.05
EPS = float(np.finfo(np.float32).eps)


class Scores(Protocol):
    """Rows and columns to be matched by s_ij; prices, values and results are in the units of s."""

    shape: tuple[int, int]
    spread: float  # std of s
    magnitude: float  # no |s_ij| is larger
    column_shift: Array  # prices [columns] that take out what all rows have in common: where a cold start begins

    def margin(self, prices: Array) -> Array:
        """How far a value of ``top`` can be from the true one [rows]."""

    def column_mass(self, prices: Array, temperature: float, every: int) -> Array:
        """Σ_i softmax_j((s_ij - p_j) / temperature) [columns], of each ``every``-th row."""

    def top(
        self, prices: Array, k: int, floor: OfRows = None, rows: Rows = EVERY, within: OfRows = None
    ) -> tuple[Array, Array]:
        """Of all or some rows the k largest s_ij - p_j, rounded, downwards, and where; -inf and -1 below the floor.

        ``floor`` and ``within`` are of all rows; those more than ``within`` below the largest may be left out.
        """

    def recheck(self, columns: Array, prices: Array, places: int) -> tuple[float, float] | None:
        """Σ_i max_j(s_ij - p_j) - (s_iA(i) - p_A(i)) and Σ_i s_iA(i) of A = ``columns``, by one sweep of its own.

        None where many rows have more than ``places`` columns that rounding leaves in question, and where a sweep costs
        so much that a part of the rows should be looked at first.
        """

    def exact(self, rows: Array, columns: Array) -> Array:
        """s_ij in float64 of these pairs."""

    def exact_rows(self, rows: Array) -> Array:
        """All s_ij in float64 of a few rows."""


@dataclass(frozen=True)
class Blocks:
    """Rounded scores by blocks of rows: ``left @ right.T``, or the rows of ``left`` where there is no ``right``."""

    left: Tensor
    right: Tensor | None

    def kept(self) -> Blocks:
        """With the product in place of its factors where that is small."""
        rows, columns = self.shape
        if self.right is None or rows * columns * self.left.element_size() > KEPT_BYTES:
            return self
        return Blocks(self.left @ self.right.T, None)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), (self.left.shape[1] if self.right is None else len(self.right))

    def scan(self, visit: Callable[[Array, int], None]) -> None:
        """``visit(block, first row)``; a block is overwritten by the next.

        Products run in torch's threads, the scans, a fifth of the time, in this one: a second pool of threads would
        fight with torch's, which keep spinning for a while after each product.
        """
        rows, columns = self.shape
        step = max(32, min(512, BLOCK_BYTES // (columns * self.left.element_size()) // 32 * 32))
        room = None if self.right is None else self.left.new_empty(min(step, rows), columns)
        for start in range(0, rows, step):
            check_stop()
            part = self.left[start : start + step]
            if self.right is not None and room is not None:
                part = torch.mm(part, self.right.T, out=room[: len(part)])
            visit(as_array(part.contiguous()), start)


def as_array(tensor: Tensor) -> Array:
    """NumPy's view of it; of bfloat16, which NumPy lacks, the bits."""
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def column_mass(blocks: Blocks, prices: Array, sharpness: float) -> Array:
    """Σ_i softmax_j(sharpness · (s_ij - p_j)) [C] float64; prices float32 [C]."""
    from fastproto.cpu.score_blocks import softmax_columns

    mass = np.zeros(len(prices), np.float32)

    def visit(block: Array, first: int) -> None:
        softmax_columns(block, prices, np.float32(sharpness * LOG2E), mass)

    blocks.scan(visit)
    return mass.astype(np.float64)


def top_scores(blocks: Blocks, prices: Array, k: int, floor: Array, within: Array) -> tuple[Array, Array]:
    """The k largest s_ij - p_j of each row, downwards (float32, -inf where there are fewer) and where (int32, -1).

    Only those of at least floor_i and at most within_i below the largest of the row.
    """
    from fastproto.cpu.score_blocks import top_of_rows

    values = np.empty((blocks.shape[0], k), np.float32)
    indices = np.empty((blocks.shape[0], k), np.int32)

    def visit(block: Array, first: int) -> None:
        rows = slice(first, first + len(block))
        top_of_rows(block, prices, floor[rows], within[rows], first, values[rows], indices[rows])

    blocks.scan(visit)
    return values, indices


class Swept:
    """What sweeps over rounded scores r say of the true ones: s_ij - p_j = r_ij - (p_j - price_shift_j) + row_shift_i.

    Shifts of rows and columns leave the assignment what it is, and the rounded scores with digits for what matters.
    """

    shape: tuple[int, int]
    blocks: Blocks
    row_shift: Array  # [rows]
    price_shift: Array  # [columns]
    error: Array  # [rows]: of a rounded score

    def margin(self, prices: Array) -> Array:
        return self.error + 2 * EPS * float(np.abs(prices - self.price_shift).max())

    def _part(self, rows: Rows) -> Blocks:
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return Blocks(self.blocks.left[chosen], self.blocks.right)

    def column_mass(self, prices: Array, temperature: float, every: int) -> Array:
        shifted = (prices - self.price_shift).astype(np.float32)
        return column_mass(self._part(slice(None, None, every)), shifted, 1 / temperature)

    def top(
        self, prices: Array, k: int, floor: OfRows = None, rows: Rows = EVERY, within: OfRows = None
    ) -> tuple[Array, Array]:
        shift = self.row_shift[rows]
        low = np.full(len(shift), -np.inf, np.float32) if floor is None else (floor[rows] - shift).astype(np.float32)
        far = np.full(len(shift), np.inf, np.float32) if within is None else within[rows].astype(np.float32)
        shifted = (prices - self.price_shift).astype(np.float32)
        values, indices = top_scores(self._part(rows), shifted, k, low, far)
        return values + shift[:, None], indices

    def recheck(self, columns: Array, prices: Array, places: int) -> None:
        return None


class FactorScores(Swept):
    """s_ij = q̂_i·w_j. The sweeps see q̂ and w centred.

    Without centring bfloat16, or float32 where means have collapsed, would spend its digits on what all rows have in
    common.
    """

    def __init__(self, class_means: Tensor, norms: Array, prototypes: Tensor) -> None:
        from fastproto.cpu.score_blocks import centre_rows, mean_direction

        self.left, self.right, self.norms = class_means.numpy(), prototypes.numpy(), norms
        self.shape = (len(self.left), len(self.right))
        dim = self.left.shape[1]
        rounded = dim >= ROUNDED_MIN_DIM and quick_bfloat16(torch.device("cpu"))
        sides = (self.left, norms), (self.right, np.ones(len(self.right)))
        means = np.empty((2, dim))
        for side, mean in zip(sides, means, strict=True):
            mean_direction(*side, mean)
        factors, facts = [], []
        for side, mean, other in zip(sides, means, means[::-1], strict=True):
            factor = torch.empty(side[0].shape, dtype=torch.bfloat16 if rounded else torch.float32, device="cpu")
            of_rows = np.empty((3, len(factor)))
            centre_rows(*side, mean, other, as_array(factor), *of_rows)
            factors.append(factor)
            facts.append(of_rows)
        size, loss, along = zip(*facts, strict=True)
        self.mean = float(means[0] @ means[1])
        self.blocks = Blocks(*factors).kept()
        variance = self.mean_square(factors, size)
        if variance is None:
            exact = (self.left / norms[:, None] - means[0], self.right - means[1])
            variance = float(np.prod([x.T @ x / max(len(x), 1) for x in exact], axis=0).sum())
        self.spread = max(variance, 0.0) ** 0.5
        self.row_shift, self.price_shift = along[0] - self.mean, along[1]
        self.column_shift = self.price_shift
        self.magnitude = float(size[1].max() + np.linalg.norm(means[1]))
        # Cauchy-Schwarz on what rounding took from the factors; the float32 sums and the rounding of the result.
        unit = torch.finfo(factors[0].dtype).eps / 2 + 2 * (dim + 1) * EPS
        self.error = (
            loss[0] * (size[1].max() + loss[1].max()) + size[0] * loss[1].max() + 1.01 * unit * size[0] * size[1].max()
        )

    def mean_square(self, factors: list[Tensor], size: tuple[Array, ...]) -> float | None:
        """Of the centred scores, by their product where there is a small one; None where rounding leaves too little."""
        from fastproto.cpu.score_blocks import sum_of_squares

        if not len(self.left):
            return 0.0
        dim = factors[0].shape[1]
        if self.blocks.right is None:
            found = sum_of_squares(as_array(self.blocks.left)) / self.blocks.left.numel()
            most = float((size[0] @ size[0]) * (size[1] @ size[1])) / (len(size[0]) * len(size[1]) * dim)
        else:
            grams = [(x.T @ x).double() / len(x) for x in factors]
            found, most = float((grams[0] * grams[1]).sum()), float(grams[0].norm() * grams[1].norm())
        return None if found < LEAST_OVERLAP * most else found

    def exact(self, rows: Array, columns: Array) -> Array:
        from fastproto.cpu.score_blocks import exact_scores

        found = np.empty(len(rows))
        exact_scores(self.left, self.right, rows, columns, found)
        found /= self.norms[rows]
        return found

    def exact_rows(self, rows: Array) -> Array:
        found: Array = self.left[rows].astype(np.float64) @ self.right.T.astype(np.float64) / self.norms[rows, None]
        return found


class MatrixScores(Swept):
    """s = -cost, a float64 matrix that is there; the sweeps see it in float32, less the mean of each row.

    They see entries up to ``span`` only: what costs more seems cheaper, so that no pair is overlooked.
    """

    def __init__(self, cost: Array, spread: float, span: float) -> None:
        self.cost, self.shape = cost, cost.shape
        self.spread, self.magnitude = spread, span
        cut = np.minimum(cost, span)
        self.row_shift, self.price_shift = -cut.mean(1), np.zeros(cost.shape[1])
        self.column_shift = -cut.mean(0) - self.row_shift.mean()
        np.subtract(-self.row_shift[:, None], cut, out=cut)
        centred = cut.astype(np.float32)
        self.blocks = Blocks(torch.from_numpy(centred), None)
        self.error = EPS * np.abs(centred).max(1).astype(np.float64)

    def exact(self, rows: Array, columns: Array) -> Array:
        found: Array = -self.cost[rows, columns]
        return found

    def exact_rows(self, rows: Array) -> Array:
        found: Array = -self.cost[rows]
        return found
