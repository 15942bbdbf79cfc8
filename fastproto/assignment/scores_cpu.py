"""The scores of column generation on the CPU: passes over blocks of rows; the score matrix is stored only if small.

A pass uses rounded scores (bfloat16 where the CPU has fast instructions for it) with a bound on their error. The few
pairs that this error leaves undecided, and all reported values, are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastproto.assignment.array_types import Floats, Floats32, Ints, Ints32
from fastproto.assignment.scores import EPS, EVERY, LEAST_OVERLAP, PerRow, Rows
from fastproto.cpu.hardware import quick_bfloat16
from fastproto.support.cancellation import check_stop

BLOCK_BYTES = 1 << 22  # a block stays in the last-level cache between the product and the scan
KEPT_BYTES = 1 << 25  # largest score matrix that is stored (4,096 classes in bfloat16, 2,896 in float32)
ROUNDED_MIN_DIM = 32  # below this D the scan costs more than the product, and bfloat16 leaves too many pairs undecided
LOG2E = 1.4426950408889634

BlockArray: TypeAlias = Floats32 | NDArray[np.uint16]  # uint16: the bits of bfloat16, which NumPy lacks


@dataclass(frozen=True)
class Blocks:
    """Rounded scores in blocks of rows: ``left @ right.T``, or ``left`` itself if ``right`` is None."""

    left: Tensor
    right: Tensor | None

    def kept(self, most: int) -> Blocks:
        """The stored product if it takes at most ``most`` bytes, otherwise the factors."""
        rows, columns = self.shape
        if self.right is None or rows * columns * self.left.element_size() > most:
            return self
        return Blocks(self.left @ self.right.T, None)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), (self.left.shape[1] if self.right is None else len(self.right))

    def scan(self, visit: Callable[[BlockArray, int], None]) -> None:
        """Calls ``visit(block, first row)`` for each block; the next block overwrites it.

        Products run in torch's threads, the short scans in the calling thread: a second thread pool would compete with
        torch's threads, which spin for a while after each product.
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


def as_array(tensor: Tensor) -> BlockArray:
    """A NumPy view that shares the memory; bfloat16 becomes its bits, uint16."""
    array: BlockArray = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def column_mass(blocks: Blocks, prices: Floats32, sharpness: float) -> Floats:
    """Σ_i softmax_j(sharpness · (s_ij - p_j)) [C] float64; prices float32 [C]."""
    from fastproto.cpu.score_blocks import softmax_columns

    mass = np.zeros(len(prices), np.float32)

    def visit(block: BlockArray, first: int) -> None:
        softmax_columns(block, prices, np.float32(sharpness * LOG2E), mass)

    blocks.scan(visit)
    return mass.astype(np.float64)


def top_scores(blocks: Blocks, prices: Floats32, k: int, floor: Floats32, within: Floats32) -> tuple[Floats32, Ints32]:
    """Top-k of s_ij - p_j per row, descending, and their columns; -inf and -1 where there are fewer.

    Only values of at least floor_i and no more than within_i below the largest of the row are kept.
    """
    from fastproto.cpu.score_blocks import top_of_rows

    values = np.empty((blocks.shape[0], k), np.float32)
    indices = np.empty((blocks.shape[0], k), np.int32)

    def visit(block: BlockArray, first: int) -> None:
        rows = slice(first, first + len(block))
        top_of_rows(block, prices, floor[rows], within[rows], first, values[rows], indices[rows])

    blocks.scan(visit)
    return values, indices


