"""Validates the inputs of ``assign`` and ``solve``, with one device-to-host copy."""

from __future__ import annotations

import math
import numbers
import os
from dataclasses import replace
from decimal import Decimal
from typing import Literal, TypeAlias, TypeGuard, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastproto.assignment.array_types import Floats
from fastproto.assignment.certificate import Assignment
from fastproto.assignment.lapjv import check_installed
from fastproto.support.checks import (
    check_finite,
    check_int64_vector,
    check_label_range,
    check_matrix,
    check_permutation,
    shape_of,
)

LARGEST_LENGTH = 1e15  # of a prototype: sums of its squares fit float32
LARGEST = 1e300  # of a cost: sums and differences fit float64
LARGEST_IN_PASSES = 1e30  # of a cost in column generation, whose passes are float32
NUMBERS = (numbers.Real, Decimal, np.bool_)

Solver: TypeAlias = Literal["dense", "lapjv", "column_generation"]
Method: TypeAlias = Literal["auto", "dense", "lapjv", "column_generation"]


def choose(method: Method, size: int, column_generation_from: int, *counted: str) -> tuple[Solver, str]:
    """The solver and the reason for it; ``size`` is the smallest number of what is ``counted``, such as "classes"."""
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; expected one of {', '.join(get_args(Method))}")
    if method == "lapjv":
        check_installed()
    if method != "auto":
        return method, "asked for"
    if size < column_generation_from:
        return "dense", f"fewer than {column_generation_from} {' or '.join(counted)}"
    return "column_generation", f"at least {column_generation_from} {' and '.join(counted)}"


def choose_for_costs(cost: Floats, solver: Solver, why: str, *, asked: Method) -> tuple[Solver, str]:
    """Falls back to the dense solver where costs overflow float32 passes, unless column generation was asked for."""
    if solver != "column_generation":
        return solver, why
    largest = largest_of(cost)
    if largest <= LARGEST_IN_PASSES:
        return solver, why
    if asked == "auto":
        return "dense", f"costs above {LARGEST_IN_PASSES:.0e}"
    raise ValueError(
        f"cost holds {largest:.2g}; expected at most {LARGEST_IN_PASSES:.0e}, so that sums fit float32: "
        "divide the matrix, pass inf for a forbidden pair, or pass method='dense'"
    )


def largest_of(cost: Floats) -> float:
    """The largest |cost| of a pair that is not forbidden; 0 where all are."""
    low, high = float(cost.min()), float(cost.max())
    if high < math.inf:
        return max(-low, high)
    return float(np.abs(cost).max(where=cost < math.inf, initial=0.0))  # masked: several times as slow


def check_memory(rows: int, columns: int, instead: str) -> None:
    if not fits(rows, columns):
        raise ValueError(
            f"{rows} x {columns} scores need {_bytes(rows, columns) / 2**30:.0f} GiB as a matrix and this machine has "
            f"{_memory() / 2**30:.0f}; use {instead}"
        )


def fits(rows: int, columns: int) -> bool:
    return _bytes(rows, columns) <= _memory()


def _bytes(rows: int, columns: int) -> int:
    return 3 * 8 * rows * columns  # the scores, the solver's costs and one temporary


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_options(previous: object, tolerance: object, time_limit: object) -> None:
    if previous is not None and not isinstance(previous, Assignment):
        raise TypeError(
            f"previous is a {type(previous).__name__}; expected an Assignment, the result of an earlier call"
        )
    if not _is_number(tolerance) or not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}; expected a number >= 0, such as 1e-6")
    if time_limit is not None and (not _is_number(time_limit) or not 0 <= time_limit < math.inf):
        raise ValueError(f"time_limit is {time_limit}; expected seconds >= 0, or None for no limit")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_factors(class_means: Tensor, prototypes: Tensor) -> None:
    check_matrix("class_means", class_means)
    check_matrix("prototypes", prototypes)
    if class_means.shape != prototypes.shape:
        raise ValueError(
            f"class_means are {shape_of(class_means)} and prototypes {shape_of(prototypes)}; expected the same [C, D]"
        )


def check_lengths(class_means: Tensor, prototypes: Tensor, lengths: Tensor, widths: Tensor) -> None:
    """``lengths`` and ``widths`` [C]: the norms of the class means and of the prototypes, on the CPU."""
    longest, widest = float(lengths.numpy().max()), float(widths.numpy().max())  # NaN propagates
    if not math.isfinite(widest):
        check_finite("prototypes", prototypes)
    if not math.isfinite(longest):
        check_finite("class_means", class_means)
        raise ValueError(
            f"class_means row {int(lengths.argmax())} has a norm whose square overflows float64; "
            "expected a smaller norm: scale the rows"
        )
    if not widest <= LARGEST_LENGTH:
        raise ValueError(
            f"prototypes have a row of norm {widest:.2g}; expected at most {LARGEST_LENGTH:.0e}, so that sums "
            "of squares fit float32: pass torch.nn.functional.normalize(prototypes, dim=1)"
        )


