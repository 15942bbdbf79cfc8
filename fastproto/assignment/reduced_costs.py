"""Reduces and scales a cost matrix, so that every solver gets entries of order 1.

The minimum of each row and column is subtracted, which keeps the ranking of the permutations. An entry of the reduced
matrix that is much larger than the others is in no good permutation; such entries are clipped at a limit. Clipping only
lowers costs, so a permutation without clipped entries that is optimal for the clipped matrix is optimal for the given
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastproto.assignment.array_types import Floats

EPS = float(np.finfo(np.float64).eps)
SAMPLE = 64  # rows that the scale is estimated from
SPAN = 16  # times the columns, times the distance to the nearest competitor: above all entries of a uniform matrix
LIMIT = 1 << 10  # in units of the span: larger entries are clipped
WIDEST = 1e290  # largest span: its multiples fit float64
CANCELS = 1 << 20  # a column minimum larger than this times the scale cancels too many digits: reduced twice
EXPONENTS = 30  # entries between 2^-30 and 2^30 need no scaling
BLOCK = 256  # rows whose temporaries stay in the cache
NO_PLACE = (
    "every permutation of cost uses a pair at inf; expected one that avoids the forbidden pairs: "
    "forbid fewer pairs, or give them a large finite cost"
)


@dataclass(frozen=True)
class Reduced:
    """``cost`` [n, m], n <= m, is min((given - rows - columns) · 2^exponent, limit), its entries >= 0.

    ``columns`` is zero where n < m: some columns stay unmatched, so that their minima would change the ranking.
    """

    cost: Floats
    rows: Floats
    columns: Floats
    exponent: int
    scale: float  # std of the reduced entries clipped at the span, in the units of ``given``; 0 if all are equal
    spread: float  # the scale in the units of ``cost``, or 1
    span: float  # in the units of ``cost``: larger entries are in no good permutation
    limit: float  # in the units of ``cost``: where entries are clipped
    tied: float  # entries of a row that are zero but for rounding, on average

    def whole(self, given: Floats) -> Floats:
        """The reduced costs in the units of ``given``, without clipping; inf forbids a pair."""
        return _difference(given, self.rows, self.columns)

    def prices_given(self, prices: Floats) -> Floats:
        """Converts prices of the scores -cost to prices of the scores -given."""
        found: Floats = np.ldexp(prices, -self.exponent) - self.columns
        return found

    def prices_here(self, given: Floats) -> Floats | None:
        """Converts prices of the scores -given to prices of -cost; None if they spread too far to help."""
        with np.errstate(over="ignore", invalid="ignore"):
            prices = np.ldexp(given + self.columns, self.exponent)
            prices = prices - np.median(prices)
            return prices if np.ptp(prices) <= self.limit else None


def reduce(given: Floats) -> Reduced:
    """Reduces a matrix [n, m], 1 <= n <= m, in which inf forbids a pair.

    Raises:
        ValueError: a row, or a column of a square, has forbidden pairs only.
    """
    with np.errstate(over="ignore"):
        rows = _finite(given.min(1))
        cost = given - rows[:, None]
        columns = _reduce_columns(cost)
        scale, span, tied = _competition(cost, rows, columns)
        if columns.max() > CANCELS * scale:
            cost = _difference(given, rows, columns)
            more = cost.min(1)
            cost -= more[:, None]
            rows, columns = rows + more, columns + _reduce_columns(cost)
            scale, span, tied = _competition(cost, 0.0 * rows, 0.0 * columns)
        largest = float(cost.max())
        limit = LIMIT * span if span > 0 else 1.0
        if largest > limit:
            np.minimum(cost, limit, out=cost)
        exponent = _exponent(scale, min(largest, limit))
        if exponent:
            np.ldexp(cost, exponent, out=cost)
    spread, span, limit = (float(np.ldexp(x, exponent)) for x in (scale, span, limit))
    return Reduced(cost, rows, columns, exponent, scale, spread or 1.0, span or 1.0, limit, tied)


def _reduce_columns(cost: Floats) -> Floats:
    """Subtracts the column minima of a square matrix in place; returns them."""
    if len(cost) < cost.shape[1]:
        return np.zeros(cost.shape[1])
    columns = _finite(cost.min(0))
    cost -= columns
    return columns


def _finite(least: Floats) -> Floats:
    if not least.max() < np.inf:
        raise ValueError(NO_PLACE)
    return least


def _difference(given: Floats, rows: Floats, columns: Floats) -> Floats:
    """given - rows - columns, with compensation for the rounding of the first difference (TwoSum)."""
    found: Floats = np.empty_like(given)
    for start in range(0, len(given), BLOCK):
        part, least = given[start : start + BLOCK], rows[start : start + BLOCK, None]
        first = part - least
        with np.errstate(invalid="ignore"):
            back = first - part
            rest = (part - (first - back)) - (least + back)
        found[start : start + BLOCK] = (first - columns) + np.where(np.isfinite(rest), rest, 0.0)
    return found


def _competition(cost: Floats, rows: Floats, columns: Floats) -> tuple[float, float, float]:
    """(std of the entries clipped at the span, the span, number of best entries of a row), from a sample of rows.

    The span is a multiple of the lower quartile of each row's distance from its best entry to the nearest competitor.
    Entries that differ from the best by rounding are no competitors.
    """
    every = -(-len(cost) // SAMPLE)
    some = cost[::every]
    noise = 16 * EPS * (np.abs(rows[::every, None]) + np.abs(columns))
    behind = some > noise
    tied = some.shape[1] - np.count_nonzero(behind) / len(some)
    nearest = np.where(behind, some, np.inf).min(1)
    nearest = np.sort(nearest[nearest < np.inf])
    if not len(nearest):
        return 0.0, 0.0, tied
    span = min(SPAN * cost.shape[1] * float(nearest[len(nearest) // 4]), WIDEST)
    return float((np.minimum(some, span) / span).std()) * span, span, tied


def _exponent(scale: float, largest: float) -> int:
    """The exponent of the power of two that brings the scale to about 1; 0 where no scaling is needed."""
    if scale == 0:
        return 0
    here = int(np.frexp(scale)[1])
    return -here if abs(here) > EXPONENTS or largest > 2.0**EXPONENTS else 0
