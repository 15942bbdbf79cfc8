"""The auction algorithm on lists of arcs, compiled: free rows outbid one another for columns.

``indices[i, :counts[i]]`` are the listed columns of row i, with ``scores``; everything is maximised. See
``list_solver``.
"""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.cpu.numba_cache import compiled


@compiled()
def keep_columns(
    indices: Ints32, scores: Floats, counts: Ints, prices: Floats, column_of: Ints, row_of: Ints, slack: float
) -> int:
    """Rows keep a column that is within ``slack`` of their best; the other rows take their best column if it is free.

    Returns the number of rows that stay free.
    """
    listed = len(indices)
    row_of[:] = -1
    favourite = np.empty(listed, np.int64)
    for i in range(listed):
        best = own = -np.inf
        for a in range(counts[i]):
            j = indices[i, a]
            value = scores[i, a] - prices[j]
            if value > best:
                best, favourite[i] = value, j
            if j == column_of[i]:
                own = value
        if column_of[i] >= 0 and own >= best - slack and row_of[column_of[i]] < 0:
            row_of[column_of[i]] = i
        else:
            column_of[i] = -1
    free = 0
    for i in range(listed):
        if column_of[i] < 0:
            if row_of[favourite[i]] < 0:
                row_of[favourite[i]], column_of[i] = i, favourite[i]
            else:
                free += 1
    return free


@compiled(inline="always")
def _two_best(indices: Ints32, scores: Floats, count: int, prices: Floats) -> tuple[float, int, float, int]:
    """The largest and the second largest s_ij - p_j of a row, each with its column."""
    best = second = -np.inf
    first = other = -1
    for a in range(count):
        j = indices[a]
        value = scores[a] - prices[j]
        if value > best:
            second, other = best, first
            best, first = value, j
        elif value > second:
            second, other = value, j
    return best, first, second, other


@compiled()
def hold_auction(
    indices: Ints32,
    scores: Floats,
    counts: Ints,
    prices: Floats,
    column_of: Ints,
    row_of: Ints,
    step: float,
    highest: float,
    most: int,
) -> int:
    """Free rows bid for their best column, the last row first; each row ends within ``step`` of its best.

    A bid on a taken column raises its price by the row's margin over its second-best column, at most ``highest``, plus
    ``step``. Without this limit, prices on an easy instance would rise until unlisted columns look attractive. With
    ``step`` = 0 this is the augmenting row reduction of Jonker and Volgenant (1987): a row that is outbid at an
    unchanged price stays free. Stops after ``most`` bids; returns the number of bids.
    """
    waiting = np.empty(len(indices), np.int64)
    count = 0
    for i in range(len(indices)):
        if column_of[i] < 0:
            waiting[count] = i
            count += 1
    bids = 0
    while count > 0 and bids < most:
        count -= 1
        bids += 1
        i = waiting[count]
        best, j, second, other = _two_best(indices[i], scores[i], counts[i], prices)
        if step == 0.0 and second == best and row_of[j] >= 0:
            j = other
        loser = row_of[j]
        row_of[j], column_of[i] = i, j
        if loser >= 0:
            raised = min(best - second, highest) + step
            prices[j] += raised
            column_of[loser] = -1
            if raised > 0.0:
                waiting[count] = loser
                count += 1
    return bids