def copy_to_host(
    norms: Tensor, widths: Tensor, previous: Assignment | None
) -> tuple[Tensor, Tensor, Assignment | None]:
    """The arguments on the CPU, in one device-to-host copy."""
    there = [norms, widths]
    old = () if previous is None else (previous.permutation, previous.prices)
    if all(isinstance(x, Tensor) and not x.is_complex() for x in old):  # otherwise check_previous raises
        there += old
    flat = torch.cat([x.detach().to(norms.device, torch.float64).reshape(-1) for x in there]).cpu()
    lengths, found, *known = (
        part.view(x.shape).to(x.dtype, copy=True)
        for x, part in zip(there, flat.split([x.numel() for x in there]), strict=True)
    )
    if previous is not None and known:
        previous = replace(previous, permutation=known[0], prices=known[1])
    return lengths, found, previous


def check_previous(previous: Assignment | None, rows: int, columns: int) -> Assignment | None:
    """``previous``, validated and copied to the CPU, with float64 prices."""
    if previous is None:
        return None
    permutation, prices = previous.permutation, previous.prices
    if isinstance(permutation, Tensor):  # otherwise the next check raises
        permutation = permutation.to("cpu", copy=True)
    if rows == columns > 0:
        check_permutation("previous.permutation", permutation, rows)
    else:
        _check_matching(permutation, rows, columns)
    if not isinstance(prices, Tensor) or not prices.is_floating_point() or prices.shape != (columns,):
        given = f"{prices.dtype} {shape_of(prices)}" if isinstance(prices, Tensor) else type(prices).__name__
        raise ValueError(
            f"previous.prices are {given}; expected floating-point numbers [{columns}]: pass an earlier result as it is"
        )
    prices = prices.detach().to("cpu", torch.float64, copy=True)
    check_finite("previous.prices", prices[:, None])
    return replace(previous, permutation=permutation, prices=prices)


def _check_matching(permutation: Tensor, rows: int, columns: int) -> None:
    check_int64_vector("previous.permutation", permutation, rows, f"int64 [{rows}], as solve gives it for this shape")
    used = permutation[permutation != -1]
    check_label_range("previous.permutation", used, columns)
    if len(used) != min(rows, columns) or len(used.unique()) != len(used):
        raise ValueError(
            f"previous.permutation matches {len(used.unique())} rows with columns of their own; expected "
            f"{min(rows, columns)} of {rows} rows: pass the result of solve for a matrix of this shape"
        )


def read_cost(cost: object) -> tuple[Floats, torch.device]:
    """A row-major float64 copy of the cost matrix, and the device of ``cost``."""
    if isinstance(cost, Tensor):
        array, device = _of_tensor(cost), cost.device
    else:
        array, device = _of_array(cost), torch.device("cpu")
    if array.size:
        _check_range(array)
    return array, device


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"cost has shape {list(shape)}; expected a matrix [n, m], square or not, with one cost per pair"
        )


def _of_tensor(cost: Tensor) -> Floats:
    if cost.is_complex() or cost.layout != torch.strided or cost.is_quantized or cost.device.type == "meta":
        kind = "on the meta device" if cost.device.type == "meta" else f"{cost.dtype} ({cost.layout})"
        raise TypeError(f"cost is {kind}; expected real numbers in a dense tensor: convert it, for instance with .real")
    _check_shape(cost.shape)
    copy = cost.detach().to(device="cpu", dtype=torch.float64, copy=True, memory_format=torch.contiguous_format)
    array: Floats = copy.resolve_neg().numpy()
    return array


def _of_array(cost: object) -> Floats:
    if isinstance(cost, np.ma.MaskedArray):
        raise TypeError("cost is a masked array; expected a plain one: pass cost.filled(numpy.inf) to forbid the pairs")
    try:
        array = np.asarray(cost)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"cost is a {type(cost).__name__} that NumPy cannot read ({error}); expected rows of one length"
        ) from None
    if array.dtype.kind == "O" and array.ndim == 2 and all(isinstance(x, NUMBERS) for x in array.flat):
        array = _of_objects(array)
    if array.dtype.kind not in "biuf":
        given = f"a {type(cost).__name__} of {array.dtype}" if array.ndim else f"a {type(cost).__name__}"
        raise TypeError(f"cost is {given}; expected real numbers in a matrix [n, m]: convert it with .astype(float)")
    _check_shape(array.shape)
    return np.array(array, dtype=np.float64, order="C")


def _of_objects(array: NDArray[np.object_]) -> Floats:
    try:
        return array.astype(np.float64)
    except OverflowError:
        raise ValueError(
            f"cost holds a number that overflows float64; expected at most {LARGEST:.0e}: "
            "divide the matrix, or pass inf for a forbidden pair"
        ) from None


def _check_range(cost: Floats) -> None:
    low, high = float(cost.min()), float(cost.max())  # NaN propagates to both
    if math.isnan(low):
        row = int(np.isnan(cost).any(1).argmax())
        raise ValueError(f"cost holds NaN (first in row {row}); expected numbers: find what produced it")
    if low == -math.inf:
        row = int(np.isneginf(cost).any(1).argmax())
        raise ValueError(
            f"cost holds -inf (first in row {row}); expected finite numbers, or inf for a forbidden pair: "
            "pass a large negative number for a pair that must be taken"
        )
    if high == math.inf:
        high = float(cost.max(where=cost < math.inf, initial=-LARGEST))
    if (low < math.inf and high > LARGEST) or low < -LARGEST:
        raise ValueError(
            f"cost holds {high if high > -low else low:.2g}; expected at most {LARGEST:.0e} either way: "
            "divide the matrix, or pass inf for a forbidden pair"
        )
