"""``solve``: any cost matrix, square or not."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment, Certificate, Yardstick, certify
from fastproto.assignment.inputs import check_memory, check_options, checked, choose, read_cost
from fastproto.assignment.match_matrix import Match, Old, Problem, match

Array = np.ndarray[Any, Any]
MATRIX_FROM = 3000  # from here on column generation took less time than the dense solver
LARGEST_COST = 1e30  # for sweeps in float32


def solve(
    cost: Tensor | np.ndarray[Any, Any],
    *,
    previous: Assignment | None = None,
    method: str = "auto",
    tolerance: float = 1e-6,
    time_limit: float | None = None,
    progress: bool = False,
) -> Assignment:
    """The permutation that minimises Σ_i cost_{i,A(i)} for any matrix, with a certificate.

    ``scipy.optimize.linear_sum_assignment(cost)``. Prices mean the same as in :func:`assign` with s = -cost. The cost
    is never above SciPy's in float64 by more than 1e-6 · max(1, |cost|), unless a time limit or Ctrl-C ends the search
    or ``tolerance`` is larger.

    Args:
        cost: [n, m], a tensor, an array or lists of real numbers or bool (integers are exact up to 2^53), at most
            1e300 either way. inf forbids a pair; large finite costs do as well. Where n > m, n - m rows are left out:
            their place in the permutation [n] is -1. Never modified. Where it is a product of factors,
            :func:`assign` does without it.
        tolerance: how large the gap may be, relative to min(n, m) · scale and to max(1, |objective|), for the result
            to count as certified. ``scale`` is the standard deviation of the costs that compete: each row and each
            column (of a square) reduced by its smallest cost, and cut to a multiple of the distance between a row's
            best and next cost, so that forbidden pairs have no say.
        previous, method, time_limit, progress: as in :func:`assign`; ``auto`` is column generation from 3000 rows and
            columns on. Where a method does not prove its result optimal, SciPy solves the matrix anew.

    Raises:
        TypeError, ValueError: not a matrix of real numbers, NaN or -inf, no permutation that avoids the forbidden
            pairs, ``previous`` of another shape, above 1e30 for ``column_generation``, too large for the memory.
    """
    started = time.perf_counter()
    check_options(previous, tolerance, time_limit)
    given, device = read_cost(cost)
    rows, columns = given.shape
    decision = choose(method, min(rows, columns), MATRIX_FROM)
    check_memory(rows, columns, "a smaller matrix, or its factors and assign(..., method='column_generation')")
    previous = checked(previous, rows, columns)
    if not given.size:
        found = _nothing(rows, columns)
    else:
        decision = _in_range(given, *decision, asked=method)
        deadline = None if time_limit is None else started + time_limit
        found = _solve(given, previous, *decision, tolerance, deadline, progress)
    permutation = torch.from_numpy(found.permutation)
    return Assignment(
        permutation=permutation.to(device),
        prices=torch.from_numpy(found.prices).to(device),
        objective=-found.known.objective,
        gap=found.known.gap,
        relative_gap=found.known.relative_gap,
        rounding_floor=found.known.rounding_floor,
        certified=found.known.certified,
        changed=None if previous is None else int((permutation != previous.permutation).sum()),
        method=found.method,
        reason=found.reason,
        seconds=time.perf_counter() - started,
        passes=found.passes,
        interrupted=found.interrupted,
    )


def _solve(
    given: Array,
    previous: Assignment | None,
    method: str,
    why: str,
    tolerance: float,
    deadline: float | None,
    progress: bool,
) -> Match:
    scores = torch.from_numpy(given)
    rows, columns = given.shape

    def prove(permutation: Array, prices: Array, scale: float) -> Certificate:
        there = torch.from_numpy(permutation), torch.from_numpy(prices)
        yardstick = Yardstick(min(rows, columns), scale, tolerance)
        return certify(lambda start, stop: -scores[start:stop], *there, yardstick)

    old = None if previous is None else Old(previous.permutation.numpy(), previous.prices.numpy())
    return match(Problem(given, prove, method, why, old, deadline=deadline, progress=progress))


def _nothing(rows: int, columns: int) -> Match:
    """Of a matrix without entries: all rows are left out, if there are any."""
    known = Certificate(objective=0.0, gap=0.0, relative_gap=0.0, rounding_floor=0.0, certified=True)
    return Match(np.full(rows, -1), np.zeros(columns), known, "dense", "nothing to match", 0)


def _in_range(given: Array, method: str, why: str, *, asked: str) -> tuple[str, str]:
    if method != "column_generation":
        return method, why
    largest = float(np.abs(given).max(where=given < np.inf, initial=0.0))
    if largest <= LARGEST_COST:
        return method, why
    if asked == "auto":
        return "dense", f"costs above {LARGEST_COST:.0e}"
    raise ValueError(
        f"cost holds {largest:.2g}; expected at most {LARGEST_COST:.0e}, which float32 can add: "
        "divide it by its largest, pass inf for a forbidden pair, or method='dense'"
    )
