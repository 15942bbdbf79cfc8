"""Exact dense solvers: lapx, or SciPy where lapx is not installed or slower.

lapjv is a method of its own: on near ties in floating point it can loop forever.
"""

from __future__ import annotations

import time

import numpy as np

from fastproto.assignment.array_types import Floats, Ints

EXACT = 1e-14  # relative to the costs and prices: a smaller rise is rounding
WIDE = 2  # columns per row above which SciPy is faster, because lapx pads the matrix to a square


def match_dense(cost: Floats) -> tuple[Ints, str, str]:
    """(column of each row, solver, reason) of a finite matrix [n, m], n <= m, entries >= 0."""
    rows, columns = cost.shape
    if rows == columns == 1:
        return np.zeros(1, dtype=np.int64), "dense", "a single pair has one assignment"
    if columns > WIDE * rows:
        return match_scipy(cost), "scipy", "far fewer rows than columns"
    try:
        from lap import lapjv as lapx
    except ImportError:
        return match_scipy(cost), "scipy", "lapx is not installed"
    found = np.asarray(lapx(cost, extend_cost=rows < columns)[1], dtype=np.int64)
    return found, "lapx", "the fastest dense solver that always terminates"


def match_scipy(cost: Floats) -> Ints:
    """The column of each row; inf forbids a pair.

    Raises:
        ValueError: no permutation avoids the forbidden pairs.
    """
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def improve_prices(cost: Floats, columns: Ints, unit: float, deadline: float | None) -> tuple[Floats, float]:
    """Dual prices of an optimal matching (Bellman-Ford), and the number of passes over the matrix.

    The dense solvers return no prices. Prices rise from zero until no row prefers another column:
    p_j >= p_{A(i)} + c_{i,A(i)} - c_ij. A pass visits the rows whose own price rose in the last pass and counts in
    proportion. ``unit`` is the scale of the reduced costs; ``deadline`` is in time of ``time.perf_counter``.
    """
    count = len(columns)
    matched = cost[np.arange(count), columns]
    prices = np.zeros(cost.shape[1])
    if not matched.max() < np.inf:  # a forbidden pair: no finite prices prove this matching
        return prices, 0.0
    least = max(unit, float(matched.max()))
    base, rows, passes = matched, np.arange(count), 0.0
    for _ in range(count):
        raised = prices.copy()
        for start in range(0, len(rows), 512):
            part = rows[start : start + 512]
            block = cost[start : start + 512] if len(rows) == count else cost[part]
            np.maximum(raised, (base[part, None] - block).max(0), out=raised)
        passes += len(rows) / count
        settled = bool((raised - prices).max() <= EXACT * max(least, float(raised.max())))
        prices, before = raised, base
        if settled or (deadline is not None and time.perf_counter() > deadline):
            break
        base = prices[columns] + matched
        rows = np.flatnonzero(base > before)
    return prices, passes
