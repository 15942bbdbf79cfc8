"""Centring of the dual prices within their optimal intervals, on lists of arcs; compiled."""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.cpu.numba_cache import compiled


@compiled()
def centre_prices(
    indices: Ints32,
    scores: Floats,
    counts: Ints,
    prices: Floats,
    column_of: Ints,
    row_of: Ints,
    repeats: int,
    most: float,
) -> None:
    """Moves optimal prices away from the bounds of dual feasibility: they stay optimal when scores change a little.

    Each repeat moves all prices at once: by a quarter of the slack above minus a quarter of the slack below, each slack
    at most ``most``. Listed arcs stay dual feasible.
    """
    listed = len(indices)
    lowest = np.inf
    for j in range(len(prices)):
        if row_of[j] >= listed:
            lowest = min(lowest, prices[j])
    for _ in range(repeats):
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
