"""Exact solver of a cost matrix, compiled: bids, then shortest augmenting paths (the method of Jonker and Volgenant).

The dual value v_j of a column is minus its price. A row prefers the column with the least c_ij - v_j.
"""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.reduced_costs import NO_PLACE
from fastproto.cpu.numba_cache import REORDERED, compiled
from fastproto.support.cancellation import check_stop

BIDS = 3  # scans per row before the paths: more of them save fewer scans of the paths than they cost
SPARE_ROWS = 32  # whose bids a chain may use in advance
TIED_BIDS = 64  # of one chain of rows that take a column from each other at an unchanged price
PART = 1 << 26  # entries that one part scans, at worst, or one row's path where those are more: tenths of a second
PASSES = 256  # over the matrix, for its least prices
EXACT = 1e-14  # relative to the prices: a smaller rise is rounding


def match_dense(cost: Floats, widest: float, begin: Floats | None = None) -> tuple[Ints, Floats]:
    """The column of each row, and prices >= 0 of the scores -cost; columns left over have the price 0.

    A thread can be stopped between two parts of the paths.

    Args:
        cost: [n, m], n <= m, entries >= 0 but for rounding; inf forbids a pair.
        widest: no bid raises a price by more; prices that are much larger than the costs cancel their digits.
        begin: [m], >= 0, the prices to begin with for n = m; None: zero.

    Raises:
        ValueError: no permutation avoids the forbidden pairs.
    """
    rows, columns = cost.shape
    values = np.zeros(columns) if begin is None else -begin
    column_of, row_of = np.full(rows, -1), np.full(columns, -1)
    part = max(1, PART // (4 * BIDS * columns))
    for start in range(0, rows, part):
        check_stop()
        _bid(cost, values, column_of, row_of, widest, start, min(start + part, rows))
    free, part = np.flatnonzero(column_of < 0), max(1, PART // cost.size)
    for start in range(0, len(free), part):
        check_stop()
        if not _augment(cost, values, column_of, row_of, free[start : start + part]):
            raise ValueError(NO_PLACE)
    return column_of, -values


def least_prices(cost: Floats, column_of: Ints, prices: Floats) -> Floats:
    """The smallest prices >= 0 of an optimal matching (Bellman-Ford from zero).

    Bids may raise prices by far more than the optimum needs, which then have no digits for small gaps.

    Args:
        cost: [n, m], n <= m; inf forbids a pair.
        column_of: [n], the column of each row.
        prices: [m], larger ones, which are returned after PASSES passes without an end.
    """
    found: Floats = np.zeros(len(prices))
    for _ in range(PASSES):
        check_stop()
        before, found = found, _needed(cost, found, column_of)
        if (found - before).max() <= EXACT * found.max():
            return found
    return prices


@compiled(inline="always")
def _least(row: Floats, values: Floats, begin: int, end: int) -> float:
    least = np.inf
    for j in range(begin, end):
        least = min(least, row[j] - values[j])
    return least


@compiled(inline="always")
def _cheapest(row: Floats, values: Floats, row_of: Ints, least: float, lost: int) -> int:
    """A column at the least cost: a free one, or another than the one just lost."""
    found = -1
    for j in range(len(row)):
        if row[j] - values[j] <= least:
            if row_of[j] < 0:
                return j
            if found < 0 or found == lost:
                found = j
    return found


@compiled(fastmath=REORDERED)
def _bid(cost: Floats, values: Floats, column_of: Ints, row_of: Ints, widest: float, begin: int, end: int) -> None:
    """Each row takes its cheapest column, if need be from another row, at the price of its second choice."""
    columns, bids = cost.shape[1], 0
    for first in range(begin, end):
        i, lost, tied = first, -1, 0
        while i >= 0:
            row = cost[i]
            if bids >= BIDS * (first - begin + SPARE_ROWS) or tied > TIED_BIDS:
                break
            bids += 1
            least = _least(row, values, 0, columns)
            if least == np.inf:
                break
            j = _cheapest(row, values, row_of, least, lost)
            owner = row_of[j]
            if owner >= 0:
                rise = min(_least(row, values, 0, j), _least(row, values, j + 1, columns)) - least
                if rise > widest:
                    break
                values[j] -= max(rise, 0.0)
                tied += rise <= 0.0
                lost = j
                column_of[owner] = -1
            row_of[j], column_of[i] = i, j
            i = owner


@compiled(inline="always")
def _relax(row: Floats, values: Floats, offset: float, at: float, distance: Floats, through: Ints, i: int) -> None:
    """Shortens the distances of columns through row i. None falls below ``at``, so that settled ones stay."""
    for j in range(len(row)):
        reached = max((row[j] - values[j]) + offset, at)
        nearer = reached < distance[j]
        distance[j] = reached if nearer else distance[j]
        through[j] = i if nearer else through[j]


@compiled(fastmath=REORDERED)
def _augment(cost: Floats, values: Floats, column_of: Ints, row_of: Ints, free: Ints) -> bool:
    """A shortest augmenting path (Dijkstra) for each free row; False if one cannot be matched."""
    columns = cost.shape[1]
    distance, through = np.empty(columns), np.empty(columns, np.int64)
    closed = np.empty(columns)  # inf for settled columns, 0 for others
    settled = np.empty(columns, np.int64)
    for start in free:
        distance[:] = np.inf
        closed[:] = 0.0
        i, offset, at, n_settled, end = start, 0.0, -np.inf, 0, -1
        while end < 0:
            _relax(cost[i], values, offset, at, distance, through, i)
            at = np.inf
            for j in range(columns):
                at = min(at, distance[j] + closed[j])
            if at == np.inf:
                return False
            nearest = -1
            for j in range(columns):
                if distance[j] + closed[j] <= at:
                    nearest = j
                    if row_of[j] < 0:
                        end = j
                        break
            if end < 0:
                closed[nearest] = np.inf
                settled[n_settled] = nearest
                n_settled += 1
                i = row_of[nearest]
                offset = at - (cost[i, nearest] - values[nearest])
        for j in settled[:n_settled]:
            values[j] += distance[j] - at
        j = end
        while j >= 0:
            i = through[j]
            row_of[j], column_of[i], j = i, j, column_of[i]
    return True


@compiled(fastmath=REORDERED)
def _needed(cost: Floats, prices: Floats, column_of: Ints) -> Floats:
    """The prices >= 0 that keep every other row away while these rows pay what they do at ``prices``."""
    needed = np.zeros(len(prices))
    for i in range(len(cost)):
        mine, row = column_of[i], cost[i]
        paid = row[mine] + prices[mine]
        _raise_to(needed, row, paid, 0, mine)
        _raise_to(needed, row, paid, mine + 1, len(row))
    return needed


@compiled(inline="always")
def _raise_to(needed: Floats, row: Floats, paid: float, begin: int, end: int) -> None:
    for j in range(begin, end):
        needed[j] = max(needed[j], paid - row[j])


@compiled(fastmath=REORDERED)
def compiled_least_of_rows(cost: Floats, prices: Floats) -> Floats:
    """min_j cost_ij + prices_j, [n]."""
    found = np.empty(len(cost))
    for i in range(len(cost)):
        least, row = np.inf, cost[i]
        for j in range(len(prices)):
            least = min(least, row[j] + prices[j])
        found[i] = least
    return found
