"""The pricing step: the duality gap of an assignment and its prices, and the pairs with a positive reduced score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastproto.assignment.array_types import Bools, Floats, Ints, Ints32
from fastproto.assignment.search_state import ScoreReader

PLACES = 16  # k of a pass's top-k; doubled while rows have more candidates
MOST_PLACES = 256
PAIR_TOLERANCE = 1e-9  # in units of std(s): a smaller reduced score counts as zero
SUM_ROUNDING = 4e-15  # rounding of the list solver's sums, relative to the largest score
EXACT_ELEMENTS = 1 << 22  # float64 scores per block, for rows with more candidates than places


@dataclass(frozen=True)
class Proof:
    """The gap Σ_i max_j(s_ij - p_j) + Σ_j p_j - Σ_i s_iA(i), and the pairs whose reduced score is positive."""

    gap: float
    rows: Ints
    columns: Ints32
    scores: Floats
    crowded: bool  # some row has more candidates than places


def prove(
    reader: ScoreReader,
    columns: Ints,
    prices: Floats,
    places: int = PLACES,
    seen: tuple[Floats, Ints32] | None = None,
) -> Proof:
    """One pass over the scores, then float64 scores of the pairs that rounding leaves undecided.

    ``seen``: the top-k of a pass at these prices, which replaces the pass.
    """
    margin = reader.scores.margin(prices)
    own = reader.profits(columns, prices)
    floor = own - margin
    values, indices = seen or reader.top(prices, places, floor)
    others = indices != columns[: reader.rows, None]
    at = np.flatnonzero((values >= floor[:, None]) & (indices >= 0) & others)
    rows, ends = at // indices.shape[1], indices.ravel()[at]
    scores = reader.scores.exact(rows.astype(np.int32), ends)
    profit = scores - prices[ends]
    best = own.copy()
    np.maximum.at(best, rows, profit)
    full = (indices[:, -1] >= 0) & (values[:, -1] >= floor) & (indices.shape[1] < reader.columns)
    tolerance = max(PAIR_TOLERANCE * reader.spread, 4 * SUM_ROUNDING * reader.scores.magnitude)
    better = profit > own[rows] + tolerance
    pairs = [(rows[better], ends[better], scores[better])]
    undecided = np.nonzero(full & (values[:, -1] + margin > best))[0]
    step = max(1, EXACT_ELEMENTS // reader.columns)
    for start in range(0, len(undecided), step):
        pairs.append(_best_of_rows(reader, undecided[start : start + step], prices, own + tolerance, best))
    rows, ends, scores = (np.concatenate(part) for part in zip(*pairs, strict=True))
    gap = float((best - own).sum()) + left_over_cost(reader, columns, prices)
    return Proof(gap, rows, ends, scores, bool(full.any()))


def _best_of_rows(
    reader: ScoreReader, rows: Ints, prices: Floats, least: Floats, best: Floats
) -> tuple[Ints, Ints32, Floats]:
    """The best column of each row in float64: raises ``best`` in place and returns the pairs above ``least``."""
    scores = reader.scores.exact_rows(rows)
    profit = scores - prices
    first, every = profit.argmax(1), np.arange(len(rows))
    best[rows] = np.maximum(best[rows], profit[every, first])
    better: Bools = best[rows] > least[rows]
    return rows[better], first[better].astype(np.int32), scores[every, first][better]


def left_over_cost(reader: ScoreReader, columns: Ints, prices: Floats) -> float:
    """The contribution of the left-over columns to the gap."""
    return float((prices[columns[reader.rows :]] - prices.min()).sum())
