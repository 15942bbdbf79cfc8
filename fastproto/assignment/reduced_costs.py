"""A cost matrix with its offsets, outliers and scale taken out, so that every solver sees entries of order 1.

Rows and columns are reduced by their smallest entry: the permutations are ranked as before, and an entry that is much
larger than the others of a reduced matrix is in no good permutation. Such entries are cut to a limit. A permutation
without cut entries that is optimal for the cut matrix is optimal for the matrix given, since cutting lowers costs only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastproto.assignment.array_types import Floats

EPS = float(np.finfo(np.float64).eps)
SAMPLE = 64  # rows that tell the scale
SPAN = 16  # times the columns, times the distance to the nearest competitor: uniform entries are well below
LIMIT = 1 << 10  # in units of the span: what is cut is far from any competition
WIDEST = 1e290  # of the span: its multiples stay within float64
CANCELS = 1 << 20  # a shift that is so much larger than what is left costs digits
EXPONENTS = 30  # entries between 2^-30 and 2^30 need no scaling
NO_PLACE = (
    "every permutation of cost uses a pair at inf; expected one that avoids the forbidden pairs: "
    "forbid fewer pairs, or give them a large finite cost"
)


@dataclass(frozen=True)
class Reduced:
    """``cost`` [n, m], n <= m, is min((given - rows - columns) · 2^exponent, limit), its entries >= 0.

    ``columns`` is zero where n < m: a column that stays free has no cost to take out.
    """

    cost: Floats
    rows: Floats
    columns: Floats
    exponent: int
    scale: float  # std of the reduced entries that can compete, in the units given; 0 where none differ
    spread: float  # the same in the units of ``cost``, or 1
    span: float  # in the units of ``cost``: entries above it compete with none
    limit: float

    def whole(self, given: Floats) -> Floats:
        """The reduced costs in the units given, nothing cut; inf forbids a pair."""
        return _difference(given, self.rows, self.columns)

    def prices_given(self, prices: Floats) -> Floats:
        """Prices for the scores -given, of prices for -cost."""
        found: Floats = np.ldexp(prices, -self.exponent) - self.columns
        return found

    def prices_here(self, given: Floats) -> Floats | None:
        """The other way, or None where they are of no use: far apart beside what the entries are."""
        with np.errstate(over="ignore", invalid="ignore"):
            prices = np.ldexp(given + self.columns, self.exponent)
            prices = prices - np.median(prices)
            return prices if np.ptp(prices) <= self.limit else None


def reduce(given: Floats) -> Reduced:
    """Of a matrix [n, m], 1 <= n <= m, in which inf forbids a pair.

    Raises:
        ValueError: a row, or a column of a square, has forbidden pairs only.
    """
    with np.errstate(over="ignore"):
        rows = _finite(given.min(1))
        cost = given - rows[:, None]
        columns = _reduce_columns(cost)
        scale, span = _competition(cost, rows, columns)
        if columns.max() > CANCELS * scale:
            cost = _difference(given, rows, columns)
            more = cost.min(1)
            cost -= more[:, None]
            rows, columns = rows + more, columns + _reduce_columns(cost)
            scale, span = _competition(cost, 0.0 * rows, 0.0 * columns)
        largest = float(cost.max())
        limit = LIMIT * span if span > 0 else 1.0
        if largest > limit:
            np.minimum(cost, limit, out=cost)
        exponent = _exponent(scale, min(largest, limit))
        if exponent:
            np.ldexp(cost, exponent, out=cost)
    spread, span, limit = (float(np.ldexp(x, exponent)) for x in (scale, span, limit))
    return Reduced(cost, rows, columns, exponent, scale, spread or 1.0, span or 1.0, limit)


def _reduce_columns(cost: Floats) -> Floats:
    """Of a square, in place; what was subtracted."""
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
    """given - rows - columns, with what the first difference rounds off added to the second."""
    first = given - rows[:, None]
    with np.errstate(invalid="ignore"):
        back = first - given
        rest = (given - (first - back)) - (rows[:, None] + back)
    found: Floats = (first - columns) + np.where(np.isfinite(rest), rest, 0.0)
    return found


def _competition(cost: Floats, rows: Floats, columns: Floats) -> tuple[float, float]:
    """(std of the entries up to a span, the span), from some rows.

    The span is a multiple of how far the nearest competitor of a row's best entry is, in the lower quartile of rows.
    What rounding makes of equal entries is no competitor.
    """
    every = -(-len(cost) // SAMPLE)
    some = cost[::every]
    noise = 16 * EPS * (np.abs(rows[::every, None]) + np.abs(columns))
    nearest = np.where(some > noise, some, np.inf).min(1)
    nearest = np.sort(nearest[nearest < np.inf])
    if not len(nearest):
        return 0.0, 0.0
    span = min(SPAN * cost.shape[1] * float(nearest[len(nearest) // 4]), WIDEST)
    return float((np.minimum(some, span) / span).std()) * span, span


def _exponent(scale: float, largest: float) -> int:
    """The power of two that brings the scale to about 1, or 0 where it is near enough."""
    if scale == 0:
        return 0
    here = int(np.frexp(scale)[1])
    return -here if abs(here) > EXPONENTS or largest > 2.0**EXPONENTS else 0
