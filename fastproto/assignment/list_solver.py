"""The exact assignment on short lists of arcs: an auction from good prices, then shortest augmenting paths.

``indices[i, :counts[i]]`` are the listed columns of row i, with ``scores``; the sum of scores is maximised. Rows 0..n-1
have lists. With n < m, dummy rows n..m-1 take the left-over columns: they score 0 everywhere and need no lists, and at
an optimum all left-over columns have the same, lowest price. Prices only rise, except those of left-over columns.

numba compiles the loops at the first call, not at import, and caches the machine code on disk. They release the GIL, so
that they can run in a thread.
"""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.auction import hold_auction, keep_columns
from fastproto.assignment.augmenting_paths import augment_all, give_away, profits
from fastproto.cpu.numba_cache import compiled
from fastproto.support.cancellation import check_stop

BIDS_PER_ROW = 100  # limit of an auction: reached only where bids rise in very small steps
BIDS_PER_FREE_ROW = 5  # limit of the row reduction; augmenting paths do the rest
HIGHEST_BID = 5  # limit of a row's margin in a bid, in units of the largest step


@compiled()
def start_lists(found: Ints32, old: Ints) -> tuple[Ints32, Ints]:
    """(indices, counts) of lists that hold ``old[i]`` first, then the other columns of ``found[i]`` (-1: none)."""
    rows, k = found.shape
    indices, counts = np.zeros((rows, k + 1), np.int32), np.ones(rows, np.int64)
    for i in range(rows):
        indices[i, 0] = old[i]
        for a in range(k):
            if found[i, a] >= 0 and found[i, a] != old[i]:
                indices[i, counts[i]] = found[i, a]
                counts[i] += 1
    return indices, counts


@compiled()
def add_arcs(indices: Ints32, scores: Floats, counts: Ints, rows: Ints, columns: Ints32, values: Floats) -> None:
    """Appends the arcs that the lists do not hold yet; the arrays must be wide enough."""
    for a in range(len(rows)):
        i, known = rows[a], False
        for b in range(counts[i]):
            known = known or indices[i, b] == columns[a]
        if not known:
            indices[i, counts[i]], scores[i, counts[i]] = columns[a], values[a]
            counts[i] += 1


def solve_lists(
    indices: Ints32,
    scores: Floats,
    counts: Ints,
    prices: Floats,
    column_of: Ints,
    row_of: Ints,
    steps: tuple[float, ...],
    slack: float,
) -> int:
    """The optimum on the lists; changes ``column_of`` [m], ``row_of`` [m] (-1: free) and ``prices`` [m] in place.

    A row keeps its initial column if it is tight up to ``slack``, an allowance for rounding. ``steps`` are the bid
    increments of the auction, descending; empty where few rows are free, because bids on an easy instance raise prices
    by whole margins and make unlisted columns attractive. Returns the first row that the lists cannot match, or -1.
    """
    arcs = (indices, scores, counts)
    listed = len(indices)
    highest = HIGHEST_BID * steps[0] if steps else 0.0
    for step in steps:
        check_stop()
        if keep_columns(*arcs, prices, column_of, row_of, step):
            hold_auction(*arcs, prices, column_of, row_of, step, highest, BIDS_PER_ROW * listed)
    free = keep_columns(*arcs, prices, column_of, row_of, slack)
    if steps:
        hold_auction(*arcs, prices, column_of, row_of, 0.0, highest, BIDS_PER_FREE_ROW * free)
    profit = profits(*arcs, prices, column_of)
    _, stuck = augment_all(*arcs, prices, profit, 0.0, column_of, row_of, 0, listed)
    if stuck < 0 and listed < len(prices):
        column_of[listed:] = -1
        lowest = give_away(*arcs, prices, profit, column_of, row_of)
        augment_all(*arcs, prices, profit, lowest, column_of, row_of, listed, len(prices))
    return int(stuck)
