"""Exact assignment on short lists of arcs, compiled: an auction from good prices, then shortest augmenting paths.

``arcs`` of row i are ``indices[i, :counts[i]]`` with ``scores``; everything is maximised. Rows 0..n-1 have lists. The
rows n..m-1, where there are fewer rows than columns, stand for whatever takes the columns that are left: they score 0
everywhere, so that they need no lists, and they make an optimum one with equal, lowest prices on left-over columns.
Prices only rise, except those of left-over columns. Importing this compiles nothing; the first call does, and the
result stays on disk. The interpreter's lock is released, so that a thread of its own can wait for it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastproto.cpu.numba_cache import compiled
from fastproto.support.cancellation import check_stop

BIDS_PER_ROW = (
    100  # of an auction: it ends far earlier, unless bids rise in steps that are small beside what they compete for
)
BIDS_PER_FREE_ROW = 5  # of the row reduction, before augmenting paths take over
FREE_ROWS_AT_ONCE = 64  # of augmenting paths, at first: the next part is twice as large, or half of one that took long
LONG_PART = 0.25  # seconds
HIGHEST_BID = 5  # of any auction, in units of the largest step


@compiled()
def _keep(indices: Any, scores: Any, counts: Any, prices: Any, column_of: Any, row_of: Any, slack: float) -> int:
    """Rows keep their column where it is within ``slack`` of their best, others take their best if nobody has it.

    Returns how many rows are free then.
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
def _two_best(indices: Any, scores: Any, count: int, prices: Any) -> Any:
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
def _auction(
    indices: Any,
    scores: Any,
    counts: Any,
    prices: Any,
    column_of: Any,
    row_of: Any,
    step: float,
    highest: float,
    most: int,
) -> int:
    """Free rows outbid one another, the last one first; each ends within ``step`` of its best.

    A row takes a free column at its price, and raises that of a taken one by what it could lose, at most ``highest``:
    were it the whole margin, prices on an easy instance would rise until columns that are not listed look attractive.
    With ``step`` 0 it is the row reduction of Jonker and Volgenant: rows end at their best, but one that is outbid at
    no gain in price stays free. Stops after ``most`` bids.
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


@compiled()
def _profits(indices: Any, scores: Any, counts: Any, prices: Any, column_of: Any) -> Any:
    """What a row has: from its column, so that this one is tight to the last bit, or its best where it has none."""
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
def _push(keys: Any, items: Any, size: int, key: float, item: int) -> int:
    """Into a heap of four children per node."""
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
def _drop_first(keys: Any, items: Any, size: int) -> int:
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
def _nearest(keys: Any, items: Any, size: int, done: Any, distance: Any) -> Any:
    """(the column of the least distance that is not done, or -1; what is left in the heap)."""
    j = -1
    while size > 0 and j < 0:
        if not done[items[0]] and keys[0] <= distance[items[0]]:
            j = items[0]
        size = _drop_first(keys, items, size)
    return j, size


@compiled(inline="always")
def _pay(prices: Any, profit: Any, row_of: Any, settled: Any, distance: Any, at: float) -> None:
    """Columns nearer than the end of the path become dearer by the difference, and their rows have so much less."""
    for j in settled:
        prices[j] += at - distance[j]
        if row_of[j] < len(profit):
            profit[row_of[j]] -= at - distance[j]


@compiled(inline="always")
def _level(prices: Any, row_of: Any, listed: int, lowest: float, end: int) -> None:
    """The columns of rows without lists cost ``lowest``, and the end of a path that passed these rows no less."""
    for j in range(len(prices)):
        if row_of[j] >= listed:
            prices[j] = lowest
    if prices[end] < lowest:
        prices[end] = lowest


@compiled(inline="always")
def _flip(through: Any, column_of: Any, row_of: Any, start: int, end: int) -> None:
    """Along the path that ends at a free column each row takes the column after it."""
    j = end
    while True:
        i = through[j]
        row_of[j], column_of[i], j = i, j, column_of[i]
        if i == start:
            break


@compiled()
def _augment(
    indices: Any,
    scores: Any,
    counts: Any,
    prices: Any,
    profit: Any,
    lowest: float,
    column_of: Any,
    row_of: Any,
    first: int,
    last: int,
) -> Any:
    """A shortest augmenting path (Dijkstra on reduced scores) for each free row from ``first`` to ``last``.

    ``lowest`` is the price of left-over columns, minus the profit of the rows without lists; these are visited once in
    a search, together. Returns (``lowest``, the first row that cannot be matched or -1).
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
                        continue  # columns of rows without lists lead only back to these
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


