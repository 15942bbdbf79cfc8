"""Helpers of the numba loops over rows of features.

The rows are contiguous float32. Sums are re-ordered to fill vector registers, in the same order at every call.
"""

# compiled functions have no Python types, and nobody passes the first parameter of an intrinsic
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg"

from __future__ import annotations

import numpy as np

from fastproto.cpu.intrinsics import fetch
from fastproto.cpu.numba_cache import compiled
from fastproto.support.checks import TINY_NORM

REORDER = {"reassoc", "contract", "nsz", "arcp"}  # without "nnan" and "ninf": NaN and inf must be detected
AHEAD = 12  # rows to prefetch: enough to hide the memory's latency, few enough for the L2 cache
GOOD = 0  # no error; errors are the numbers of fastproto.support.error_flags.RowError
ZERO, ONE = np.float32(0), np.float32(1)
_INFINITE = np.float32(np.inf)
_TINY = np.float32(TINY_NORM**2)


@compiled(fastmath=REORDER)
def fetch_row(matrix, row):
    for column in range(0, matrix.shape[1], 16):  # a cache line is 16 float32
        fetch(matrix, row, column)


@compiled(fastmath=REORDER)
def inverse_norm(squares):
    """1/‖x‖ from Σ x²; zero for a row without direction, -1 for one with NaN, inf or an overflow."""
    if not squares < _INFINITE:  # isfinite compiles to a difference, which re-ordering turns into zero
        return -ONE
    return ONE / np.sqrt(squares) if squares > _TINY else ZERO
