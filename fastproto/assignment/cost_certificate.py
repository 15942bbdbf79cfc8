"""The certificate of an assignment of a cost matrix, in one pass over it, compiled where the matrix is not small."""

from __future__ import annotations

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, Yardstick

FEW_PAIRS = 100**2  # below, numba is not imported


def certify_costs(cost: Floats, permutation: Ints, prices: Floats, yardstick: Yardstick) -> Certificate:
    """As :func:`.certificate.certify` of the scores -cost.

    Args:
        cost: [n, m]; inf forbids a pair.
        permutation: [n], -1 for a row without a column (n > m).
        prices: [m]; their minimum is 0 if n < m.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # a forbidden pair that was taken, huge previous prices
        return _judged(cost, permutation, prices, yardstick)


def _judged(cost: Floats, permutation: Ints, prices: Floats, yardstick: Yardstick) -> Certificate:
    rows, columns = cost.shape
    used = permutation >= 0
    mine = permutation[used]
    paid = cost[used, mine]
    least = least_of_rows(cost, prices)
    if rows > columns:
        least = np.minimum(least, 0.0)
    gap = float((paid + prices[mine] - least[used]).sum() - least[~used].sum())
    if rows < columns:
        gap += float(np.delete(prices, mine).sum())
    return yardstick.judge(-float(paid.sum()), gap, float(np.abs(paid).sum() + np.abs(prices).sum()))


def least_of_rows(cost: Floats, prices: Floats) -> Floats:
    """min_j cost_ij + prices_j, [n]."""
    if cost.size < FEW_PAIRS:
        small: Floats = (cost + prices).min(1)
        return small
    from fastproto.assignment.dense import compiled_least_of_rows

    found: Floats = compiled_least_of_rows(cost, prices)
    return found
