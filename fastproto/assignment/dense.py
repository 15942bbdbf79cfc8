"""Exact dense solvers: lapx, or SciPy where it is not installed.

Not the package lapjv: it was seen not to return on small instances with near ties, with costs in float64 and also with
costs rounded to whole numbers.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def match_dense(scores: Array) -> tuple[Any, Array, str, str]:
    """(column of each row, first prices, solver, reason)."""
    if len(scores) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1), "dense", "one class has one assignment"
    cost = scores.max() - scores
    try:
        from lap import lapjv as lapx
    except ImportError:
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment(cost)[1], np.zeros(len(cost)), "scipy", "lapx is not installed"
    return lapx(cost)[1], np.zeros(len(cost)), "lapx", "the fastest dense solver that always ends"


def improve_prices(scores: Array, columns: Any, prices: Array, deadline: float | None) -> tuple[Array, int]:
    """Raise prices until no row prefers another column: p_j >= p_{A(i)} + s_ij - s_{i,A(i)} (Bellman-Ford).

    The solvers give no prices, so this starts from zero.
    """
    size = len(columns)
    matched = scores[np.arange(size), columns]
    least = 1e-14 * max(float(np.abs(scores).max()), 1e-300)
    prices = prices - prices.min()
    for sweep in range(1, size + 1):
        base = prices[columns] - matched
        raised = prices.copy()
        for start in range(0, size, 512):
            np.maximum(raised, (scores[start : start + 512] + base[start : start + 512, None]).max(0), out=raised)
        settled = bool((raised - prices).max() <= least)
        prices = raised
        if settled or (deadline is not None and time.perf_counter() > deadline):
            return prices, sweep
    return prices, size
