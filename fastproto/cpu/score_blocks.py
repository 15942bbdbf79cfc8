"""Compiled scans of blocks of scores, for the processor: exp-and-sum and top-k while the block is still in the cache.

A block is float32 or bfloat16; the latter comes as its bits in uint16, since numba has no such type. Importing this
compiles nothing: numba does so at the first call and keeps the result on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastproto.cpu.numba_cache import compiled

GROUPS_OF = 16  # columns that share one running maximum: a row is looked at again only in its best groups
LANES = 64  # groups come in multiples of it: whole vectors
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
def _narrow(_context: Any, value: Any, like: Any) -> Any:
    """A finite float32 as what ``like`` is: itself, or the bits of the nearest bfloat16, of two the even one."""
    if like == types.float32:
        return types.float32(value, like), lambda context, builder, signature, arguments: arguments[0]

    def nearest(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        carried = builder.add(builder.add(bits, ir.Constant(word, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(carried, ir.Constant(word, 16)), ir.IntType(16))

    return types.uint16(types.float32, like), nearest


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


@compiled(inline="always", fastmath=FAST)
def _exp2(x: Any) -> Any:
    """2^x for x <= 0 to a relative 1e-4: prices need no more; below 2^-126 it is as good as zero."""
    x = _larger(x, np.float32(-126.0))
    whole = np.floor(x)
    part = x - whole
    fraction = np.float32(1.0) + part * (
        np.float32(0.6951786) + part * (np.float32(0.2276724) + part * np.float32(0.0771490))
    )
    return fraction * _power_of_two(whole)


@compiled(fastmath=FAST)
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


@compiled(inline="always")
def _insert(values: Any, indices: Any, value: Any, index: Any) -> None:
    """Into a list sorted downwards; its last entry falls out."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        indices[at] = indices[at - 1]
        at -= 1
    values[at] = value
    indices[at] = index


@compiled(inline="always", fastmath=FAST)
def _group_maxima(row: Any, prices: Any, maxima: Any) -> None:
    """maxima_g = max over the columns j = g modulo the number of groups."""
    groups, columns = len(maxima), len(row)
    maxima[:] = -np.inf
    for start in range(0, columns, groups):
        part, cost = row[start : start + groups], prices[start : start + groups]
        for g in range(len(part)):
            maxima[g] = _larger(maxima[g], _widen(part[g]) - cost[g])


@compiled(fastmath=FAST)
def _largest(part: Any) -> Any:
    best = np.float32(-np.inf)
    for j in range(len(part)):
        best = _larger(best, part[j])
    return best


@compiled(inline="always")
def _threshold(maxima: Any, high: Any, least: Any, k: int) -> Any:
    """``least``, or a larger value that at least k of the maxima reach where many reach ``least``; high is their max.

    By bisection, which needs no branches per entry.
    """
    below = -high
    count = 0
    for g in range(len(maxima)):
        count += maxima[g] >= least
        below = _larger(below, -maxima[g])
    if 4 * count <= 5 * k:
        return least
    low = max(least, -below)
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


@compiled()
def top_of_rows(block: Any, prices: Any, floor: Any, within: Any, first: int, values: Any, indices: Any) -> None:
    """The largest s_ij - p_j of each row, sorted, at most k; unused places hold -inf and -1.

    Only those of at least floor_i and at most within_i below the largest. Of equal values those are taken that come
    first in an order that starts elsewhere in every row: rows that are equal, or see equal columns, then do not all
    list the same few.
    """
    rows, columns = block.shape
    k = values.shape[1]
    groups = max((columns + GROUPS_OF - 1) // GROUPS_OF, 4 * k)
    groups = min(columns, (groups + LANES - 1) // LANES * LANES)
    maxima = np.empty(groups, np.float32)
    for i in range(rows):
        row, value, index = block[i], values[i], indices[i]
        value[:] = -np.inf
        index[:] = -1
        _group_maxima(row, prices, maxima)
        high = _largest(maxima)
        # if at least k maxima reach the threshold, so does the k-th largest score
        least = _threshold(maxima, high, max(floor[i], high - within[i]), k)
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


@compiled()
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


@compiled(fastmath=FAST)
def exact_scores(left: Any, right: Any, rows: Any, columns: Any, found: Any) -> None:
    """found_a = left[rows_a] · right[columns_a] with float64 sums: the product of two float32 is exact in float64."""
    dim = left.shape[1]
    for a in range(len(rows)):
        x, y = left[rows[a]], right[columns[a]]
        total = 0.0
        for d in range(dim):
            total += np.float64(x[d]) * np.float64(y[d])
        found[a] = total


@compiled(fastmath=FAST)
def sum_of_squares(block: Any) -> Any:
    """Σ_ij s_ij²: float32 within a row, float64 over the rows."""
    total = 0.0
    for i in range(len(block)):
        row, square = block[i], np.float32(0.0)
        for j in range(len(row)):
            square += _widen(row[j]) * _widen(row[j])
        total += np.float64(square)
    return total


@compiled(fastmath=FAST)
def mean_direction(x: Any, norms: Any, mean: Any) -> None:
    """mean = the mean of the rows x_i / norms_i, in float64."""
    mean[:] = 0.0
    for i in range(len(x)):
        share = 1.0 / (norms[i] * len(x))
        for d in range(len(mean)):
            mean[d] += np.float64(x[i, d]) * share


@compiled(fastmath=FAST)
def centre_rows(x: Any, norms: Any, mean: Any, direction: Any, rounded: Any, norm: Any, loss: Any, along: Any) -> None:
    """rounded_i = x_i / norms_i - mean, of length norm_i and moved by loss_i; along_i = direction · x_i / norms_i."""
    for i in range(len(x)):
        share = 1.0 / norms[i]
        square = lost = part = 0.0
        for d in range(len(mean)):
            whole = np.float64(x[i, d]) * share
            true = whole - mean[d]
            rounded[i, d] = _narrow(np.float32(true), rounded[i, d])
            gone = true - np.float64(_widen(rounded[i, d]))
            square += true * true
            lost += gone * gone
            part += whole * direction[d]
        norm[i], loss[i], along[i] = np.sqrt(square), np.sqrt(lost), part
