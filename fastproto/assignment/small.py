"""Exact solver of a small cost matrix: SciPy, without the import of numba and its compilation."""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.reduced_costs import NO_PLACE

EXACT = 1e-14  # relative to the prices: a smaller rise is rounding


def match_small(cost: Floats) -> tuple[Ints, Floats]:
    """As :func:`fastproto.assignment.dense.match_dense`; the prices are the least ones (Bellman-Ford from zero)."""
    from scipy.optimize import linear_sum_assignment

    try:
        columns = np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)
    except ValueError:
        raise ValueError(NO_PLACE) from None
    matched, prices = cost[np.arange(len(cost)), columns], np.zeros(cost.shape[1])
    for _ in range(len(cost)):
        before = prices
        prices = np.maximum(((prices[columns] + matched)[:, None] - cost).max(0), prices)
        if (prices - before).max() <= EXACT * max(1.0, float(prices.max())):
            break
    return columns, prices
