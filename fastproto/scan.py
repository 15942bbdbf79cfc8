"""Compiled scans of blocks of scores, for the processor: exp-and-sum and top-k while the block is still in the cache.

A block is float32 or bfloat16; the latter comes as its bits in uint16, since numba has no such type. Importing this
compiles nothing: numba does so at the first call and keeps the result on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

GROUPS_OF = 16  # columns that share one running maximum: a row is looked at again only in its best groups
RUN = 128  # columns
FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}  # not "ninf": lists are empty at -inf


@intrinsic
def _widen(_context: Any, value: Any) -> Any:
    """float32 of a float32 or of the bits of a bfloat16, its upper half."""
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]

    def upper_half(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(word, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(value), upper_half


@intrinsic
def _power_of_two(_context: Any, whole: Any) -> Any:
    """2^n of a float32 that is a whole number from -126 to 127, by writing the exponent's bits."""
    word = ir.IntType(32)

    def exponent(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(builder.fptosi(arguments[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(whole), exponent


@intrinsic
def _larger(_context: Any, left: Any, right: Any) -> Any:
    """max of two float32, neither NaN, in the form that LLVM turns into vectors; the built-in max stays scalar."""

    def select(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        greater = builder.fcmp_ordered(">", *arguments, flags=["nnan", "nsz"])
        return builder.select(greater, *arguments, flags=["nnan", "nsz"])

    return types.float32(types.float32, types.float32), select


@njit(inline="always", fastmath=FAST)
def _exp2(x: Any) -> Any:
    """2^x for x <= 0 to a relative 1e-4: prices need no more; below 2^-126 it is as good as zero."""
    x = _larger(x, np.float32(-126.0))
    whole = np.floor(x)
    part = x - whole
    fraction = np.float32(1.0) + part * (
        np.float32(0.6951786) + part * (np.float32(0.2276724) + part * np.float32(0.0771490))
    )
    return fraction * _power_of_two(whole)


@njit(cache=True, nogil=True, fastmath=FAST)
def softmax_columns(block: Any, prices: Any, sharpness: Any, mass: Any) -> None:
    """mass_j += Σ_i softmax_j(sharpness · (s_ij - p_j)), the exponentials to base 2; mass is float32 [C]."""
    rows, columns = block.shape
    power = np.empty(columns, np.float32)
    for i in range(rows):
        row = block[i]
        best = np.float32(-np.inf)
        for j in range(columns):
            x = _widen(row[j]) - prices[j]
            power[j] = x
            best = _larger(best, x)
        total = np.float32(0.0)
        for j in range(columns):
            x = _exp2((power[j] - best) * sharpness)
            power[j] = x
            total += x
        share = np.float32(1.0) / total
        for j in range(columns):
            mass[j] += power[j] * share


@njit(inline="always")
def _insert(values: Any, indices: Any, value: Any, index: Any) -> None:
    """Into a list sorted downwards; its last entry falls out."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        indices[at] = indices[at - 1]
        at -= 1
    values[at] = value
    indices[at] = index


@njit(inline="always", fastmath=FAST)
def _group_maxima(row: Any, prices: Any, maxima: Any) -> None:
    """maxima_g = max over the columns j = g modulo the number of groups."""
    groups, columns = len(maxima), len(row)
    maxima[:] = -np.inf
    for start in range(0, columns, groups):
        part, cost = row[start : start + groups], prices[start : start + groups]
        for g in range(len(part)):
            maxima[g] = _larger(maxima[g], _widen(part[g]) - cost[g])


@njit(inline="always")
def _threshold(maxima: Any, k: int) -> Any:
    """A value that at least k of the maxima, and few more, reach: by bisection, which needs no branches per entry."""
    below = high = np.float32(-np.inf)
    for g in range(len(maxima)):
        below, high = _larger(below, -maxima[g]), _larger(high, maxima[g])
    low = -below
    for _ in range(12):
        middle = np.float32(0.5) * (low + high)
        count = 0
        for g in range(len(maxima)):
            count += maxima[g] >= middle
        if count < k:
            high = middle
        else:
            low = middle
            if 4 * count <= 5 * k:
                break
    return low


@njit(cache=True, nogil=True)
def top_of_rows(block: Any, prices: Any, floor: Any, first: int, values: Any, indices: Any) -> None:
    """The largest s_ij - p_j above floor_i of each row, sorted, at most k; unused places hold -inf and -1.

    Of equal values those are taken that come first in an order that starts elsewhere in every row: rows that are
    equal, or see equal columns, then do not all list the same few.
    """
    rows, columns = block.shape
    k = values.shape[1]
    groups = min(columns, max((columns + GROUPS_OF - 1) // GROUPS_OF, 4 * k))
    maxima = np.empty(groups, np.float32)
    for i in range(rows):
        row, value, index = block[i], values[i], indices[i]
        value[:] = -np.inf
        index[:] = -1
        _group_maxima(row, prices, maxima)
        # k maxima reach the threshold, so the k-th largest score does
        least = max(floor[i], _threshold(maxima, k)) if groups >= k else floor[i]
        turn = (first + i) * 7919 % groups
        for step in range(groups):
            g = step + turn
            if g >= groups:
                g -= groups
            if maxima[g] < least or maxima[g] <= value[k - 1]:
                continue
            for j in range(g, columns, groups):
                x = _widen(row[j]) - prices[j]
                if x >= least and x > value[k - 1]:
                    _insert(value, index, x, np.int32(j))


@njit(cache=True, nogil=True, fastmath=FAST)
def _largest(part: Any) -> Any:
    best = np.float32(-np.inf)
    for j in range(len(part)):
        best = _larger(best, part[j])
    return best


@njit(cache=True, nogil=True)
def keep_top(block: Any, first: int, values: Any, indices: Any) -> None:
    """Bring the columns of a float32 block, ``first`` and on, into the sorted lists [rows, k] of the largest so far.

    Blocks come from left to right; the lists begin at -inf. Of equal values the lowest index stays first.
    """
    rows, columns = block.shape
    last = values.shape[1] - 1
    for i in range(rows):
        row, value, index = block[i], values[i], indices[i]
        for start in range(0, columns, RUN):  # few runs hold a value for the list: the others cost a maximum each
            part = row[start : start + RUN]
            if _largest(part) > value[last]:
                for j in range(len(part)):
                    if part[j] > value[last]:
                        _insert(value, index, part[j], first + start + j)


@njit(cache=True, nogil=True, fastmath=FAST)
def exact_scores(left: Any, right: Any, rows: Any, columns: Any, found: Any) -> None:
    """found_a = left[rows_a] · right[columns_a] with float64 sums: the product of two float32 is exact in float64."""
    dim = left.shape[1]
    for a in range(len(rows)):
        x, y = left[rows[a]], right[columns[a]]
        total = 0.0
        for d in range(dim):
            total += np.float64(x[d]) * np.float64(y[d])
        found[a] = total


@njit(cache=True, nogil=True, fastmath=FAST)
def rows_along(x: Any, direction: Any, found: Any) -> None:
    """found_i = x_i · direction [D] float64."""
    for i in range(len(x)):
        total = 0.0
        for d in range(len(direction)):
            total += np.float64(x[i, d]) * direction[d]
        found[i] = total


@njit(cache=True, nogil=True, fastmath=FAST)
def mean_direction(x: Any, norms: Any, mean: Any) -> None:
    """mean = the mean of the rows x_i / norms_i, in float64."""
    for i in range(len(x)):
        share = 1.0 / (norms[i] * len(x))
        for d in range(len(mean)):
            mean[d] += np.float64(x[i, d]) * share


@njit(cache=True, nogil=True, fastmath=FAST)
def centre_rows(x: Any, norms: Any, mean: Any, centred: Any) -> None:
    """centred_i = x_i / norms_i - mean, rounded to float32 at the end."""
    for i in range(len(x)):
        share = 1.0 / norms[i]
        for d in range(len(mean)):
            centred[i, d] = np.float64(x[i, d]) * share - mean[d]


@njit(cache=True, nogil=True, fastmath=FAST)
def norms_and_losses(x: Any, norms: Any, mean: Any, rounded: Any, norm: Any, loss: Any) -> None:
    """norm_i = ‖x_i / norms_i - mean‖ and loss_i = how far the rounded row is from it."""
    for i in range(len(x)):
        share = 1.0 / norms[i]
        square = lost = 0.0
        for d in range(len(mean)):
            true = np.float64(x[i, d]) * share - mean[d]
            gone = true - np.float64(_widen(rounded[i, d]))
            square += true * true
            lost += gone * gone
        norm[i], loss[i] = np.sqrt(square), np.sqrt(lost)