@compiled()
def _give_away(indices: Any, scores: Any, counts: Any, prices: Any, profit: Any, column_of: Any, row_of: Any) -> float:
    """Rows without lists take the left-over columns that can be as cheap as the cheapest column in use."""
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
            prices[j] = max(lowest, bid[j])  # a left-over column costs no more than the rows that have lists would pay
            if prices[j] == lowest:
                row_of[j], column_of[row] = row, j
                row += 1
    return lowest


def solve_lists(
    indices: Any,
    scores: Any,
    counts: Any,
    prices: Any,
    column_of: Any,
    row_of: Any,
    steps: tuple[float, ...],
    slack: float,
) -> int:
    """The optimum on the lists, in place: ``column_of`` [m] and ``row_of`` [m] (-1 is free) and ``prices`` [m] float64.

    Rows that begin with a column keep it where it is tight, up to ``slack``, which is for rounding. ``steps`` are those
    of the auction, falling; none where few rows are free, for bids on an easy instance raise prices by whole margins,
    which makes columns that are not on the lists attractive. Returns the first row for which the lists hold no place,
    or -1.
    """
    arcs = (indices, scores, counts)
    listed = len(indices)
    highest = HIGHEST_BID * steps[0] if steps else 0.0
    for step in steps:
        check_stop()
        if _keep(*arcs, prices, column_of, row_of, step):
            _auction(*arcs, prices, column_of, row_of, step, highest, BIDS_PER_ROW * listed)
    free = _keep(*arcs, prices, column_of, row_of, slack)
    if steps:
        _auction(*arcs, prices, column_of, row_of, 0.0, highest, BIDS_PER_FREE_ROW * free)
    profit = _profits(*arcs, prices, column_of)
    _, stuck = _augment_all(*arcs, prices, profit, 0.0, column_of, row_of, 0, listed)
    if stuck < 0 and listed < len(prices):
        column_of[listed:] = -1
        lowest = _give_away(*arcs, prices, profit, column_of, row_of)
        _augment_all(*arcs, prices, profit, lowest, column_of, row_of, listed, len(prices))
    return int(stuck)


def _augment_all(
    indices: Any,
    scores: Any,
    counts: Any,
    prices: Any,
    profit: Any,
    lowest: float,
    column_of: Any,
    row_of: Any,
    first: int,
    last: int,
) -> tuple[float, int]:
    """:func:`_augment` for a part of the free rows at a time, so that a thread can be asked to stop in between."""
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
def start_lists(found: Any, old: Any) -> Any:
    """(indices, counts): the column ``old_i`` first, then those of ``found`` [n, k] that are others and not -1."""
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
def add_arcs(indices: Any, scores: Any, counts: Any, rows: Any, columns: Any, values: Any) -> None:
    """Appends arcs to the lists, which must be wide enough, unless they are there already."""
    for a in range(len(rows)):
        i, known = rows[a], False
        for b in range(counts[i]):
            known = known or indices[i, b] == columns[a]
        if not known:
            indices[i, counts[i]], scores[i, counts[i]] = columns[a], values[a]
            counts[i] += 1


@compiled()
def centre_prices(
    indices: Any, scores: Any, counts: Any, prices: Any, column_of: Any, row_of: Any, sweeps: int, most: float
) -> None:
    """Moves optimal prices away from their limits, so that they prove the assignment for a while when scores change.

    Each sweep moves every price at once by a quarter of the way to either limit, at most ``most``: no arc of the lists
    can come to be preferred.
    """
    listed = len(indices)
    lowest = np.inf
    for j in range(len(prices)):
        if row_of[j] >= listed:
            lowest = min(lowest, prices[j])
    for _ in range(sweeps):
        up, down = np.full(len(prices), most), np.full(len(prices), most)
        for i in range(listed):
            own = column_of[i]
            profit = -np.inf
            for a in range(counts[i]):
                if indices[i, a] == own:
                    profit = scores[i, a] - prices[own]
            for a in range(counts[i]):
                j = indices[i, a]
                if j != own:
                    slack = max(profit - scores[i, a] + prices[j], 0.0)
                    up[own], down[j] = min(up[own], slack), min(down[j], slack)
        for j in range(len(prices)):
            if row_of[j] < listed:
                if lowest < np.inf:
                    down[j] = min(down[j], prices[j] - lowest)
                prices[j] += 0.25 * (up[j] - down[j])
