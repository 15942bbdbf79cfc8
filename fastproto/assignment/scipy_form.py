"""``linear_sum_assignment``: SciPy's function of that name, by the solvers of this package."""

from __future__ import annotations

import math
from typing import overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastproto.assignment.api import solve
from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.inputs import LARGEST, largest_of
from fastproto.assignment.reduced_costs import NO_PLACE

SCIPY_BELOW = 100  # rows or columns: below it SciPy takes less than a millisecond
WIDE = 2  # columns per row, or rows per column, above which SciPy is faster
TOLERANCE = 1e-9  # of the certificate; a result that is not certified is solved again
SMALLER = -40  # exponent of the power of two that brings any float64 below LARGEST


@overload
def linear_sum_assignment(cost_matrix: Tensor, maximize: bool = False) -> tuple[Tensor, Tensor]: ...
@overload
def linear_sum_assignment(cost_matrix: ArrayLike, maximize: bool = False) -> tuple[Ints, Ints]: ...
def linear_sum_assignment(
    cost_matrix: Tensor | ArrayLike, maximize: bool = False
) -> tuple[Tensor, Tensor] | tuple[Ints, Ints]:
    """Rows and columns of an optimal matching, as ``scipy.optimize.linear_sum_assignment(cost_matrix, maximize)``.

    The total is SciPy's; with ties the pairs may differ. Small and far from square matrices are handed to SciPy, which
    is fastest there, others to :func:`fastproto.assignment.solve`. Other differences on purpose: tensors of any real
    dtype are taken as they are, also on a GPU or with a gradient; a masked array is an error, where SciPy ignores the
    mask; totals that overflow float64 are compared correctly; messages of errors say more.

    Args:
        cost_matrix: [n, m]: a tensor, or what ``numpy.asarray`` converts to float64 without loss of kind: lists, arrays
            of numbers or bool. inf forbids a pair (-inf with ``maximize``).
        maximize: find the largest total instead of the smallest.

    Returns:
        ``rows``, ascending, and ``columns``, int64 [min(n, m)] each: arrays, or tensors on the device of the costs.

    Raises:
        ValueError: not a matrix; NaN or -inf (inf with ``maximize``); no matching avoids the forbidden pairs; rows of
            different lengths.
        TypeError: a dtype that float64 cannot hold: complex, object, dates, long double; a masked array; a sparse
            tensor.
        OverflowError: an int in a list that is too large for float64.

    Source: SciPy's documentation.
    """
    given = _of_tensor(cost_matrix) if isinstance(cost_matrix, Tensor) else _of_array(cost_matrix)
    _check(given, maximize)
    rows, columns = matched(-given if maximize else given)
    if not isinstance(cost_matrix, Tensor):
        return rows, columns
    return torch.from_numpy(rows).to(cost_matrix.device), torch.from_numpy(columns).to(cost_matrix.device)


def matched(cost: Floats, scipy_below: int = SCIPY_BELOW) -> tuple[Ints, Ints]:
    """The rows and columns of a matrix that holds neither NaN nor -inf; from ``scipy_below`` rows on not by SciPy."""
    few, many = sorted(cost.shape)
    if few == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if largest_of(cost) > LARGEST:
        cost = np.ldexp(cost, SMALLER)
    if few < scipy_below or many > WIDE * few:
        return _by_scipy(cost)
    found = solve(cost, tolerance=TOLERANCE)
    if found.interrupted:
        raise KeyboardInterrupt  # a caller of SciPy's function expects no best so far
    columns = found.permutation.numpy()
    rows = np.flatnonzero(columns >= 0)
    return rows, columns[rows]


def _by_scipy(cost: Floats) -> tuple[Ints, Ints]:
    from scipy.optimize import linear_sum_assignment as by_scipy

    try:
        rows, columns = by_scipy(cost)
    except ValueError:
        raise ValueError(NO_PLACE) from None
    return rows.astype(np.int64), columns.astype(np.int64)


def _of_tensor(cost: Tensor) -> Floats:
    if cost.is_complex() or cost.layout != torch.strided or cost.is_quantized or cost.device.type == "meta":
        kind = "on the meta device" if cost.device.type == "meta" else f"{cost.dtype} ({cost.layout})"
        raise TypeError(f"cost is {kind}; expected real numbers in a dense tensor: convert it, for instance with .real")
    array: Floats = cost.detach().to("cpu", torch.float64).resolve_neg().numpy()
    return array


def _of_array(cost: object) -> Floats:
    """``cost`` as float64, with SciPy's rules: arrays by safe casts, all else number by number."""
    if isinstance(cost, np.ma.MaskedArray):
        raise TypeError("cost is a masked array; expected a plain one: pass cost.filled(numpy.inf) to forbid the pairs")
    if hasattr(cost, "__array__"):
        array = np.asarray(cost)
        if not np.can_cast(array.dtype, np.float64, "safe"):
            raise TypeError(
                f"cost holds {array.dtype}; expected real numbers that fit float64: convert it with .astype(float)"
            )
        return array.astype(np.float64, copy=False)
    try:
        return np.asarray(cost, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(
            f"cost is a {type(cost).__name__} that is no matrix of numbers ({error}); expected rows of one length"
        ) from None


def _check(cost: Floats, maximize: bool) -> None:
    if cost.ndim != 2:
        raise ValueError(f"cost has shape {list(cost.shape)}; expected a matrix [n, m], with one cost per pair")
    if not cost.size:
        return
    refused, worst = (math.inf, float(cost.max())) if maximize else (-math.inf, float(cost.min()))  # NaN propagates
    if math.isnan(worst) or worst == refused:
        wrong = np.isnan(cost) if math.isnan(worst) else cost == refused
        raise ValueError(
            f"cost holds {'NaN' if math.isnan(worst) else refused} (first in row {int(wrong.any(1).argmax())}); "
            f"expected finite numbers, or {-refused} for a forbidden pair"
        )
