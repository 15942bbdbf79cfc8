"""Shortest augmenting paths on lists of arcs, compiled (Dijkstra on reduced scores, with a heap).

``indices[i, :counts[i]]`` are the listed columns of row i, with ``scores``; everything is maximised. Rows 0..n-1 have
lists; rows n..m-1 score 0 everywhere and have none (see ``list_solver``). The heap is defined in this file because
a change of this file invalidates numba's disk cache, a change of an imported file does not.
"""

from __future__ import annotations

import time

import numpy as np

from fastproto.assignment.array_types import Bools, Floats, Ints, Ints32
from fastproto.cpu.numba_cache import compiled
from fastproto.support.cancellation import check_stop

FREE_ROWS_AT_ONCE = 64  # size of the first part; it doubles, or halves after a part that took LONG_PART
LONG_PART = 0.25  # seconds


@compiled(inline="always")
def _push(keys: Floats, items: Ints, size: int, key: float, item: int) -> int:
    """Pushes an item onto a 4-ary heap; returns the new size."""
    at = size
    while at > 0:
        parent = (at - 1) >> 2
        if keys[parent] <= key:
            break
        keys[at], items[at] = keys[parent], items[parent]
        at = parent
    keys[at], items[at] = key, item
    return size + 1


@compiled(inline="always")
def _drop_first(keys: Floats, items: Ints, size: int) -> int:
    """Pops the smallest key of the heap; returns the new size."""
    size -= 1
    key, item = keys[size], items[size]
    at = 0
    while True:
        child = 4 * at + 1
        if child >= size:
            break
        least = child
        for other in range(child + 1, min(child + 4, size)):
            if keys[other] < keys[least]:
                least = other
        if keys[least] >= key:
            break
        keys[at], items[at] = keys[least], items[least]
        at = least
    keys[at], items[at] = key, item
    return size


@compiled(inline="always")
def _nearest(keys: Floats, items: Ints, size: int, done: Bools, distance: Floats) -> tuple[int, int]:
    """Pops the nearest column that is not done; returns (column or -1, new size of the heap)."""
    j = -1
    while size > 0 and j < 0:
        if not done[items[0]] and keys[0] <= distance[items[0]]:
            j = items[0]
        size = _drop_first(keys, items, size)
    return j, size


@compiled()
def profits(indices: Ints32, scores: Floats, counts: Ints, prices: Floats, column_of: Ints) -> Floats:
    """s_iA(i) - p_A(i) of each matched row, computed so that it is exactly tight; the largest value of a free row."""
    profit = np.full(len(indices), -np.inf)
    for i in range(len(indices)):
        for a in range(counts[i]):
            j = indices[i, a]
            value = scores[i, a] - prices[j]
            if j == column_of[i]:
                profit[i] = value
                break
            profit[i] = max(profit[i], value)
    return profit


@compiled(inline="always")
def _pay(prices: Floats, profit: Floats, row_of: Ints, settled: Ints, distance: Floats, at: float) -> None:
    """The dual update of settled columns: prices rise by the distance to the path's end, profits of rows fall."""
    for j in settled:
        prices[j] += at - distance[j]
        if row_of[j] < len(profit):
            profit[row_of[j]] -= at - distance[j]


@compiled(inline="always")
def _level(prices: Floats, row_of: Ints, listed: int, lowest: float, end: int) -> None:
    """Sets the columns of rows without lists to the price ``lowest``, and raises the path's end to at least that."""
    for j in range(len(prices)):
        if row_of[j] >= listed:
            prices[j] = lowest
    if prices[end] < lowest:
        prices[end] = lowest


@compiled(inline="always")
def _flip(through: Ints, column_of: Ints, row_of: Ints, start: int, end: int) -> None:
    """Augments: each row on the path takes the next column; the last one was free."""
    j = end
    while True:
        i = through[j]
        row_of[j], column_of[i], j = i, j, column_of[i]
        if i == start:
            break


