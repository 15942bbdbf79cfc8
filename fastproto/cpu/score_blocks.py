"""Numba loops over blocks of scores: softmax sums, top-k and centring while the block is still in the cache.

A block is float32 or bfloat16; bfloat16 is passed as its bits in uint16, since numba has no such type. Importing this
compiles nothing: numba compiles at the first call and caches the result on disk.
"""

# compiled functions have no Python types, and nobody passes the first parameter of an intrinsic
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg"

from __future__ import annotations

import numpy as np

from fastproto.cpu.intrinsics import larger, narrow, power_of_two, widen
from fastproto.cpu.numba_cache import compiled

GROUPS_OF = 16  # columns that share one maximum: only the best groups of a row are read again
LANES = 64  # the number of groups is a multiple of it, to fill vector registers
FAST = {"nnan", "nsz", "arcp", "contract", "reassoc"}  # not "ninf": empty places hold -inf


@compiled(inline="always", fastmath=FAST)
def _exp2(x):
    """2^x for x <= 0 with a relative error of 1e-4, enough for prices; x is clamped at -126."""
    x = larger(x, np.float32(-126.0))
    whole = np.floor(x)
    part = x - whole
    fraction = np.float32(1.0) + part * (
        np.float32(0.6951786) + part * (np.float32(0.2276724) + part * np.float32(0.0771490))
    )
    return fraction * power_of_two(whole)


@compiled(fastmath=FAST)
def softmax_columns(block, prices, sharpness, mass):
    """mass_j += Σ_i softmax_j(sharpness · (s_ij - p_j)), the exponentials to base 2; mass is float32 [C]."""
    rows, columns = block.shape
    power = np.empty(columns, np.float32)
    for i in range(rows):
        row = block[i]
        best = np.float32(-np.inf)
        for j in range(columns):
            x = widen(row[j]) - prices[j]
            power[j] = x
            best = larger(best, x)
        total = np.float32(0.0)
        for j in range(columns):
            x = _exp2((power[j] - best) * sharpness)
            power[j] = x
            total += x
        share = np.float32(1.0) / total
        for j in range(columns):
            mass[j] += power[j] * share


@compiled(inline="always")
def insert(values, indices, value, index):
    """Insert into a descending list, whose last entry is dropped."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        indices[at] = indices[at - 1]
        at -= 1
    values[at] = value
    indices[at] = index


@compiled(inline="always", fastmath=FAST)
def _group_maxima(row, prices, maxima):
    """maxima_g = max over the columns j = g modulo the number of groups."""
    groups, columns = len(maxima), len(row)
    maxima[:] = -np.inf
    for start in range(0, columns, groups):
        part, cost = row[start : start + groups], prices[start : start + groups]
        for g in range(len(part)):
            maxima[g] = larger(maxima[g], widen(part[g]) - cost[g])


@compiled(fastmath=FAST)
def largest(part):
    best = np.float32(-np.inf)
    for j in range(len(part)):
        best = larger(best, part[j])
    return best


@compiled(inline="always")
def _threshold(maxima, high, least, k):
    """``least``, raised where many maxima reach it, so that at least k still do; ``high`` is the largest maximum.

    By bisection, which needs no branches per entry.
    """
    below = -high
    count = 0
    for g in range(len(maxima)):
        count += maxima[g] >= least
        below = larger(below, -maxima[g])
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
def top_of_rows(block, prices, floor, within, first, values, indices):
    """Top-k reduced scores s_ij - p_j of each row, descending, and their columns; unused places hold -inf and -1.

    Only scores of at least floor_i and at most within_i below the row's largest. Ties go to the column that comes first
    in an order that starts elsewhere in every row, so that equal rows, or rows with ties, do not all list the same few.
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
        high = largest(maxima)
        # if at least k maxima reach the threshold, the k-th largest score does too
        least = _threshold(maxima, high, max(floor[i], high - within[i]), k)
        turn = (first + i) * 7919 % groups
        for step in range(groups):
            g = step + turn
            if g >= groups:
                g -= groups
            if maxima[g] < least or maxima[g] <= value[k - 1]:
                continue
            for j in range(g, columns, groups):
                x = widen(row[j]) - prices[j]
                if x >= least and x > value[k - 1]:
                    insert(value, index, x, np.int32(j))


@compiled(fastmath=FAST)
def exact_scores(left, right, rows, columns, found):
    """found_a = left[rows_a] · right[columns_a] with float64 sums: the product of two float32 is exact in float64."""
    dim = left.shape[1]
    for a in range(len(rows)):
        x, y = left[rows[a]], right[columns[a]]
        total = 0.0
        for d in range(dim):
            total += np.float64(x[d]) * np.float64(y[d])
        found[a] = total


@compiled(fastmath=FAST)
def sum_of_squares(block):
    """Σ_ij s_ij²: float32 within a row, float64 over the rows."""
    total = 0.0
    for i in range(len(block)):
        row, square = block[i], np.float32(0.0)
        for j in range(len(row)):
            square += widen(row[j]) * widen(row[j])
        total += np.float64(square)
    return total


@compiled(fastmath=FAST)
def mean_direction(x, norms, mean):
    """mean = the mean of the rows x_i / norms_i, in float64."""
    mean[:] = 0.0
    for i in range(len(x)):
        share = 1.0 / (norms[i] * len(x))
        for d in range(len(mean)):
            mean[d] += np.float64(x[i, d]) * share


@compiled(fastmath=FAST)
def centre_rows(x, norms, mean, direction, rounded, norm, loss, along):
    """rounded_i ≈ x_i / norms_i - mean, of norm norm_i, rounding error loss_i; along_i = direction · x_i / norms_i."""
    for i in range(len(x)):
        share = 1.0 / norms[i]
        square = lost = part = 0.0
        for d in range(len(mean)):
            whole = np.float64(x[i, d]) * share
            true = whole - mean[d]
            rounded[i, d] = narrow(np.float32(true), rounded[i, d])
            gone = true - np.float64(widen(rounded[i, d]))
            square += true * true
            lost += gone * gone
            part += whole * direction[d]
        norm[i], loss[i], along[i] = np.sqrt(square), np.sqrt(lost), part
