"""The package lapjv on costs that are whole numbers.

On near ties in floating point lapjv lowers prices by rounding errors and may not end. On a grid of whole numbers each
step lowers a price by at least 1. Its dual prices show how far the result is from the optimum of the given costs; a
second run on the reduced costs, with a finer grid, takes away what rounding to the grid has cost.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from fastproto.assignment.array_types import Floats, Floats32, Ints

LEVELS = 1 << 21  # of the grid over the span of the costs: sums of a few stay exact in float32
FINER = 1 << 10  # what a refinement divides the width by
REFINEMENTS = 2
BLOCK = 256  # rows that are put on the grid at once: they stay in the cache


def check_installed() -> None:
    """Raise ImportError unless the package lapjv is installed."""
    if find_spec("lapjv") is None:
        raise ImportError(
            "method is 'lapjv' and needs lapjv, which is not installed: pip install 'fastproto[lapjv]' with Python "
            "up to 3.11 on Linux x86-64, where it has wheels; elsewhere take the method 'dense' or 'auto'"
        )


def match_on_grid(cost: Floats, prices: Floats, width: float, keep: Ints | None) -> tuple[Ints, Floats]:
    """The column of each row, and prices of the scores -cost, after rounding the reduced costs to a grid.

    Args:
        cost: [n, m], n <= m, finite.
        prices: [m], where the search starts: the grid holds cost + prices, less the minimum of each row.
        width: largest reduced cost; larger ones are clipped. A step of the grid is width / 2^21.
        keep: [n], the columns that win ties; None: none.
    """
    rows, columns = cost.shape
    grid = np.zeros((columns, columns), np.float32)  # rows beyond n stand for columns that stay unmatched
    for start in range(0, rows, BLOCK):
        part = cost[start : start + BLOCK] + prices
        part -= part.min(1)[:, None]
        np.minimum(part, width, out=part)
        part *= LEVELS / width
        np.rint(part, out=part)
        grid[start : start + len(part)] = part
    found, duals = solve_grid(grid, keep)
    return found[:rows], prices - duals * (width / LEVELS)


def solve_grid(grid: Floats32, keep: Ints | None) -> tuple[Ints, Floats]:
    """(column of each row, dual price of each column) of a square matrix of whole numbers, which ``keep`` changes."""
    from lapjv import lapjv

    if keep is not None:
        grid[np.arange(len(keep)), keep] -= 1
    if len(grid) == 1:
        return np.zeros(1, np.int64), np.zeros(1)
    columns: NDArray[np.int32]
    columns, _, (_, _, duals) = lapjv(grid)
    return columns.astype(np.int64), duals.astype(np.float64)
