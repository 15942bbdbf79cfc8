"""Row loops of the processor, compiled: a row of features is read once from the memory, and there is no temporary.

float32 rows, contiguous. Sums are re-ordered to fill vector registers, in the same way at every call. Importing this
compiles nothing: numba does so at the first call and keeps the result on disk.
"""
# compiled functions have no Python types
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastproto.cpu.numba_cache import compiled
from fastproto.support.checks import TINY_NORM

GOOD, BAD_LABEL, BAD_ASSIGNMENT, NOT_FINITE, NOT_UNIT = range(5)
REORDER = {"reassoc", "contract", "nsz", "arcp"}  # without "nnan" and "ninf": NaN and inf have to be seen
AHEAD = 12  # rows: far enough for the memory to answer, few enough for the second cache
_ZERO, _ONE, _INFINITE = np.float32(0), np.float32(1), np.float32(np.inf)
_TINY = np.float32(TINY_NORM**2)


@intrinsic
def _fetch(_context, matrix, row, column):
    """Asks for the cache line of matrix[row, column] without waiting for it."""

    def ask(context, builder, signature, arguments):
        kind, (matrix, row, column) = signature.args[0], arguments
        array = context.make_array(kind)(context, builder, matrix)
        byte = ir.IntType(8).as_pointer()
        at = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, array, [row, column]), byte)
        flag = ir.IntType(32)
        prefetch = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], prefetch)
        builder.call(function, [at, flag(0), flag(2), flag(1)])  # to read, into the second cache, data
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp), ask


@compiled(fastmath=REORDER)
def fetch_row(matrix, row):
    for column in range(0, matrix.shape[1], 16):  # 16 float32 are a line
        _fetch(matrix, row, column)  # type: ignore[call-arg]  # numba itself gives the context


@compiled(fastmath=REORDER)
def inverse_norm(squares):
    """1/‖x‖ from Σ x²; zero for a row without direction, -1 for one with NaN, inf or an overflow."""
    if not squares < _INFINITE:  # isfinite is a difference, which re-ordering turns into zero
        return -_ONE
    return _ONE / np.sqrt(squares) if squares > _TINY else _ZERO


@compiled(fastmath=REORDER)
def ipm_rows(x, labels, prototypes, assignment, weight, factor, tolerance, skip, loss, gradient):
    """Loss [B] and gradient [B, D] of factor · ω · ½(cos - 1)²; what is wrong, in which row, and rows skipped.

    An empty weight stands for ones; ``tolerance`` is that of ‖w‖ = 1; ``skip``: rows that are not finite have loss and
    gradient zero.
    """
    dim, count, skipped = x.shape[1], len(prototypes), 0
    entries = assignment.reshape(-1, 1)
    for i in range(len(x)):
        if labels[i] < 0 or labels[i] >= count:
            return BAD_LABEL, i, skipped
        row = assignment[labels[i]]
        if row < 0 or row >= count:
            return BAD_ASSIGNMENT, i, skipped
        if i + 2 * AHEAD < len(x) and 0 <= labels[i + 2 * AHEAD] < count:  # which row comes from the memory too
            _fetch(entries, labels[i + 2 * AHEAD], 0)  # type: ignore[call-arg]  # numba itself gives the context
        if i + AHEAD < len(x) and 0 <= labels[i + AHEAD] < count:
            fetch_row(prototypes, assignment[labels[i + AHEAD]])
        xx, xw, ww = _ZERO, _ZERO, _ZERO
        for d in range(dim):
            xx += x[i, d] * x[i, d]
            xw += x[i, d] * prototypes[row, d]
            ww += prototypes[row, d] * prototypes[row, d]
        if not abs(np.sqrt(ww) - _ONE) <= tolerance:
            return NOT_UNIT, row, skipped
        inverse = inverse_norm(xx)
        if inverse < _ZERO:
            if not skip:
                return NOT_FINITE, i, skipped
            skipped += 1
            loss[i] = _ZERO
            gradient[i] = _ZERO
            continue
        cosine = xw * inverse
        scale = factor * weight[i] if len(weight) else factor
        slope = scale * (cosine - _ONE) * inverse
        loss[i] = np.float32(0.5) * scale * (cosine - _ONE) * (cosine - _ONE)
        along = slope * cosine * inverse
        for d in range(dim):
            gradient[i, d] = slope * prototypes[row, d] - along * x[i, d]
    return GOOD, 0, skipped


@compiled(fastmath=REORDER)
def class_mean_rows(means, x, labels, momentum, skip, inverse):
    """The recurrence q ← α q + (1-α) z in batch order; means change only when every row has been found good.

    ``inverse`` [B] is room for 1/‖x‖. Returns what is wrong, in which row, and the rows skipped.
    """
    dim, skipped = x.shape[1], 0
    for i in range(len(x)):
        if labels[i] < 0 or labels[i] >= len(means):
            return BAD_LABEL, i, skipped
        xx = _ZERO
        for d in range(dim):
            xx += x[i, d] * x[i, d]
        inverse[i] = inverse_norm(xx)
        if inverse[i] < _ZERO:
            if not skip:
                return NOT_FINITE, i, skipped
            skipped += 1
    for i in range(len(x)):
        label, share = labels[i], (_ONE - momentum) * inverse[i]
        if i + AHEAD < len(x):
            fetch_row(means, labels[i + AHEAD])
        if share >= _ZERO:
            for d in range(dim):
                means[label, d] = momentum * means[label, d] + share * x[i, d]
    return GOOD, 0, skipped