@compiled()
def _augment(
    indices: Ints32,
    scores: Floats,
    counts: Ints,
    prices: Floats,
    profit: Floats,
    lowest: float,
    column_of: Ints,
    row_of: Ints,
    first: int,
    last: int,
) -> tuple[float, int]:
    """A shortest augmenting path (Dijkstra on reduced scores) for each free row from ``first`` to ``last``.

    ``lowest`` is the price of the left-over columns: minus the profit of the rows without lists. A search visits these
    rows once, all together. Returns (``lowest``, the first row that cannot be matched or -1).
    """
    listed, columns = len(indices), len(prices)
    distance = np.full(columns, np.inf)
    through = np.full(columns, -1, np.int64)
    done = np.zeros(columns, np.bool_)
    touched, settled = np.empty(columns, np.int64), np.empty(columns, np.int64)
    keys, items = np.empty(4096), np.empty(4096, np.int64)
    for start in range(first, last):
        if column_of[start] >= 0:
            continue
        n_touched = n_settled = size = 0
        at, i, end, shortest = 0.0, start, -1, np.inf
        rest_at = -1.0  # the distance of the rows without lists, once they are reached
        while True:
            if i < listed or rest_at < 0.0:
                rest = i >= listed
                if rest:
                    rest_at = at
                for a in range(columns if rest else counts[i]):
                    j = a if rest else indices[i, a]
                    if done[j] or (rest and row_of[j] >= listed):
                        continue  # columns of rows without lists lead only back to such rows
                    value = -prices[j] if rest else scores[i, a] - prices[j]
                    reached = at + max((-lowest if rest else profit[i]) - value, 0.0)
                    if reached < distance[j] and reached < shortest:
                        if distance[j] == np.inf:
                            touched[n_touched] = j
                            n_touched += 1
                        distance[j] = reached
                        through[j] = i
                        if row_of[j] < 0:
                            shortest = reached
                        if size == len(keys):
                            keys = np.concatenate((keys, np.empty(size)))
                            items = np.concatenate((items, np.empty(size, np.int64)))
                        size = _push(keys, items, size, reached, j)
            j, size = _nearest(keys, items, size, done, distance)
            if j < 0:
                break
            at = distance[j]
            if row_of[j] < 0:
                end = j
                break
            done[j] = True
            settled[n_settled] = j
            n_settled += 1
            i = row_of[j]
        if end >= 0:
            _pay(prices, profit, row_of, settled[:n_settled], distance, at)
            if start < listed:
                profit[start] -= at
            if rest_at >= 0.0:
                lowest += at - rest_at
                _level(prices, row_of, listed, lowest, end)
            _flip(through, column_of, row_of, start, end)
        for t in range(n_touched):
            distance[touched[t]] = np.inf
            done[touched[t]] = False
        if end < 0:
            return lowest, start
    return lowest, -1


def augment_all(
    indices: Ints32,
    scores: Floats,
    counts: Ints,
    prices: Floats,
    profit: Floats,
    lowest: float,
    column_of: Ints,
    row_of: Ints,
    first: int,
    last: int,
) -> tuple[float, int]:
    """Calls :func:`_augment` for one part of the free rows at a time; a thread can be stopped between two parts."""
    free = first + np.flatnonzero(column_of[first:last] < 0)
    begin, part = 0, FREE_ROWS_AT_ONCE
    while begin < len(free):
        check_stop()
        started, end = time.perf_counter(), min(begin + part, len(free))
        limits = int(free[begin]), int(free[end - 1]) + 1
        lowest, stuck = _augment(indices, scores, counts, prices, profit, lowest, column_of, row_of, *limits)
        if stuck >= 0:
            return lowest, stuck
        begin, part = end, max(1, part // 2) if time.perf_counter() - started > LONG_PART else 2 * part
    return lowest, -1


@compiled()
def give_away(
    indices: Ints32, scores: Floats, counts: Ints, prices: Floats, profit: Floats, column_of: Ints, row_of: Ints
) -> float:
    """Gives left-over columns to the rows without lists where the price can equal the lowest price in use."""
    listed, columns = len(indices), len(prices)
    bid = np.full(columns, -np.inf)
    lowest = np.inf
    for i in range(listed):
        lowest = min(lowest, prices[column_of[i]])
        for a in range(counts[i]):
            bid[indices[i, a]] = max(bid[indices[i, a]], scores[i, a] - profit[i])
    row = listed
    for j in range(columns):
        if row_of[j] < 0:
            prices[j] = max(lowest, bid[j])  # the lowest price at which no listed row prefers the column
            if prices[j] == lowest:
                row_of[j], column_of[row] = row, j
                row += 1
    return lowest