class ShiftedScores:
    """Passes over rounded and shifted scores r: s_ij - p_j = r_ij - (p_j - price_shift_j) + row_shift_i.

    Shifts of rows and columns do not change the optimal assignment. They save the digits of the rounded scores for
    the differences between them.
    """

    shape: tuple[int, int]
    blocks: Blocks
    row_shift: Floats  # [rows]
    price_shift: Floats  # [columns]
    error: Floats  # [rows]: bound on the rounding error of a score

    def margin(self, prices: Floats) -> Floats:
        return self.error + 2 * EPS * float(np.abs(prices - self.price_shift).max())

    def _part(self, rows: Rows) -> Blocks:
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return Blocks(self.blocks.left[chosen], self.blocks.right)

    def column_mass(self, prices: Floats, temperature: float, every: int) -> Floats:
        shifted = (prices - self.price_shift).astype(np.float32)
        return column_mass(self._part(slice(None, None, every)), shifted, 1 / temperature)

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        shift = self.row_shift[rows]
        low = np.full(len(shift), -np.inf, np.float32) if floor is None else (floor[rows] - shift).astype(np.float32)
        far = np.full(len(shift), np.inf, np.float32) if within is None else within[rows].astype(np.float32)
        shifted = (prices - self.price_shift).astype(np.float32)
        values, indices = top_scores(self._part(rows), shifted, k, low, far)
        shifted_back: Floats = values + shift[:, None]
        return shifted_back, indices

    def recheck(self, columns: Ints, prices: Floats, places: int) -> None:
        return None


class CpuFactorScores(ShiftedScores):
    """s_ij = q̂_i·w_j. The passes use centred q̂ and w.

    Without centring, bfloat16 (and float32, for collapsed class means) would spend its digits on the part common to all
    rows.
    """

    def __init__(self, class_means: Tensor, norms: Floats, prototypes: Tensor, kept_bytes: int = KEPT_BYTES) -> None:
        """``kept_bytes``: the largest score matrix that is stored."""
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
        self.blocks = Blocks(*factors).kept(kept_bytes)
        variance = self.mean_square(factors, size)
        if variance is None:
            exact = (self.left / norms[:, None] - means[0], self.right - means[1])
            variance = float(np.prod([x.T @ x / max(len(x), 1) for x in exact], axis=0).sum())
        self.spread = max(variance, 0.0) ** 0.5
        self.row_shift, self.price_shift = along[0] - self.mean, along[1]
        self.column_shift = self.price_shift
        self.magnitude = float(size[1].max() + np.linalg.norm(means[1]))
        # Cauchy-Schwarz on the rounding errors of the factors, plus the float32 sums and the rounding of the result
        unit = torch.finfo(factors[0].dtype).eps / 2 + 2 * (dim + 1) * EPS
        self.error = (
            loss[0] * (size[1].max() + loss[1].max()) + size[0] * loss[1].max() + 1.01 * unit * size[0] * size[1].max()
        )

    def mean_square(self, factors: list[Tensor], size: tuple[Floats, ...]) -> float | None:
        """The mean square of the centred scores, from the rounded ones; None if rounding may dominate it."""
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

    def exact(self, rows: Ints32, columns: Ints32) -> Floats:
        from fastproto.cpu.score_blocks import exact_scores

        found = np.empty(len(rows))
        exact_scores(self.left, self.right, rows, columns, found)
        found /= self.norms[rows]
        return found

    def exact_rows(self, rows: Ints) -> Floats:
        found: Floats = self.left[rows].astype(np.float64) @ self.right.T.astype(np.float64) / self.norms[rows, None]
        return found


class MatrixScores(ShiftedScores):
    """s = -cost, a float64 matrix. The passes use it in float32, less the mean of each row.

    The passes clip costs at ``span``. Clipping only raises scores, so that no pair is missed.
    """

    def __init__(self, cost: Floats, spread: float, span: float) -> None:
        self.cost, self.shape = cost, cost.shape
        self.spread, self.magnitude = spread, span
        cut = np.minimum(cost, span)
        self.row_shift, self.price_shift = -cut.mean(1), np.zeros(cost.shape[1])
        self.column_shift = -cut.mean(0) - self.row_shift.mean()
        np.subtract(-self.row_shift[:, None], cut, out=cut)
        centred = cut.astype(np.float32)
        self.blocks = Blocks(torch.from_numpy(centred), None)
        self.error = EPS * np.abs(centred).max(1).astype(np.float64)

    def exact(self, rows: Ints32, columns: Ints32) -> Floats:
        found: Floats = -self.cost[rows, columns]
        return found

    def exact_rows(self, rows: Ints) -> Floats:
        found: Floats = -self.cost[rows]
        return found
